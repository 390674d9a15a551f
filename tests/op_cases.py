"""Every primitive of `Ops` with inputs that show its mistakes: what `test_ops` computes on each backend."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

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


def static(ops, p, batch):
    length = ops.shape(batch["ids"])[0]
    return ops.embedding(p["table"], ops.static("relative_buckets", (9, 8, 6))[:length, :length])


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


def linear_without_bias(ops, p, batch):
    return ops.linear(p["x"], p["weight"], None)


def matmul(ops, p, batch):
    return ops.matmul(p["a"], p["b"])


def matmul_transposed(ops, p, batch):
    return ops.matmul_transposed(p["a"], p["b"])


def matmul_with_itself(ops, p, batch):
    return ops.matmul_transposed(p["a"], p["a"])


def attention(ops, p, batch):
    return ops.attention(p["query"], p["key"], p["value"], batch["bias"], 0.0)


def attention_to_states(ops, p, batch):
    maps = p["key_weight"], p.get("key_bias"), p["value_weight"], p.get("value_bias")
    return ops.attention_to_states(p["query"], p["x"], maps[0], maps[1], maps[2], maps[3], batch["bias"], 0.0)


def rotate(ops, p, batch):
    length = ops.shape(p["x"])[2]
    tables = [ops.static(name, (9, 4, 100.0))[:length] for name in ("rotary_cosines", "rotary_sines")]
    return ops.rotate(p["x"], tables[0], tables[1])


def layer_norm_without_bias(ops, p, batch):
    return ops.layer_norm(p["x"], p["weight"], None, 1e-5)


def relative_scores(ops, p, batch):
    return ops.relative_scores(p["states"], p["table"], batch["index"])


def layer_norm(ops, p, batch):
    return ops.layer_norm(p["x"], p["weight"], p["bias"], 1e-12)


def gelu_erf(ops, p, batch):
    return ops.gelu(p["x"], False)


def gelu_tanh(ops, p, batch):
    return ops.gelu(p["x"], True)


def relu(ops, p, batch):
    return ops.relu(p["x"])


def silu(ops, p, batch):
    return ops.silu(p["x"])


def tanh(ops, p, batch):
    return ops.tanh(p["x"])


def exp(ops, p, batch):
    return ops.exp(p["x"])


def log(ops, p, batch):
    return ops.log(p["x"])


def sqrt(ops, p, batch):
    return ops.sqrt(p["x"])


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


def argmax(ops, p, batch):
    # As the index it is for; a tie would be the first's.
    return ops.pick(p["x"] * p["x"], ops.argmax(p["x"]))


def one_hot(ops, p, batch):
    return ops.one_hot(batch["index"], 3) * p["x"]


def above(ops, p, batch):
    return p["x"] * ops.above(p["x"], 0.5) + p["x"] * ops.above(batch["y"], 0.5)


def doubled(x):
    return x * 2.0


def squared(x):
    return x * x


def chosen(ops, p, batch):
    return ops.choose(batch["gates"][0], doubled, squared, p["x"]) + ops.choose(batch["gates"][1], doubled, squared, p["x"])


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
POSITIVE = np.linspace(0.01, 9, 60, dtype=np.float32).reshape(3, 20)
MASK = np.array([[0, 0, 0, 0, 0], [0, 0, -1e4, -1e4, -1e4], [0] + [-1e4] * 4], np.float32).reshape(3, 1, 1, 5)
WINDOW = np.zeros_like(MASK) + np.where(np.abs(np.arange(5)[:, None] - np.arange(5)) > 1, np.float32(-1e4), np.float32(0))
HEADS = {name: normal(3, 2, 5, 4) for name in ("query", "key", "value")}
STATES = {name: normal(8, 6, scale=0.4) for name in ("key_weight", "value_weight")}
STATES |= {"query": normal(3, 2, 1, 4), "x": normal(3, 5, 6)}
CASES = {
    "operators": Case(operators, {"x": normal(4, 3), "y": normal(2, 4)}),
    "constant": Case(constant, {"x": normal(2, 3)}),
    "static": Case(static, {"table": normal(8, 3)}, {"ids": np.zeros(7, np.int32)}),
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
    "linear without a bias": Case(linear_without_bias, {"x": normal(2, 3, 8), "weight": normal(4, 8)}),
    "matmul": Case(matmul, {"a": normal(2, 3, 4), "b": normal(2, 4, 5)}),
    "matmul_transposed": Case(matmul_transposed, {"a": normal(2, 3, 4), "b": normal(2, 5, 4)}),
    "matmul_transposed of heads": Case(matmul_transposed, {"a": normal(2, 3, 5, 4), "b": normal(2, 3, 6, 4)}),
    "matmul_transposed with itself": Case(matmul_with_itself, {"a": normal(2, 3, 5, 4)}),
    "attention": Case(attention, HEADS, {"bias": MASK}),
    "attention, nothing masked": Case(attention, HEADS, {"bias": np.zeros_like(MASK)}),
    "attention, sharp": Case(attention, {**HEADS, "query": HEADS["query"] * 30}, {"bias": MASK}, forward=2e-5),
    "attention, each query with a mask of its own": Case(attention, HEADS, {"bias": WINDOW}, forward=4e-6),
    "attention_to_states": Case(attention_to_states, {**STATES, "key_bias": normal(8), "value_bias": normal(8)}, {"bias": MASK}),
    "attention_to_states without biases": Case(attention_to_states, STATES, {"bias": np.zeros_like(MASK)}),
    "attention_to_states of all": Case(attention_to_states, {**STATES, "query": normal(3, 2, 5, 4)}, {"bias": MASK}),
    "rotate": Case(rotate, {"x": normal(2, 3, 5, 4)}),
    "layer_norm without a bias": Case(layer_norm_without_bias, {"x": normal(2, 5, 8), "weight": normal(8)}),
    "relative_scores": Case(
        relative_scores,
        {"states": normal(2, 3, 5, 4), "table": normal(3, 7, 4)},
        # Row 6 is nobody's, row 2 that of many.
        {"index": np.array([[2, 0, 1, 5, 2], [3, 2, 0, 1, 5], [4, 3, 2, 0, 1], [2, 4, 3, 2, 0], [2, 2, 4, 3, 2]], np.int32)},
    ),
    "layer_norm": Case(layer_norm, {"x": normal(2, 5, 8), "weight": normal(8), "bias": normal(8)}),
    # Variance 1e-6: an epsilon of 1e-7, or 1e-5, in place of 1e-12 shows.
    "layer_norm of small values": Case(layer_norm, {"x": normal(4, 8, scale=1e-3), "weight": normal(8), "bias": normal(8)}),
    "gelu_erf": Case(gelu_erf, {"x": LINE}),
    "gelu_tanh": Case(gelu_tanh, {"x": LINE}),
    "relu": Case(relu, {"x": normal(4, 5)}),
    "tanh": Case(tanh, {"x": LINE}, forward=1e-6),
    # MindSpore's kernel is exact to 6e-6.
    "exp": Case(exp, {"x": LINE}, forward=1e-5),
    "log": Case(log, {"x": POSITIVE}),
    "sqrt": Case(sqrt, {"x": POSITIVE}),
    "softmax": Case(softmax, {"x": normal(2, 3, 5, scale=3.0)}),
    "log_softmax": Case(log_softmax, {"x": normal(4, 5, scale=3.0)}),
    "log_softmax of large values": Case(log_softmax, {"x": normal(4, 3, scale=100.0)}),
    "sum over an axis": Case(sum_axis, {"x": normal(2, 3, 4)}),
    "sum over the last axis": Case(sum_last, {"x": normal(2, 3)}),
    "sum over all": Case(sum_all, {"x": normal(3, 4)}),
    "argmax": Case(argmax, {"x": normal(4, 5)}),
    # Indices outside give rows of zeros.
    "one_hot": Case(one_hot, {"x": normal(5, 3)}, {"index": np.array([2, 0, -100, 3, 1], np.int32)}),
    "above": Case(above, {"x": normal(2, 3)}, {"y": np.array([[0.5, 0.6, 0.4], [-1, 7, 0.5]], np.float32)}),
    "choose": Case(chosen, {"x": normal(3, 4)}, {"gates": np.array([1, 0], np.float32)}),
    "float32": Case(float32, {"x": normal(3, 4)}),
    "dropout at rate 0": Case(no_dropout, {"x": normal(3, 4)}),
    "silu": Case(silu, {"x": normal(4, 5)}),
}
