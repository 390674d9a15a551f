"""A teacher cache of the largest logits (`teacher_cache.top_k`): what comes back is the formula's, a loss over it is its formula
in float64 on every backend, with all classes it is the cache of all logits, and what it cannot stand for is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.kept_logits import packed, unpacked
from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.teacher_cache import TeacherCache
from crossdistil.core.teacher_outputs import load, make_layout, pieces
from crossdistil.core.teacher_writing import write_outputs
from crossdistil.tests import tiny
from crossdistil.tests.cached_teacher import LENGTH, ROWS, content, key_of, plan_of, rows_of

CLASSES, KEPT, TEMPERATURE = 40, 8, 3.0
LOGITS = np.random.default_rng(0).normal(0, 3, (ROWS, CLASSES)).astype(np.float32)


def spread(logits, kept):
    """Probabilities whose largest are kept, while the others share what is left of 1 evenly, in float64."""
    found = softmax(logits.astype(np.float64), axis=-1)
    for row in found:
        others = np.argsort(row, kind="stable")[: len(row) - kept]
        row[others] = (1 - np.sort(row)[-kept:].sum()) / len(others)
    return found


def written(folder, model_folder, top_k):
    model, table = dataclasses.replace(load_model(model_folder), outputs=CLASSES), rows_of(model_folder)
    key = dataclasses.replace(key_of(model, table, ("logits",)), top_k=top_k)
    cache = TeacherCache(folder, key, model, table.lengths)
    plan = plan_of(table)
    filled = [np.where((rows >= 0)[:, None], LOGITS[rows], np.float32(7)) for rows in plan]
    by_first = {rows[0]: [values] for rows, values in zip(plan, filled)}
    write_outputs(cache, plan, lambda names: lambda rows: by_first[rows[0]], lambda done, total: None)
    cache.open()
    return cache


def test_the_largest_are_kept_and_the_others_share_the_rest(tmp_path, tiny_model):
    cache = written(tmp_path / "cache", tiny_model, KEPT)
    assert cache.size == ROWS * (2 * KEPT + 1) * 4
    rows = np.array([5, 0, 41, -1])
    read = cache.batch(rows, LENGTH)["logits"]
    assert read.shape == (4, CLASSES) and not read[3].any()
    np.testing.assert_allclose(softmax(read[:3].astype(np.float64), axis=1), spread(LOGITS[rows[:3]], KEPT), rtol=1e-5)
    largest = np.argsort(-LOGITS[rows[:3]], axis=1)[:, :KEPT]
    kept, given = (np.take_along_axis(array[:3], largest, 1) for array in (read, LOGITS[rows]))
    np.testing.assert_array_equal(kept, given)  # no arithmetic on what is kept


def test_with_all_classes_it_is_the_cache_of_all_logits(tmp_path, tiny_model):
    all_of_them, whole = (written(tmp_path / str(top_k), tiny_model, top_k) for top_k in (CLASSES, None))
    assert all_of_them.path(all_of_them.layouts[0]).read_bytes() == whole.path(whole.layouts[0]).read_bytes()
    np.testing.assert_array_equal(all_of_them.batch(np.arange(ROWS), LENGTH)["logits"], LOGITS)


def test_other_numbers_of_logits_are_kept_beside_each_other(tmp_path, tiny_model):
    cache = written(tmp_path / "cache", tiny_model, KEPT)
    before = content(cache.folder)
    for other in (None, 9):
        found = dataclasses.replace(cache.key, top_k=other)
        assert not TeacherCache(cache.folder, found, cache.model, rows_of(tiny_model).lengths).complete
        written(tmp_path / "cache", tiny_model, other)
    assert before.items() < content(cache.folder).items() and cache.complete


def test_logits_of_tokens_are_kept_token_by_token(tiny_model):
    config = load_model(tiny_model).config.model_copy()
    lengths = np.array([3, 5])
    layout = make_layout("logits", config, CLASSES, lengths, KEPT)
    assert layout.kept == (CLASSES, KEPT)
    per_token = dataclasses.replace(layout, kind="token", starts=np.array([0, 3, 8]) * layout.width)
    values = np.random.default_rng(1).normal(size=(2, 5, CLASSES)).astype(np.float32)
    flat = np.zeros(8 * layout.width, np.float32)
    for start, piece in pieces(per_token, np.array([0, 1]), lengths, values):
        flat[start : start + len(piece)] = piece
    read = load(per_token, flat, np.array([1, 0]), 6)
    np.testing.assert_array_equal(read[0, :5], unpacked(packed(values[1], KEPT), CLASSES, KEPT))
    assert not read[0, 5:].any() and not read[1, 3:].any()


def test_the_loss_over_them_is_its_formula_in_float64(engine):
    """Hinton's cross-entropy with the temperature, over what `top_k` keeps of the teacher."""
    student = np.random.default_rng(2).normal(0, 2, (8, CLASSES)).astype(np.float32)
    taught = unpacked(packed(LOGITS[:8], KEPT), CLASSES, KEPT)
    term = LOSSES["kd_ce"](loss="kd_ce", temperature=TEMPERATURE)
    function = term.bound(TermContext(CLASSES, ONE_CLASS, tiny.CONFIG, {"teacher": tiny.CONFIG}), "")

    def value(ops, params, batch):
        return [ops.reshape(function(ops, params, {"logits": params["own"]}, {"logits": params["taught"]}, batch), (1,))]

    batch = {"example_mask": np.ones(8, np.float32)}
    found = engine.infer(value, engine.load_frozen({"own": student, "taught": taught}))(batch)[0]
    soft = spread(LOGITS[:8], KEPT) ** (1 / TEMPERATURE)
    soft /= soft.sum(axis=1, keepdims=True)
    expected = -(soft * log_softmax(student.astype(np.float64) / TEMPERATURE, axis=1)).sum() * TEMPERATURE**2
    assert float(found[0]) == pytest.approx(expected, rel=2e-6)


def test_mass_that_is_far_below_the_kept_is_still_there():
    logits = np.array([[0.0, -60.0, -61.0, -62.0]], np.float32)
    read = unpacked(packed(logits, 1), 4, 1)
    np.testing.assert_allclose(read[0, 1:], logsumexp([-60.0, -61.0, -62.0]) - np.log(3), rtol=1e-6)


REFUSED = {
    "in every step": ({"top_k": 2}, {}, "top_k is for use: always, got auto"),
    "none": ({"top_k": 0, "use": "always"}, {}, "top_k"),
    "a regression": (
        {"top_k": 1, "use": "always"},
        {"name": "own", "text": "sentence", "label": "label", "kind": "regression", "stages.0.objective": [{"loss": "kd_mse"}]},
        "teacher_cache.top_k: keeps the most probable of several classes, but this is a regression",
    ),
    "no logits": (
        {"top_k": 1, "use": "always"},
        {"stages.0.objective": [{"loss": "hidden_mse", "layers": [[2, 1]], "projection": {"kind": "linear"}}]},
        "teacher_cache.top_k: keeps logits, which no term asks a teacher for",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_cannot_stand_for_is_refused(tiny_task, tiny_model, name):
    cache, changes, message = REFUSED[name]
    tree = tiny.kd_recipe(tiny_task, tiny_model) | {"teacher_cache": cache}
    for key, value in changes.items():
        if key == "stages.0.objective":
            tree["stages"][0]["objective"] = value
        else:
            tree["task"][key] = value
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(tree, "test"), "test", 1)
