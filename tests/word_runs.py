"""Distillations by every term over the vocabulary, of masked words and of next ones: their texts, recipes and runs, and the terms
from whole logits in NumPy float64."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from scipy.special import log_softmax, softmax

from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.engine import EngineOptions
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.outputs import DECODER_BIAS, DECODER_WEIGHT, WORDS, output_name
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny

WEIGHTS = (5.0, 2.0, 1.0, 0.25)


def write_texts(folder, rows, least, most):
    """`train.txt` of so many rows and `dev.txt`, each a text of `least` to below `most` words."""
    generator = np.random.default_rng(1)
    for name, count in (("train", rows), ("dev", 20)):
        texts = [" ".join(generator.choice(tiny.WORDS, generator.integers(least, most))) for _ in range(count)]
        (folder / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")


def word_recipe(method, kind, loss, length, folder, **train):
    """A distillation of one layer by every term over the vocabulary; `loss` is that of the words themselves."""
    settings = {"steps": 8, "batch_size": 8, "learning_rate": 1e-3, "length_buckets": [length], "log_every": 1, "dropout": 0.0}
    terms = ("word_kl", loss, "hidden_cosine", "word_mse")
    objective = [{"loss": term, "weight": weight} for term, weight in zip(terms, WEIGHTS)]
    objective[2]["layers"] = "final"
    return {
        "method": method,
        "task": {
            **{"name": "corpus", "kind": kind, "data": f"{folder}/train.txt", "max_length": length},
            "files": {"dev": "dev.txt"},
        },
        "teacher": {"model": f"{folder}/teacher"},
        "student": {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [1]}},
        "stages": [{"name": "distil", "objective": objective, "train": settings | train}],
        "seed": 3,
    }


def run(content, out, backend_name):
    """The result of a run of that recipe."""
    options = RunOptions(backend_name, EngineOptions("cpu"), out)
    return execute(parse_recipe(content, "recipe"), "recipe", options, Console(quiet=True))


def plain_losses(job, batch):
    """Every term from the logits of all places, which NumPy has room for here."""
    ops, made = ReferenceOps(), []
    for model in (job.student, job.teachers["teacher"]):
        last = output_name("hidden", model.config.num_hidden_layers)
        wanted = frozenset({WORDS, DECODER_WEIGHT, DECODER_BIAS, last})
        outputs = make_forward(model.config.without_dropout(), wanted)(ops, model.parameters, batch)
        made.append((outputs[WORDS] @ np.float64(outputs[DECODER_WEIGHT]).T + np.float64(outputs[DECODER_BIAS]), outputs[last]))
    (own, own_states), (taught, taught_states) = made
    real = (batch["attention_mask"] * batch["example_mask"][:, None]).reshape(-1) > 0
    masked = batch["masked_weights"] > 0
    rows, labels = batch["masked_rows"][masked], batch["masked_labels"][masked]
    targets = softmax(taught[real] / 2, axis=-1)
    divergence = (targets * (np.log(targets) - log_softmax(own[real] / 2, axis=-1))).sum(-1)
    s, t = (states.reshape(-1, states.shape[-1])[real] for states in (own_states, taught_states))
    cosine = (s * t).sum(-1) / np.linalg.norm(s, axis=-1) / np.linalg.norm(t, axis=-1)
    return np.array([
        4 * divergence.mean(), -log_softmax(own[rows], axis=-1)[np.arange(len(rows)), labels].mean(),
        (1 - cosine).mean(), ((own[real] - taught[real]) ** 2).sum(-1).mean(),
    ])  # fmt: skip
