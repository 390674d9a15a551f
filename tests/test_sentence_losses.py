"""Losses between sentence embeddings: against their formulas in NumPy float64 on every backend, and against the losses of
sentence-transformers that they are."""

from __future__ import annotations

import re

import numpy as np
import pytest

from crossdistil.core.kinds.known_kinds import ONE_CLASS, SENTENCE_EMBEDDINGS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.models.families.bert import BertConfig

WIDTH, TEACHER_WIDTH, EXAMPLES, REAL = 6, 4, 4, 3
"""The last example only fills the batch."""
LABEL = "stage.term"


def _config(width: int) -> BertConfig:
    return BertConfig(hidden_size=width, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1)


def context(members: int = 1, teacher: int = WIDTH, scored: bool = False, taught: bool = False) -> TermContext:
    configs = {"teacher": _config(teacher)}
    return TermContext(None, SENTENCE_EMBEDDINGS, _config(WIDTH), configs, members=members, scored=scored, taught=taught)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def divergence(theirs, own):
    return (softmax(theirs) * (np.log(softmax(theirs)) - np.log(softmax(own)))).sum(axis=1).mean()


def without_diagonal(x):
    return x[~np.eye(len(x), dtype=bool)].reshape(len(x), -1)


def over_widths(widths, weights, formula):
    def value(s, t, y, params):
        parts = [(unit(s[..., :width]), unit(t[..., :width]), y, params) for width in widths]
        return sum(weight * formula(*part) for weight, part in zip(weights, parts))

    return value


def mse(s, t, y, params):
    return ((s - t) ** 2).mean()


def alike(s, t, y, params):
    return (((unit(s[0]) * unit(s[1])).sum(axis=1) - y) ** 2).mean()


def contrastive(s, t, y, params):
    scores = 20 * unit(s[0]) @ np.concatenate([unit(each) for each in s[1:]]).T
    return -np.log(softmax(scores)[np.arange(len(s[0])), np.arange(len(s[0]))]).mean()


def margins(measure):
    def of(x):
        return (measure(x[0]) * measure(x[1])).sum(axis=1) - (measure(x[0]) * measure(x[2])).sum(axis=1)

    return lambda s, t, y, params: ((of(s) - of(t)) ** 2).mean()


SCORES = np.random.default_rng(1).normal(0, 2, (3, EXAMPLES))
"""What another model scored the texts of triplets with, the first ones among them, which do not count."""


def margins_of_file(s, t, y, params):
    wanted = (SCORES[1] - SCORES[2])[:REAL]
    return (((s[0] * s[1]).sum(axis=1) - (s[0] * s[2]).sum(axis=1) - wanted) ** 2).mean()


def projected(s, t, y, params):
    own = np.tanh(s @ params[f"projection.{LABEL}.weight"].T + params[f"projection.{LABEL}.bias"])
    return ((own - t) ** 2).mean()


def own_candidates(s, t, y, params):
    def scores(x):
        return np.stack([(x[0] * x[1]).sum(axis=1), (x[0] * x[2]).sum(axis=1)], axis=1) / 2

    return 4 * divergence(scores(t), scores(s))


CASES = {
    "sentence_mse": ({"loss": "sentence_mse"}, context(), mse),
    "sentence_mse of pairs": ({"loss": "sentence_mse"}, context(2), mse),
    "sentence_mse, projection": (
        {"loss": "sentence_mse", "projection": {"kind": "tanh"}}, context(teacher=TEACHER_WIDTH), projected,
    ),
    "sentence_cosine": (
        {"loss": "sentence_cosine"}, context(), lambda s, t, y, params: (1 - (unit(s) * unit(t)).sum(axis=-1)).mean(),
    ),
    "widths": (
        {"loss": "sentence_mse", "widths": [6, 2], "width_weights": [1, 0.5]}, context(), over_widths((6, 2), (1, 0.5), mse),
    ),
    "similarity_mse": ({"loss": "similarity_mse"}, context(2, scored=True), alike),
    "similarity_mse, widths": (
        {"loss": "similarity_mse", "widths": [4, 3]}, context(2, scored=True), over_widths((4, 3), (1, 1), alike),
    ),
    "margin_mse": ({"loss": "margin_mse"}, context(3, TEACHER_WIDTH), margins(lambda x: x)),
    "margin_mse, scores": ({"loss": "margin_mse", "by": "scores"}, context(3, taught=True), margins_of_file),
    "margin_mse, cosine": ({"loss": "margin_mse", "similarity": "cosine"}, context(3, TEACHER_WIDTH), margins(unit)),
    "similarity_kl of texts": (
        {"loss": "similarity_kl", "temperature": 0.5},
        context(1, TEACHER_WIDTH),
        lambda s, t, y, params: 0.25
        * divergence(*(without_diagonal(unit(x[0]) @ unit(x[0]).T) / 0.5 for x in (t, s))),
    ),
    "similarity_kl of pairs": (
        {"loss": "similarity_kl", "temperature": 3, "similarity": "dot"},
        context(2, TEACHER_WIDTH),
        lambda s, t, y, params: 9 * divergence(*(x[0] @ x[1].T / 3 for x in (t, s))),
    ),
    "similarity_kl, own": (
        {"loss": "similarity_kl", "candidates": "own", "similarity": "dot", "temperature": 2}, context(3), own_candidates,
    ),
    "contrastive": ({"loss": "contrastive"}, context(2), contrastive),
    "contrastive of triplets": ({"loss": "contrastive"}, context(3), contrastive),
}  # fmt: skip


def inputs(name):
    """(student, teacher, projections, batch) of a case; what fills the batch would be noticed."""
    options, where, _ = CASES[name]
    drawn, rows = np.random.default_rng(len(name)), where.members * EXAMPLES
    student, teacher = (drawn.normal(0, 1, (rows, config.hidden_size)) for config in (where.student, where.teachers["teacher"]))
    real = np.tile(np.arange(EXAMPLES) < REAL, where.members)
    student[~real] += 30
    teacher[~real] -= 30
    projections = LOSSES[options["loss"]](**options).projections(where, LABEL)
    params = {key: drawn.normal(0, 0.5, tensor.shape) for key, tensor in projections.items()}
    labels = np.tile(drawn.uniform(0, 1, EXAMPLES), where.members)
    batch = {"example_mask": real.astype(float), "labels": labels}
    return student, teacher, params, batch | ({"teacher_scores": SCORES.reshape(-1)} if where.taught else {})


def expected(name, student, teacher, params, batch):
    members = CASES[name][1].members
    parts = [x.reshape(members, EXAMPLES, -1)[:, :REAL] for x in (student, teacher)]
    return CASES[name][2](*parts, batch["labels"][:REAL], params)


@pytest.mark.backend
def test_values_and_gradients_are_those_of_the_formulas(engine):
    terms = {name: LOSSES[options["loss"]](**options) for name, (options, _, _) in CASES.items()}
    given, names, functions, units = {name: inputs(name) for name in CASES}, list(CASES), [], []
    for name, term in terms.items():
        assert term.problems(CASES[name][1]) == []
        functions.append(term.function(CASES[name][1], LABEL))
        units.append(term.units(CASES[name][1], given[name][3]))
    own_keys = [f"{index}/embedding" for index in range(len(names))]
    param_keys = [[(key, f"{index}/{key}") for key in given[name][2]] for index, name in enumerate(names)]
    batch_keys = [[(key, f"{index}/{key}") for key in given[name][3]] for index, name in enumerate(names)]
    parameters, frozen, batch = {}, {}, {}
    for index, name in enumerate(names):
        student, teacher, params, arrays = given[name]
        parameters |= {own_keys[index]: student, **{long: params[short] for short, long in param_keys[index]}}
        frozen[own_keys[index]] = teacher
        batch |= {f"{index}/{key}": array for key, array in arrays.items()}
    parameters, frozen, batch = ({k: v.astype(np.float32) for k, v in part.items()} for part in (parameters, frozen, batch))

    def objective(ops, params, taught, arrays):
        total, values = 0.0, []
        for index in range(len(functions)):
            projections = {}
            for short, long in param_keys[index]:
                projections[short] = params[long]
            own = {}
            for short, long in batch_keys[index]:
                own[short] = arrays[long]
            vectors, targets = {"embedding": params[own_keys[index]]}, {"teacher/embedding": taught[own_keys[index]]}
            value = functions[index](ops, projections, vectors, targets, own) / units[index]
            total = total + value
            values.append(value)
        return total, ops.stack(values)

    values, gradients = engine.gradients(objective, parameters, frozen, batch)
    for index, name in enumerate(names):
        student, teacher, params, arrays = given[name]
        assert values[index] == pytest.approx(expected(name, student, teacher, params, arrays), rel=1e-5), name
        moved = [(own_keys[index], student), *((long, params[short]) for short, long in param_keys[index])]
        for key, array in moved:
            slopes = np.zeros_like(array)
            for place in np.ndindex(array.shape):
                ends, kept = [], array[place]
                for step in (1e-5, -1e-5):
                    array[place] = kept + step
                    ends.append(expected(name, student, teacher, params, arrays))
                array[place] = kept
                slopes[place] = (ends[0] - ends[1]) / 2e-5
            assert np.abs(gradients[key] - slopes).max() <= 1e-4 * np.abs(slopes).max(), (name, key)


@pytest.mark.only_backend("torch")
def test_they_are_those_of_sentence_transformers():
    """Each value and gradient, of its own loss objects on the same vectors."""
    import torch
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.losses.matryoshka import shrink

    from crossdistil.core.reference import ReferenceOps

    def scores(teacher):
        return torch.stack([(teacher[0] * each).sum(dim=1) for each in teacher[1:]], dim=1)

    theirs = {
        "sentence_mse": lambda s, t, y: losses.MSELoss(None).compute_loss_from_embeddings(s, t),
        "sentence_mse of pairs": lambda s, t, y: losses.MSELoss(None).compute_loss_from_embeddings(s, t),
        "sentence_cosine": lambda s, t, y: losses.EmbedDistillLoss(None, "cosine").compute_loss_from_embeddings(s, t),
        "similarity_mse": lambda s, t, y: losses.CosineSimilarityLoss(None).compute_loss_from_embeddings(s, y),
        "similarity_mse, widths": lambda s, t, y: sum(
            losses.CosineSimilarityLoss(None).compute_loss_from_embeddings([shrink(each, width) for each in s], y)
            for width in (4, 3)
        ),
        "margin_mse": lambda s, t, y: losses.MarginMSELoss(None).compute_loss_from_embeddings(s, scores(t)),
        "margin_mse, scores": lambda s, t, y: losses.MarginMSELoss(None).compute_loss_from_embeddings(
            s, torch.tensor(SCORES[1:, :REAL].T)
        ),
        "similarity_kl, own": lambda s, t, y: losses.DistillKLDivLoss(None, temperature=2).compute_loss_from_embeddings(
            s, scores(t)
        ),
        "contrastive": lambda s, t, y: losses.MultipleNegativesRankingLoss(None).compute_loss_from_embeddings(s, y),
        "contrastive of triplets": lambda s, t, y: losses.MultipleNegativesRankingLoss(None).compute_loss_from_embeddings(s, y),
    }
    for name, loss in theirs.items():
        student, teacher, _, batch = inputs(name)
        options, where, _ = CASES[name]
        parts = [
            [torch.tensor(each[:REAL]) for each in x.reshape(where.members, EXAMPLES, -1)] for x in (student, teacher)
        ]
        found = loss(*parts, torch.tensor(batch["labels"][:REAL]))
        term = LOSSES[options["loss"]](**options)
        own = term.function(where, LABEL)(ReferenceOps(), {}, {"embedding": student}, {"teacher/embedding": teacher}, batch)
        assert own / term.units(where, batch) == pytest.approx(found.item(), rel=1e-6), name


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"loss": "sentence_mse"}, TermContext(2, ONE_CLASS), "needs sentence embeddings, but task.kind is not 'embeddings'"),
        ({"loss": "sentence_mse"}, context(teacher=4), "widths differ .student 6, teacher 4., for example {kind: linear}"),
        ({"loss": "sentence_mse", "widths": [7]}, context(), "got 7, but the student's vectors have 6"),
        ({"loss": "sentence_mse", "teacher": "x"}, context(), "'x' is not one of the teachers: teacher"),
        ({"loss": "similarity_mse"}, context(2), "needs pairs with scores"),
        (
            {"loss": "contrastive"},
            context(2, scored=True),
            "contrastive takes all pairs as alike, but task.embeddings.examples gives pairs with scores",
        ),
        ({"loss": "contrastive"}, context(), "needs pairs or triplets, but task.embeddings.examples gives texts"),
        ({"loss": "margin_mse", "by": "scores"}, context(3), "task.embeddings.teacher_scores names no column"),
        ({"loss": "margin_mse"}, context(2), "needs triplets, but task.embeddings.examples gives pairs"),
        ({"loss": "similarity_kl", "candidates": "own"}, context(2), "own needs triplets"),
        ({"loss": "kd_mse"}, context(), "needs logits, but the task is one of sentence embeddings"),
        ({"loss": "hard_label"}, context(), "needs labels, but the task is one of sentence embeddings"),
    ],
)
def test_what_does_not_fit_is_refused(options, where, message):
    [(_, found)] = LOSSES[options["loss"]](**options).problems(where)
    assert re.search(message, found)
