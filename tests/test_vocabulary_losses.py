"""The losses over a vocabulary against their formulas in NumPy float64, and their gradients, written out here: in one chunk
of rows, in several, with logits of any size, and where the weight is also used elsewhere or not trained."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.special import logsumexp, rel_entr, softmax

from crossdistil.core.engine import Step
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests.one_graph import Job, gradients_of, values_of

VALUE, GRADIENT = 1e-6, 1e-5
"""Largest difference as a share of the value (of 1, if that is more), and of the largest entry of a gradient."""
SCALE = 0.25
"""What the objectives multiply a loss with, and so its gradient."""
STUDENT = ("states", "weight", "bias")


# Named functions, because a graph compiler reads their source.
def cross_entropy(ops, p, batch):
    return ops.word_cross_entropy(p["states"], p["weight"], p["bias"], batch["labels"], batch["row_weights"])


def divergence(ops, p, batch):
    teacher_weight, teacher_bias = p["teacher_weight"], p["teacher_bias"]
    row_weights = batch["row_weights"]
    return ops.word_divergence(
        p["states"], p["weight"], p["bias"], p["teacher_states"], teacher_weight, teacher_bias, row_weights, 1.0
    )


def warm_divergence(ops, p, batch):
    teacher_weight, teacher_bias = p["teacher_weight"], p["teacher_bias"]
    row_weights = batch["row_weights"]
    return ops.word_divergence(
        p["states"], p["weight"], p["bias"], p["teacher_states"], teacher_weight, teacher_bias, row_weights, 2.0
    )


def squared_error(ops, p, batch):
    teacher_weight, teacher_bias = p["teacher_weight"], p["teacher_bias"]
    row_weights = batch["row_weights"]
    return ops.word_squared_error(
        p["states"], p["weight"], p["bias"], p["teacher_states"], teacher_weight, teacher_bias, row_weights
    )


LOSSES = {
    "cross entropy": cross_entropy,
    "divergence": divergence,
    "divergence, temperature 2": warm_divergence,
    "squared error": squared_error,
}


@dataclass
class Inputs:
    """What a loss is computed from. A tenth of the rows is padding; the teacher's width is another than the student's."""

    rows: int = 37
    words: int = 523
    seed: int = 0
    size: float = 1.0
    """The standard deviation of the logits, about."""
    same: bool = False
    """The teacher is the student."""

    def __post_init__(self):
        generator = np.random.default_rng([self.seed, self.rows])

        def normal(*shape, scale=1.0):
            return (generator.normal(size=shape) * scale).astype(np.float32)

        p = {"states": normal(self.rows, 24), "weight": normal(self.words, 24, scale=self.size / 5)}
        p["bias"] = normal(self.words, scale=self.size)
        p["teacher_states"] = normal(self.rows, 16)
        p["teacher_weight"] = normal(self.words, 16, scale=self.size / 4)
        p["teacher_bias"] = normal(self.words, scale=self.size)
        if self.same:
            p |= {f"teacher_{name}": p[name] for name in STUDENT}
        self.parameters = p
        row_weights = generator.choice(np.array([1.0, 0.5, 3.0], np.float32), self.rows)
        row_weights[generator.permutation(self.rows)[: self.rows // 10]] = 0.0
        self.batch = {
            "labels": generator.integers(0, self.words, self.rows).astype(np.int32),
            "row_weights": row_weights,
        }


# A chunk of 60,000 words has less than 140 rows: 290 are three chunks, of which the last is small.
CASES = {
    "one chunk": Inputs(),
    "one chunk, others": Inputs(seed=1),
    "one row": Inputs(rows=1),
    "more than 64 rows": Inputs(rows=100, seed=2),
    "large logits": Inputs(size=30.0, seed=3),
    "several chunks": Inputs(rows=290, words=60_000),
}


def expected(loss: str, p, batch):
    """The value and the gradients by the student's tensors."""
    p = {name: array.astype(np.float64) for name, array in p.items()}
    weights = batch["row_weights"].astype(np.float64)[:, None]
    own = p["states"] @ p["weight"].T + p["bias"]
    target = p["teacher_states"] @ p["teacher_weight"].T + p["teacher_bias"]
    rows = np.arange(len(own))
    if loss == "cross entropy":
        value = np.sum(weights[:, 0] * (logsumexp(own, axis=1) - own[rows, batch["labels"]]))
        by_logits = softmax(own, axis=1)
        by_logits[rows, batch["labels"]] -= 1.0
    elif loss == "squared error":
        value = np.sum(weights * np.square(own - target))
        by_logits = 2.0 * (own - target)
    else:
        temperature = 2.0 if "2" in loss else 1.0
        own, target = softmax(own / temperature, axis=1), softmax(target / temperature, axis=1)
        value = np.sum(weights * rel_entr(target, own))
        by_logits = (own - target) / temperature
    by_logits *= weights
    return value, {"states": by_logits @ p["weight"], "weight": by_logits.T @ p["states"], "bias": by_logits.sum(0)}


def scaled(function):
    def total(ops, parameters, batch):
        return function(ops, parameters, batch) * SCALE

    return total


def assert_close(found, wanted, what):
    difference = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert difference <= GRADIENT, f"the gradient with respect to {what} differs by {difference:.1e}"


def test_the_formulas_are_the_references_and_the_gradients_its_slopes():
    inputs = Inputs()
    exact = {name: array.astype(np.float64) for name, array in inputs.parameters.items()}
    for loss, function in LOSSES.items():
        value, gradients = expected(loss, inputs.parameters, inputs.batch)
        assert function(ReferenceOps(), exact, inputs.batch) == pytest.approx(value, rel=1e-12)
        for name in STUDENT:
            direction = np.random.default_rng(5).normal(size=exact[name].shape)
            ends = [
                function(ReferenceOps(), {**exact, name: exact[name] + step * direction}, inputs.batch) for step in (1e-5, -1e-5)
            ]
            assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(np.sum(gradients[name] * direction), rel=1e-7)


@pytest.fixture(scope="module")
def computed(engine):
    """`computed(case)`: of each loss, its value and gradients."""

    @functools.cache
    def compute(case):
        jobs = [Job(scaled(function), CASES[case].parameters, CASES[case].batch) for function in LOSSES.values()]
        return dict(zip(LOSSES, gradients_of(engine, jobs), strict=True))

    return compute


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loss", LOSSES)
def test_value_and_gradient(computed, loss, case):
    inputs = CASES[case]
    wanted, gradients = expected(loss, inputs.parameters, inputs.batch)
    value, found = computed(case)[loss]
    assert value.dtype == np.float32
    assert value == pytest.approx(wanted * SCALE, rel=VALUE, abs=VALUE)
    for name, array in found.items():
        if name in STUDENT:
            assert_close(array, gradients[name] * SCALE, name)
        else:
            assert not array.any(), f"a gradient with respect to {name}"
    padding = inputs.batch["row_weights"] == 0
    assert not found["states"][padding].any()


def stacked(function):
    def values(ops, parameters, batch):
        return ops.stack([function(ops, parameters, batch)])

    return values


@pytest.mark.parametrize("case", ["one chunk", "several chunks"])
def test_without_a_gradient(engine, case):
    inputs = CASES[case]
    jobs = [Job(stacked(function), inputs.parameters, inputs.batch) for function in LOSSES.values()]
    for loss, found in zip(LOSSES, values_of(engine, jobs), strict=True):
        wanted = expected(loss, inputs.parameters, inputs.batch)[0]
        assert found[0] == pytest.approx(wanted, rel=VALUE, abs=VALUE), loss


def test_a_student_that_is_its_teacher_has_no_loss(engine):
    cases = [(Inputs(size=size, same=True), loss) for size in (1.0, 30.0) for loss in LOSSES if loss != "cross entropy"]
    jobs = [Job(scaled(LOSSES[loss]), inputs.parameters, inputs.batch) for inputs, loss in cases]
    for (inputs, loss), (value, found) in zip(cases, gradients_of(engine, jobs), strict=True):
        assert abs(value) <= 1e-5 * inputs.rows, loss
        for name in STUDENT:
            assert np.abs(found[name]).max() <= 1e-5 * max(inputs.size, 1.0), (loss, name)


def tied(ops, parameters, frozen, batch):
    states = ops.embedding(parameters["weight"], batch["labels"]) * batch["factors"]
    own = {"states": states, "weight": parameters["weight"], "bias": parameters["bias"]}
    total = cross_entropy(ops, own, batch) + ops.sum(ops.embedding(parameters["weight"], batch["labels"]) * batch["others"])
    return total, ops.stack([total])


def test_the_gradients_of_a_weight_that_is_also_the_embeddings_add_up(engine):
    inputs = Inputs()
    parameters = {name: inputs.parameters[name] for name in ("weight", "bias")}
    factors, others = (np.random.default_rng(seed).normal(size=(37, 24)).astype(np.float32) for seed in (1, 2))
    labels = inputs.batch["labels"]
    states = parameters["weight"][labels].astype(np.float64) * factors
    value, gradients = expected("cross entropy", {**inputs.parameters, "states": states}, inputs.batch)
    value += np.sum(parameters["weight"][labels].astype(np.float64) * others)
    np.add.at(gradients["weight"], labels, gradients["states"] * factors + others)
    batch = {**inputs.batch, "factors": factors, "others": others}
    values, found = engine.gradients(tied, parameters, {}, batch)
    assert values[0] == pytest.approx(value, rel=VALUE, abs=VALUE)
    for name in parameters:
        assert_close(found[name], gradients[name], name)


TENSORS = (*STUDENT, *(f"teacher_{name}" for name in STUDENT))


def together(parameters, frozen, trained):
    """Both as one, in what a graph compiler can read."""
    tensors = {}
    for name in TENSORS:
        if name in trained:
            tensors[name] = parameters[name]
        else:
            tensors[name] = frozen[name]
    return tensors


def test_only_what_is_trained_takes_a_gradient(engine):
    inputs, cases, jobs = CASES["one chunk"], [], []
    for loss in ("cross entropy", "divergence, temperature 2"):
        for trained in (("states",), ("weight",), ("bias",), ("states", "bias")):
            parameters = {name: inputs.parameters[name] for name in trained}
            frozen = {name: array for name, array in inputs.parameters.items() if name not in trained}
            cases.append((loss, trained))
            jobs.append(Job(scaled(LOSSES[loss]), parameters, inputs.batch, frozen))
    for (loss, trained), (value, found) in zip(cases, gradients_of(engine, jobs), strict=True):
        wanted, gradients = expected(loss, inputs.parameters, inputs.batch)
        assert value == pytest.approx(wanted * SCALE, rel=VALUE, abs=VALUE), loss
        assert set(found) == set(trained)
        for name in trained:
            assert_close(found[name], gradients[name] * SCALE, f"{name} of {loss}")


def losses_of_steps(engine, inputs):
    """The values of three optimizer steps on all losses together."""
    parameters = {name: inputs.parameters[name] for name in STUDENT}
    frozen = {name: array for name, array in inputs.parameters.items() if name not in STUDENT}
    step = engine.train_step(all_losses, parameters, frozen, OptimizerSpec("adamw", weight_decay=0.0))
    batch = {**inputs.batch, "denominators": np.ones(1, np.float32)}
    return step.run(iter([Step([batch], 1e-2, 0) for _ in range(3)]), 3).fetch()


def all_losses(ops, parameters, frozen, batch):
    tensors = together(parameters, frozen, STUDENT)
    values = [cross_entropy(ops, tensors, batch), warm_divergence(ops, tensors, batch), squared_error(ops, tensors, batch)]
    total = values[0] + values[1] + values[2]
    return total, ops.stack([total] + values)


@pytest.mark.only_backend("torch")
def test_a_compiled_step_is_the_eager_step(make_engine):
    inputs = CASES["several chunks"]
    found = losses_of_steps(make_engine(compile=True), inputs)
    np.testing.assert_allclose(found, losses_of_steps(make_engine(), inputs), rtol=1e-5)
    assert (np.diff(found[:, 0]) < 0).all()


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_near(make_engine, loss):
    inputs = CASES["more than 64 rows"]
    value, gradients = expected(loss, inputs.parameters, inputs.batch)
    job = Job(scaled(LOSSES[loss]), inputs.parameters, inputs.batch)
    [(found_value, found)] = gradients_of(make_engine(precision="bf16"), [job])
    assert found_value == pytest.approx(value * SCALE, rel=1e-2)
    for name in STUDENT:
        difference = np.linalg.norm(found[name] - gradients[name] * SCALE) / np.linalg.norm(gradients[name] * SCALE)
        assert difference < 2e-2, f"the gradient with respect to {name} differs by {difference:.1e}"
