"""Each loss on hidden states against its formula, written here once more in NumPy float64, and its gradient by the student's
outputs and the projections against finite differences. `official` cases are the published codes' formulas (TinyBERT's and
PKD's), padding and all."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.tests.loss_cases import LENGTHS, REAL, Case, against, check, over, real_tokens, results

LENGTH = max(LENGTHS)


def hidden_mse(s, t, batch):
    return np.mean([np.mean((s[token] - t[token]) ** 2) for token in real_tokens(batch)])


def official_hidden_mse(s, t, batch):
    return np.mean((s[:REAL] - t[:REAL]) ** 2)  # MSELoss over the padded batch


def cosine(s, t, batch):
    return np.mean([1 - s[i] @ t[i] / np.linalg.norm(s[i]) / np.linalg.norm(t[i]) for i in real_tokens(batch)])


def unit(x):
    return x / np.linalg.norm(x)


def pkd(s, t, batch):
    return np.mean([np.sum((unit(s[row, 0]) - unit(t[row])) ** 2) for row in range(REAL)])


def official_pkd(s, t, batch):
    return np.mean([np.mean((unit(s[row, 0]) - unit(t[row])) ** 2) for row in range(REAL)])


def official_raw_pkd(s, t, batch):
    return np.mean((s[:REAL, 0] - t[:REAL]) ** 2)


def similarities(first, second, row, tokens, size):
    return np.array([[first[row, i] @ second[row, j] / size for j in range(tokens)] for i in range(tokens)])


def mmd(by_length=False):
    def formula(*arrays):
        s0, s1, t0, t1 = arrays[:4] if len(arrays) == 5 else [arrays[0], arrays[0], arrays[1], arrays[1]]
        differences = []
        for row in range(REAL):
            own = similarities(s0, s1, row, LENGTHS[row], LENGTH if by_length else s0.shape[2])
            taught = similarities(t0, t1, row, LENGTHS[row], LENGTH if by_length else t0.shape[2])
            differences += list((own - taught).ravel())
        return np.mean(np.square(differences))

    return formula


def fsp(*arrays):
    s0, s1, t0, t1 = arrays[:4] if len(arrays) == 5 else [arrays[0], arrays[0], arrays[1], arrays[1]]
    values = []
    for row in range(REAL):
        n = LENGTHS[row]
        own = sum(np.outer(s0[row, i], s1[row, i]) for i in range(n)) / n
        taught = sum(np.outer(t0[row, i], t1[row, i]) for i in range(n)) / n
        values.append(np.mean((own - taught) ** 2))
    return np.mean(values)


UNIFORM, LINEAR = ((2, 1), (4, 2)), {"kind": "linear"}
OWN, SHARED = "projection.stage.term.{}", "projection.fit_dense"
RELU, TANH, PLAIN = (lambda x: np.maximum(x, 0)), np.tanh, (lambda x: x)


def hidden(formula, teacher="wide", edit=None, **options):
    return Case(options, against(teacher), formula, edit or Case.edit)


CASES = {
    "hidden_mse": hidden(over(((3, 1), (4, 2)), hidden_mse, "same"), "same", loss="hidden_mse", layers=[[3, 1], [4, 2]]),
    "hidden_mse, own projections": hidden(
        over(((0, 0), *UNIFORM), hidden_mse, project=(OWN, PLAIN)), loss="hidden_mse", embeddings=True, projection=LINEAR
    ),
    "hidden_mse, shared relu": hidden(
        over(UNIFORM, hidden_mse, project=(SHARED, RELU)),
        loss="hidden_mse",
        projection={"kind": "relu", "name": "fit_dense"},
    ),
    "hidden_mse, tanh, mean": hidden(
        over(UNIFORM, hidden_mse, project=(OWN, TANH), mean=True),
        loss="hidden_mse",
        projection={"kind": "tanh"},
        layer_reduction="mean",
    ),
    "hidden_mse, official": hidden(
        over(((0, 0), *UNIFORM), official_hidden_mse, project=(SHARED, PLAIN)),
        loss="hidden_mse",
        embeddings=True,
        mask_padding=False,
        projection={"name": "fit_dense"},
    ),
    "hidden_mse, a projection of a layer": hidden(
        over(((4, 2),), hidden_mse, project=("projection.fit_denses.2", PLAIN)),
        loss="hidden_mse",
        layers=[[4, 2]],
        projection={"name": "fit_denses", "per_layer": True},
    ),
    "hidden_mse, second teacher": Case(
        {"loss": "hidden_mse", "teacher": "same"}, against("wide", "same"), over(UNIFORM, hidden_mse, "same")
    ),
    "embedding_mse": hidden(over(((0, 0),), hidden_mse, project=(OWN, PLAIN)), loss="embedding_mse", projection=LINEAR),
    "hidden_cosine": hidden(over(UNIFORM, cosine, "same"), "same", loss="hidden_cosine"),
    "hidden_cosine, projected": hidden(
        over(((4, 2),), cosine, project=(OWN, PLAIN)), loss="hidden_cosine", layers=[[4, 2]], projection=LINEAR
    ),
    "pkd": hidden(over(((2, 1),), pkd, "same", taught="first"), "same", loss="pkd"),
    "pkd, three layers": hidden(
        over(((0, 0), *UNIFORM), pkd, project=(OWN, PLAIN), taught="first"),
        loss="pkd",
        layers=[[0, 0], [2, 1], [4, 2]],
        projection=LINEAR,
    ),
    "pkd, official": hidden(
        over(UNIFORM, official_pkd, "same", mean=True, taught="first"), "same", loss="pkd", layers="uniform", reduction="mean"
    ),
    "pkd, official, not normalised": hidden(
        over(UNIFORM, official_raw_pkd, "same", mean=True, taught="first"),
        "same",
        loss="pkd",
        layers="uniform",
        reduction="mean",
        normalize=False,
    ),
    "mmd": hidden(over(((0, 0), *UNIFORM), mmd()), loss="mmd", embeddings=True),
    "mmd, two layers": hidden(over((((1, 3), (0, 1)), (4, 2)), mmd()), loss="mmd", layers=[[[1, 3], [0, 1]], [4, 2]]),
    "mmd, by length": hidden(over(UNIFORM, mmd(True)), loss="mmd", divide_by="length"),
    "fsp": hidden(over(UNIFORM, fsp, "same"), "same", loss="fsp"),
    "fsp, two layers": hidden(
        over((((1, 3), (0, 1)),), fsp, project=(OWN, PLAIN)), loss="fsp", layers=[[[1, 3], [0, 1]]], projection=LINEAR
    ),
}


@pytest.fixture(scope="module")
def found(engine):
    return results(engine, CASES)


@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(found, name):
    check(CASES[name], found[name])


def test_states_that_are_zero_give_finite_gradients(engine):
    def nothing(student, teacher, batch):
        for state in student.values():
            state[0] = 0
            state[REAL:] = 0

    cases = {name: hidden(None, "same", nothing, loss=name, layers=[[4, 2]]) for name in ("hidden_cosine", "pkd", "mmd", "fsp")}
    for name, (value, gradients) in results(engine, cases).items():
        assert np.isfinite(value), name
        assert all(np.isfinite(gradient).all() for gradient in gradients.values()), name
