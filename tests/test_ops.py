"""Every primitive of every backend: its values and gradients are the float64 reference's."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.engine import Step
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests.one_graph import Job, gradients_of, values_of
from crossdistil.tests.op_cases import CASES, GRADIENT, Case, normal
from crossdistil.tests.reference_values import assert_close, reference

every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(scope="module")
def values(engine):
    """Name of a case -> its value."""
    jobs = [Job(case.function, case.parameters, case.batch) for case in CASES.values()]
    return dict(zip(CASES, values_of(engine, jobs), strict=True))


def weights_of(case: Case) -> np.ndarray:
    """What the entries of a case's value are multiplied with, for a gradient of their sum."""
    return np.random.default_rng(2).normal(size=reference(case.function, case.parameters, case.batch).shape).astype(np.float32)


def weighted(function):
    def total(ops, parameters, batch):
        return ops.sum(function(ops, parameters, batch) * batch["weights"])

    return total


@pytest.fixture(scope="module")
def gradients(engine):
    """Name of a case -> the gradients with respect to its parameters."""
    jobs = [
        Job(weighted(case.function), case.parameters, {**case.batch, "weights": weights_of(case)}) for case in CASES.values()
    ]
    return {name: found for name, (_, found) in zip(CASES, gradients_of(engine, jobs), strict=True)}


@every_case
def test_values(name, values):
    case, found = CASES[name], values[name]
    assert found.dtype == np.float32
    assert_close(found, reference(case.function, case.parameters, case.batch), case.forward, "the value")


@every_case
def test_gradients(name, gradients):
    case, found = CASES[name], gradients[name]
    weights = weights_of(case)
    for name, array in case.parameters.items():
        expected = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            step = 1e-5 * max(1e-2, abs(float(array[place])))
            ends = []
            for sign in (1, -1):
                moved = array.astype(np.float64)
                moved[place] += sign * step
                changed = {**{k: v.astype(np.float64) for k, v in case.parameters.items()}, name: moved}
                ends.append(float((case.function(ReferenceOps(), changed, case.batch) * weights).sum()))
            expected[place] = (ends[0] - ends[1]) / (2 * step)
        assert_close(found[name], expected, GRADIENT, f"the gradient by {name}")


def stopped(ops, parameters, frozen, batch):
    total = ops.sum(parameters["x"] * ops.stop_gradient(parameters["x"] * parameters["y"]))
    return total, ops.stack([total])


def test_stop_gradient_makes_a_constant(engine):
    parameters = {"x": normal(3), "y": normal(3)}
    values, gradients = engine.gradients(stopped, parameters, {}, {"unused": np.zeros(1, np.float32)})
    product = parameters["x"] * parameters["y"]
    assert values[0] == pytest.approx(float(product @ parameters["x"]), rel=1e-6)
    np.testing.assert_allclose(gradients["x"], product, rtol=1e-6)
    assert not gradients["y"].any()


def extremes(ops, parameters, batch):
    bias = ops.reshape((1.0 - batch["mask"]) * -10000.0, (2, 1, 1, 4))
    x = parameters["x"]
    constant_row = ops.layer_norm(x * 0.0 + 2.0, x[0, 0, 0] * 0.0 + 1.0, x[0, 0, 0] * 0.0 + 3.0, 1e-12)
    large = ops.reshape(x, (-1, 4)) * 1e4
    return [ops.attention(x, x, x, bias, 0.0), constant_row, ops.log_softmax(large), ops.softmax(large), ops.tanh(large)]


def test_extreme_inputs_give_finite_values(engine):
    # The second row of the batch has no token at all, the constant rows have no variance.
    batch = {"mask": np.array([[1, 1, 0, 0], [0, 0, 0, 0]], np.float32)}
    attended, constant_row, *others = engine.infer(extremes, {"x": normal(2, 2, 4, 4)})(batch)
    assert np.isfinite(attended).all()
    np.testing.assert_array_equal(constant_row, np.full((2, 2, 4, 4), 3.0))
    assert all(np.isfinite(values).all() for values in others)


RATE = 0.25


def dropped(ops, parameters, frozen, batch):
    kept = ops.dropout(parameters["x"], RATE)
    again = ops.dropout(parameters["y"], RATE)
    total = ops.sum(kept * batch["weights"]) + ops.sum(again)
    return total, ops.stack([total, ops.sum(kept * batch["weights"])])


def test_dropout_keeps_the_expectation_and_the_gradient_has_the_same_mask(engine):
    size = 20_000
    parameters = {"x": np.ones((100, 200), np.float32), "y": np.ones((100, 200), np.float32)}
    weights = np.random.default_rng(3).normal(size=(100, 200)).astype(np.float32)
    values, gradients = engine.gradients(dropped, parameters, {}, {"weights": weights})
    masks = {"x": gradients["x"] / weights, "y": gradients["y"]}
    for mask in masks.values():
        kept = mask > 0.5
        np.testing.assert_allclose(mask[kept], 1 / (1 - RATE), rtol=1e-4)
        assert not mask[~kept].any()
        # Binomial: five standard deviations.
        assert abs(kept.mean() - (1 - RATE)) < 5 * np.sqrt(RATE * (1 - RATE) / size)
    assert values[1] == pytest.approx(float((masks["x"].astype(np.float64) * weights).sum()), rel=1e-3, abs=1e-2)
    different = (masks["x"] > 0.5) != (masks["y"] > 0.5)
    # Two independent masks differ in a share of 2 rate (1 - rate).
    assert abs(different.mean() - 2 * RATE * (1 - RATE)) < 0.02


def probed(ops, parameters, frozen, batch):
    x = ops.dropout(parameters["x"], 0.5)
    attended = ops.attention(parameters["heads"], parameters["heads"], parameters["heads"], batch["bias"], 0.5)
    total = ops.sum(x * batch["weights"])
    return total, ops.stack([total, total, ops.sum(attended)])


def test_the_seed_of_a_step_decides_its_dropout(engine):
    parameters = {"x": normal(20, 20), "heads": normal(1, 2, 5, 4)}
    batch = {"weights": normal(20, 20), "bias": np.zeros((1, 1, 1, 5), np.float32), "denominators": np.ones(2, np.float32)}
    step = engine.train_step(probed, parameters, {}, OptimizerSpec("adamw", weight_decay=0.0))
    seeds = [11, 12, 11, 12, 2**31 - 1]
    values = step.run(iter([Step([batch], 0.0, seed) for seed in seeds]), len(seeds)).fetch()
    np.testing.assert_array_equal(values[0], values[2])
    np.testing.assert_array_equal(values[1], values[3])
    for column in (0, 2):
        assert len({float(value) for value in values[:, column]}) == 3
