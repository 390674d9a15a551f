"""Losses over the scores of candidates: against their formulas in NumPy float64 on every backend, and against the losses of
sentence-transformers that they are."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from crossdistil.core.kinds.known_kinds import ONE_NUMBER, RANKING
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.tests import tiny

MEMBERS, LENGTHS = 4, [4, 2, 3]
"""Candidates of an example, and of each real query; a further example only fills the batch."""
LISTS = len(LENGTHS) + 1


def context(scored: bool = True, taught: bool = True, teachers: bool = True, **more) -> TermContext:
    configs = {"teacher": tiny.CONFIG} if teachers else {}
    return TermContext(1, RANKING, tiny.CONFIG, configs, members=MEMBERS, scored=scored, taught=taught, **more)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def candidates(value):
    """The mean over all candidates."""
    return lambda lists: np.mean([value(s, t, y) for own in lists for s, t, y in zip(*own)])


def pairs(value, wanted=lambda y, i, j: y[i] > y[j]):
    """The mean over the pairs of candidates."""

    def mean(lists):
        found = [
            value(s[i] - s[j], t[i] - t[j]) for s, t, y in lists for i in range(len(s)) for j in range(len(s)) if wanted(y, i, j)
        ]
        return np.mean(found)

    return mean


def queries(target, temperature=1.0):
    def mean(lists):
        found = [-(softmax(target(t, y) / temperature) * np.log(softmax(s / temperature))).sum() for s, t, y in lists]
        return temperature**2 * np.mean(found)

    return mean


def cross(s, p):
    return -(p * np.log(sigmoid(s)) + (1 - p) * np.log(sigmoid(-s)))


def exchanged(lists):
    found = []
    for s, _, y in lists:
        gains, order = 2.0**y - 1, np.argsort(-s, kind="stable")
        discount = np.empty(len(s))
        discount[order] = 1 / np.log2(2 + np.arange(len(s)))
        best = (np.sort(gains)[::-1] / np.log2(2 + np.arange(len(s)))).sum()
        found += [
            abs(gains[i] - gains[j]) * abs(discount[i] - discount[j]) / best * cross(s[i] - s[j], 1.0)
            for i in range(len(s))
            for j in range(len(s))
            if y[i] > y[j]
        ]
    return np.mean(found)


def any_two(y, i, j):
    return i < j


CASES = {
    "ranking_bce": ({}, candidates(lambda s, t, y: cross(s, y))),
    "ranking_bce, teacher": ({"by": "teacher"}, candidates(lambda s, t, y: cross(s, sigmoid(t)))),
    "ranking_bce, scores": ({"by": "scores"}, candidates(lambda s, t, y: cross(s, t))),
    "ranking_mse": ({}, candidates(lambda s, t, y: (s - y) ** 2)),
    "ranking_mse, teacher": ({"by": "teacher"}, candidates(lambda s, t, y: (s - t) ** 2)),
    "ranking_mse, scores": ({"by": "scores"}, candidates(lambda s, t, y: (s - t) ** 2)),
    "ranking_margin_mse": ({}, pairs(lambda s, t: (s - t) ** 2)),
    "ranking_margin_mse, all": ({"by": "scores", "pairs": "all"}, pairs(lambda s, t: (s - t) ** 2, any_two)),
    "ranknet": ({}, pairs(lambda s, t: cross(s, 1.0))),
    "ranknet, teacher": (
        {"by": "teacher", "temperature": 2}, pairs(lambda s, t: 4 * cross(s / 2, sigmoid(t / 2)), any_two),
    ),
    "lambdarank": ({}, exchanged),
    "listnet": ({}, queries(lambda t, y: y)),
    "listnet, teacher": ({"by": "teacher", "temperature": 3}, queries(lambda t, y: t, 3.0)),
    "listnet, scores": ({"by": "scores"}, queries(lambda t, y: t)),
}  # fmt: skip


def term_of(name):
    return LOSSES[name.partition(",")[0]](loss=name.partition(",")[0], **CASES[name][0])


def inputs(name):
    """(student, teacher, batch): scores (rows, 1) and arrays of rows; what fills would be noticed."""
    drawn = np.random.default_rng(len(name))
    real = np.arange(MEMBERS)[:, None] < np.array([*LENGTHS, 0])  # (candidates, lists)
    student, teacher = drawn.normal(0, 1, (2, MEMBERS, LISTS))
    scores = drawn.uniform(0, 1, (MEMBERS, LISTS))
    # Each query has candidates of several labels, the first one not always the best.
    labels = np.array([[1, 0, 0.5, 1], [0, 1, 0, 0], [1, 0, 1, 1], [0.25, 1, 0, 0]])
    for values, stray in ((student, 30), (teacher, -30), (scores, 9), (labels, 7)):
        values[~real] += stray
    flat = {"example_mask": real.astype(float), "labels": labels, "teacher_scores": scores}
    return student.reshape(-1, 1), teacher.reshape(-1, 1), {key: values.reshape(-1) for key, values in flat.items()}


def expected(name, student, teacher, batch):
    by_scores = CASES[name][0].get("by") == "scores"
    taught = batch["teacher_scores"] if by_scores else teacher
    lists = [
        [np.reshape(values, (MEMBERS, LISTS))[:length, place] for values in (student, taught, batch["labels"])]
        for place, length in enumerate(LENGTHS)
    ]
    return CASES[name][1](lists)


@pytest.mark.backend
def test_values_and_gradients_are_those_of_the_formulas(engine):
    names, functions, units, given = list(CASES), [], [], [inputs(name) for name in CASES]
    for name, (_, _, batch) in zip(names, given):
        term = term_of(name)
        assert term.problems(context()) == []
        functions.append(term.function(context(), "stage.term"))
        units.append(term.units(context(), batch))
    keys = [f"{index}" for index in range(len(names))]
    batch_keys = [[(key, f"{index}/{key}") for key in given[index][2]] for index in range(len(names))]
    parameters = {key: own[0].astype(np.float32) for key, own in zip(keys, given)}
    frozen = {key: own[1].astype(np.float32) for key, own in zip(keys, given)}
    arrays = {long: given[index][2][key].astype(np.float32) for index, own in enumerate(batch_keys) for key, long in own}

    def objective(ops, params, taught, batch):
        total, values = 0.0, []
        for index in range(len(functions)):
            own = {}
            for short, long in batch_keys[index]:
                own[short] = batch[long]
            student, teacher = {"logits": params[keys[index]]}, {"logits": taught[keys[index]]}
            value = functions[index](ops, {}, student, teacher, own) / units[index]
            total = total + value
            values.append(value)
        return total, ops.stack(values)

    values, gradients = engine.gradients(objective, parameters, frozen, arrays)
    for index, name in enumerate(names):
        student, teacher, batch = given[index]
        assert values[index] == pytest.approx(expected(name, student, teacher, batch), rel=1e-5), name
        slopes = np.zeros_like(student)
        for place in range(len(student)):
            ends = []
            for step in (1e-5, -1e-5):
                moved = student.copy()
                moved[place] += step
                ends.append(expected(name, moved, teacher, batch))
            slopes[place] = (ends[0] - ends[1]) / 2e-5
        assert np.abs(gradients[keys[index]] - slopes).max() <= 1e-4 * np.abs(slopes).max(), name


@pytest.mark.parametrize("name", ["ranknet, teacher", "listnet, teacher"])
def test_what_is_least_of_a_cross_entropy_is_its_value_at_the_teacher(name):
    from crossdistil.core.reference import ReferenceOps

    _, teacher, batch = inputs(name)
    term = term_of(name)
    least, value = (
        function(ReferenceOps(), {}, {"logits": teacher}, {"logits": teacher}, batch)
        for function in (term.entropy(context()), term.function(context(), ""))
    )
    assert least == pytest.approx(value, rel=1e-12) and term_of("ranknet").entropy(context()) is None


def scored(scores):
    """A CrossEncoder whose pairs are places of a table of scores."""
    import torch
    from sentence_transformers import CrossEncoder

    class Scored(CrossEncoder):
        device, num_labels = "cpu", 1

        def __init__(self):
            torch.nn.Module.__init__(self)

        def preprocess(self, pairs, prompt=None, task=None):
            return {"places": torch.tensor([place for _, place in pairs])}

        def forward(self, tokens):
            return {"scores": torch.tensor(scores)[tokens["places"]]}

    return Scored()


@pytest.mark.only_backend("torch")
def test_they_are_those_of_sentence_transformers():
    """Each value, of its own loss objects on the same scores: lists of unequal lengths, or one relevant candidate and others."""
    import torch
    from sentence_transformers.cross_encoder import losses

    from crossdistil.core.reference import ReferenceOps

    natural = {"reduction_log": "natural"}
    theirs = {
        "ranknet": lambda model: losses.RankNetLoss(model, **natural),
        "lambdarank": lambda model: losses.LambdaLoss(model, losses.LambdaRankScheme(), **natural),
        "listnet": losses.ListNetLoss,
        "listnet, scores": losses.ListNetLoss,
    }
    for name, loss in theirs.items():
        student, teacher, batch = inputs(name)
        places = [[candidate * LISTS + place for candidate in range(length)] for place, length in enumerate(LENGTHS)]
        key = "teacher_scores" if "scores" in name else "labels"
        labels = [torch.tensor(batch[key][own]) for own in places]
        found = loss(scored(student))([[""] * len(places), places], labels).item()
        own = term_of(name).function(context(), "")(ReferenceOps(), {}, {"logits": student}, {"logits": teacher}, batch)
        assert own / term_of(name).units(context(), batch) == pytest.approx(found, rel=1e-6), name
    student, teacher, batch = inputs("margins")
    batch["example_mask"][:] = 1.0
    batch["labels"] = (np.arange(MEMBERS * LISTS) < LISTS).astype(float)  # the first candidates are the relevant ones
    columns = np.arange(MEMBERS * LISTS).reshape(MEMBERS, LISTS).tolist()
    model = scored(student)
    everyone = [[""] * LISTS, *columns]
    found = losses.MarginMSELoss(model)(everyone, torch.tensor(teacher.reshape(MEMBERS, LISTS).T)).item()
    term = LOSSES["ranking_margin_mse"](loss="ranking_margin_mse")
    own = term.function(context(), "")(ReferenceOps(), {}, {"logits": student}, {"logits": teacher}, batch)
    assert own / term.units(context(), batch) == pytest.approx(found, rel=1e-6)
    flat = [[""] * len(student), list(range(len(student)))]
    for name, loss in (("ranking_bce", losses.BinaryCrossEntropyLoss(model)), ("ranking_mse", losses.MSELoss(model))):
        term = LOSSES[name](loss=name)
        own = term.function(context(), "")(ReferenceOps(), {}, {"logits": student}, {}, batch)
        assert own / term.units(context(), batch) == pytest.approx(loss(flat, torch.tensor(batch["labels"])).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"loss": "listnet"}, TermContext(1, ONE_NUMBER), "needs lists of candidates, but task.kind is not 'ranking'"),
        ({"loss": "listnet", "by": "teacher"}, context(teachers=False), "teacher: there is no teacher"),
        ({"loss": "listnet", "by": "teacher", "teacher": "x"}, context(), "'x' is not one of the teachers: teacher"),
        ({"loss": "listnet", "teacher": "teacher"}, context(), "is for by: teacher, got by: labels"),
        ({"loss": "listnet", "by": "scores"}, context(taught=False), "task.ranking.teacher_score names no column"),
        ({"loss": "ranknet"}, context(scored=False), "needs labels, but the training file does not say"),
        ({"loss": "ranknet", "temperature": 2}, context(), "is for a teacher's scores, but by is labels"),
        ({"loss": "ranking_margin_mse"}, context(scored=False), "needs labels, but the training file"),
        (
            {"loss": "ranking_bce"},
            context(target_range={"labels": (0.0, 3.0)}),
            "needs numbers from 0 to 1, but the labels of train go from 0 to 3",
        ),
        ({"loss": "lambdarank"}, context(target_range={"labels": (-1.0, 1.0)}), "labels of train go from -1 to 1"),
        ({"loss": "hard_label"}, context(), "the task is a ranking; use ranking_bce or ranking_mse"),
        ({"loss": "kd_mse"}, context(), "the task is a ranking; use ranking_mse with by: teacher"),
        ({"loss": "kd_ce"}, context(), "the task is a ranking; use ranknet or listnet with by: teacher"),
    ],
)
def test_what_does_not_fit_is_refused(options, where, message):
    ((_, problem),) = LOSSES[options["loss"]](**options).problems(where)
    assert re.search(message, problem), problem


def test_of_equal_scores_the_first_candidate_has_the_better_place():
    """As a student's first scores are, should its head start from zeros."""
    from crossdistil.core.losses.candidate_lists import _discounts
    from crossdistil.core.reference import ReferenceOps

    before = np.tril(np.ones((3, 3)), -1)
    found = _discounts(ReferenceOps(), np.zeros((1, 3)), np.ones((1, 3)), before)
    np.testing.assert_allclose(found, [[1, 1 / math.log2(3), 0.5]])
