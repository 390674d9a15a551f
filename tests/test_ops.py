"""Every primitive of every backend: its values and gradients are the float64 reference's."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from crossdistil.core.engine import Step
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps

FORWARD, GRADIENT = 2e-6, 1e-5
"""Largest difference from float64, as a share of the value (or of 1): a few float32 roundings of sums of some dozen terms;
a backward pass adds up more of them."""

TABLE = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
GENERATOR = np.random.default_rng(0)


# One function a primitive: `parameters` take a gradient, `batch` does not. Named functions, because a graph compiler reads
# their source.
def operators(ops, p, batch):
    return (2.0 - p["x"][:, 0]) * p["y"][1] / (p["y"][0] * p["y"][0] + 1.0) + p["x"][:, 1] - 0.5 * -p["y"][:1]


def constant(ops, p, batch):
    return p["x"] * ops.constant(TABLE)


def reshape(ops, p, batch):
    shape = ops.shape(p["x"])
    return ops.reshape(p["x"], (shape[0] * shape[1], -1))


def transpose(ops, p, batch):
    return ops.transpose(p["x"], (2, 0, 3, 1))


def concat(ops, p, batch):
    return ops.concat([p["x"], p["y"], p["x"]], 1)


def concat_first(ops, p, batch):
    return ops.concat([p["x"], p["y"]], 0)


def stack(ops, p, batch):
    return ops.stack([p["x"], p["y"]])


def embedding(ops, p, batch):
    return ops.embedding(p["table"], batch["ids"])


def pick(ops, p, batch):
    return ops.pick(p["x"], batch["index"])


def linear(ops, p, batch):
    return ops.linear(p["x"], p["weight"], p["bias"])


def matmul(ops, p, batch):
    return ops.matmul(p["a"], p["b"])


def attention(ops, p, batch):
    return ops.attention(p["query"], p["key"], p["value"], batch["bias"], 0.0)


def layer_norm(ops, p, batch):
    return ops.layer_norm(p["x"], p["weight"], p["bias"], 1e-12)


def gelu_erf(ops, p, batch):
    return ops.gelu(p["x"], False)


def gelu_tanh(ops, p, batch):
    return ops.gelu(p["x"], True)


def relu(ops, p, batch):
    return ops.relu(p["x"])


def tanh(ops, p, batch):
    return ops.tanh(p["x"])


def softmax(ops, p, batch):
    return ops.softmax(p["x"])


def log_softmax(ops, p, batch):
    return ops.log_softmax(p["x"])


def sum_axis(ops, p, batch):
    return ops.sum(p["x"], axis=1)


def sum_last(ops, p, batch):
    return ops.sum(p["x"], -1)


def sum_all(ops, p, batch):
    return ops.sum(p["x"] * p["x"])


def float32(ops, p, batch):
    return ops.float32(p["x"])


def no_dropout(ops, p, batch):
    return ops.dropout(p["x"], 0.0)


def stop_gradient(ops, p, batch):
    return ops.stop_gradient(p["x"])


def normal(*shape, scale=1.0):
    return (GENERATOR.normal(size=shape) * scale).astype(np.float32)


@dataclass
class Case:
    """A primitive, what it is given, and how far from float64 it may be."""

    function: object
    parameters: dict[str, np.ndarray]
    batch: dict[str, np.ndarray] = field(default_factory=dict)
    forward: float = FORWARD


LINE = np.linspace(-9, 9, 60, dtype=np.float32).reshape(3, 20)
MASK = np.array([[0, 0, 0, 0, 0], [0, 0, -1e4, -1e4, -1e4], [0] + [-1e4] * 4], np.float32).reshape(3, 1, 1, 5)
HEADS = {name: normal(3, 2, 5, 4) for name in ("query", "key", "value")}
CASES = {
    "operators": Case(operators, {"x": normal(4, 3), "y": normal(2, 4)}),
    "constant": Case(constant, {"x": normal(2, 3)}),
    "reshape": Case(reshape, {"x": normal(2, 3, 4)}),
    "transpose": Case(transpose, {"x": normal(2, 3, 4, 2)}),
    "concat": Case(concat, {"x": normal(2, 3), "y": normal(2, 4)}),
    "concat first axis": Case(concat_first, {"x": normal(2, 3), "y": normal(1, 3)}),
    "stack": Case(stack, {"x": normal(2, 3), "y": normal(2, 3)}),
    # Row 0 is used, row 2 twice: neither is a padding row without a gradient.
    "embedding": Case(embedding, {"table": normal(4, 3)}, {"ids": np.array([[2, 0, 1], [0, 3, 2]], np.int32)}),
    "pick": Case(pick, {"x": normal(4, 3)}, {"index": np.array([2, 0, 1, 2], np.int32)}),
    "linear": Case(linear, {"x": normal(2, 3, 8), "weight": normal(4, 8), "bias": normal(4)}),
    "linear of rows": Case(linear, {"x": normal(3, 8), "weight": normal(4, 8), "bias": normal(4)}),
    "matmul": Case(matmul, {"a": normal(2, 3, 4), "b": normal(2, 4, 5)}),
    "attention": Case(attention, HEADS, {"bias": MASK}),
    "attention, nothing masked": Case(attention, HEADS, {"bias": np.zeros_like(MASK)}),
    "attention, sharp": Case(attention, {**HEADS, "query": HEADS["query"] * 30}, {"bias": MASK}, forward=2e-5),
    "layer_norm": Case(layer_norm, {"x": normal(2, 5, 8), "weight": normal(8), "bias": normal(8)}),
    # Variance 1e-6: an epsilon of 1e-7, or 1e-5, in place of 1e-12 shows.
    "layer_norm of small values": Case(layer_norm, {"x": normal(4, 8, scale=1e-3), "weight": normal(8), "bias": normal(8)}),
    "gelu_erf": Case(gelu_erf, {"x": LINE}),
    "gelu_tanh": Case(gelu_tanh, {"x": LINE}),
    "relu": Case(relu, {"x": normal(4, 5)}),
    "tanh": Case(tanh, {"x": LINE}, forward=1e-6),
    "softmax": Case(softmax, {"x": normal(2, 3, 5, scale=3.0)}),
    "log_softmax": Case(log_softmax, {"x": normal(4, 5, scale=3.0)}),
    "log_softmax of large values": Case(log_softmax, {"x": normal(4, 3, scale=100.0)}),
    "sum over an axis": Case(sum_axis, {"x": normal(2, 3, 4)}),
    "sum over the last axis": Case(sum_last, {"x": normal(2, 3)}),
    "sum over all": Case(sum_all, {"x": normal(3, 4)}),
    "float32": Case(float32, {"x": normal(3, 4)}),
    "dropout at rate 0": Case(no_dropout, {"x": normal(3, 4)}),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def reference(case: Case, parameters) -> np.ndarray:
    exact = {name: array.astype(np.float64) for name, array in parameters.items()}
    return case.function(ReferenceOps(), exact, case.batch)


def assert_close(found, expected, tolerance, what):
    assert found.shape == expected.shape, what
    difference = (np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max()
    assert difference <= tolerance, f"{what} differs by {difference:.1e}"


@every_case
def test_values(case, engine):
    def outputs(ops, parameters, batch):
        return [case.function(ops, parameters, batch)]

    batch = {**case.batch, "unused": np.zeros(1, np.float32)}
    [found] = engine.infer(outputs, case.parameters)(batch)
    assert found.dtype == np.float32
    assert_close(found, reference(case, case.parameters), case.forward, "the value")


@every_case
def test_gradients(case, engine):
    value = reference(case, case.parameters)
    weights = np.random.default_rng(2).normal(size=value.shape).astype(np.float32)

    def objective(ops, parameters, frozen, batch):
        total = ops.sum(case.function(ops, parameters, batch) * batch["weights"])
        return total, ops.stack([total])

    _, found = engine.gradients(objective, case.parameters, {}, {**case.batch, "weights": weights})
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
