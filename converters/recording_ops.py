"""`core.ops.Ops` that records: a forward pass becomes an ONNX graph, dynamic in batch and length, and no framework is loaded.

The forward pass is called once with values of `onnx_graph.py`. Nodes are plain ones (MatMul, Softmax, LayerNormalization):
fused attention and skip-normalisation nodes gained nothing with ONNX Runtime, and every runtime reads plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..core.models.components import attention_by_maps
from ..core.models.encoder import Forward
from ..core.static_tables import static_table
from .onnx_file import Port
from .onnx_graph import INTEGERS, Graph, Size, Value


class RecordingOps:
    """The primitives as nodes of a graph. What only losses and training need is not here."""

    def __init__(self, graph: Graph):
        self._graph = graph

    def constant(self, array):
        return self._graph.constant(np.asarray(array))

    def static(self, name, arguments):
        return self._graph.constant(static_table(name, arguments))

    def shape(self, x):
        return x.shape

    def is_known(self, size):
        return isinstance(size, int)

    def reshape(self, x, shape):
        """In the node's own language 0 copies a size and -1 is what is left over: no size has to be computed."""
        sizes: list[int] = []
        for axis, size in enumerate(shape):
            if not isinstance(size, Size):
                sizes.append(size)
            elif axis < len(x.shape) and isinstance(x.shape[axis], Size) and x.shape[axis] == size:
                sizes.append(0)
            else:
                sizes.append(-1)
        if sizes.count(-1) > 1:
            raise ValueError(f"a reshape to {shape} has more than one size that is not known when the graph is made")
        known = tuple(shape)
        name = self._graph.emit("Reshape", [x.name, self._graph.numbers(sizes)])
        return Value(self._graph, name, known, x.dtype)

    def transpose(self, x, axes):
        if x.name in self._graph.arrays:  # turned once, now
            name = ".".join([x.name, "axes", *map(str, axes)])
            return self._graph.once(name, lambda: np.ascontiguousarray(self._graph.known(x).transpose(axes)))
        return self._graph.add("Transpose", [x], tuple(x.shape[axis] for axis in axes), perm=list(axes))

    def concat(self, tensors, axis):
        first = tensors[0]
        sizes = [tensor.shape[axis] for tensor in tensors]
        total = sum(sizes) if all(isinstance(size, int) for size in sizes) else sizes[0]
        shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
        return self._graph.add("Concat", tensors, shape, axis=axis)

    def embedding(self, table, ids):
        return self._graph.add("Gather", [table, ids], (*ids.shape, table.shape[1]), axis=0)

    def linear(self, x, weight, bias):
        product = self._graph.add("MatMul", [x, self._turned(weight)], (*x.shape[:-1], weight.shape[0]))
        return product if bias is None else product + bias

    def _turned(self, weight):
        """The weight (in, out), as MatMul takes it: turned once, now."""
        return self._graph.once(f"{weight.name}.T", lambda: self._graph.known(weight).T)

    def matmul(self, a, b):
        return self._graph.add("MatMul", [a, b], (*a.shape[:-1], b.shape[-1]))

    def matmul_transposed(self, a, b):
        axes = [*range(len(b.shape) - 2), len(b.shape) - 1, len(b.shape) - 2]
        return self.matmul(a, self.transpose(b, axes))

    def attention(self, query, key, value, bias, dropout):
        scores = self.matmul_transposed(query * (query.shape[-1] ** -0.5), key) + bias
        return self.matmul(self.softmax(scores), value)

    def attention_to_states(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout):
        return attention_by_maps(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout)

    def rotate(self, x, cosines, sines):
        half = x.shape[-1] // 2
        first, second = x[:, :, :, :half], x[:, :, :, half:]
        return x * cosines + self.concat([-second, first], 3) * sines

    def relative_scores(self, states, table, index):
        graph, (rows, heads, length, _) = self._graph, states.shape
        by_row = self.matmul_transposed(states, table)  # (B, A, L, R)
        shape = (rows, heads, length, length)
        sizes = [size.tensor if isinstance(size, Size) else graph.numbers([size]) for size in shape]
        places = Value(graph, graph.emit("Expand", [index.name, graph.emit("Concat", sizes, axis=0)]), shape, index.dtype)
        return graph.add("GatherElements", [by_row, places], shape, axis=3)

    def lstm(self, x, mask, input_weight, hidden_weight, input_bias, hidden_bias):
        graph = self._graph
        hidden = hidden_weight.shape[-1]
        # ONNX has the gates in the order input, output, forget, cell, and both biases in one tensor.
        order = np.concatenate([np.arange(hidden) + gate * hidden for gate in (0, 3, 1, 2)])
        weights = [
            graph.once(f"{value.name}.iofc", lambda value=value: np.ascontiguousarray(graph.known(value)[:, order]))
            for value in (input_weight, hidden_weight)
        ]
        biases = [graph.known(value)[:, order] for value in (input_bias, hidden_bias)]
        bias = graph.once(f"{input_bias.name}.iofc", lambda: np.concatenate(biases, axis=1))
        counted = graph.add("ReduceSum", [mask, Value(graph, graph.numbers([1]), (1,), INTEGERS)], mask.shape[:1], keepdims=0)
        # A row without a word has one place of padding to run over, and its state is set to zero behind it.
        lengths = graph.add("Cast", [counted], counted.shape, np.int32, to=6)
        at_least_one = graph.add("Max", [lengths, graph.constant(np.array(1, np.int32))], lengths.shape)
        steps = self.transpose(x, (1, 0, 2))
        names = [steps.name, weights[0].name, weights[1].name, bias.name, at_least_one.name]
        _, last, _ = graph.emit("LSTM", names, 3, hidden_size=hidden, direction="bidirectional")
        ends = self.transpose(Value(graph, last, (2, x.shape[0], hidden), x.dtype), (1, 0, 2))
        merged = self.reshape(ends, (x.shape[0], 2 * hidden))
        some = graph.add("Min", [counted, graph.constant(np.array(1.0, np.float32))], counted.shape)
        column = Value(graph, graph.emit("Unsqueeze", [some.name, graph.numbers([1])]), (x.shape[0], 1), x.dtype)
        return merged * column

    def layer_norm(self, x, weight, bias, epsilon):
        inputs = [x, weight] if bias is None else [x, weight, bias]
        return self._graph.add("LayerNormalization", inputs, x.shape, axis=-1, epsilon=float(epsilon))

    def dropout(self, x, rate):
        if rate:
            raise ValueError(f"a graph to answer with has no dropout, got a rate of {rate}")
        return x

    def gelu(self, x, approximate):
        return self._graph.add("Gelu", [x], x.shape, approximate="tanh" if approximate else "none")

    def relu(self, x):
        return self._graph.add("Relu", [x], x.shape)

    def silu(self, x):
        return x * self._graph.add("Sigmoid", [x], x.shape)

    def tanh(self, x):
        return self._graph.add("Tanh", [x], x.shape)

    def sqrt(self, x):
        return self._graph.add("Sqrt", [x], x.shape)

    def above(self, x, limit):
        graph = self._graph
        greater = graph.add("Greater", [x, graph.constant(np.array(limit, x.dtype))], x.shape, np.bool_)
        return graph.add("Cast", [greater], x.shape, np.float32, to=1)

    def sum(self, x, axis=None):
        if axis is None:
            raise ValueError("a sum over all has no place in a model")
        kept = tuple(size for place, size in enumerate(x.shape) if place != axis % len(x.shape))
        name = self._graph.emit("ReduceSum", [x.name, self._graph.numbers([axis])], keepdims=0)
        return Value(self._graph, name, kept, x.dtype)

    def softmax(self, x):
        return self._graph.add("Softmax", [x], x.shape, axis=-1)

    def float32(self, x):
        return x

    def stop_gradient(self, x):
        return x


def record(
    forward: Forward,
    parameters: Mapping[str, np.ndarray],
    inputs: Mapping[str, tuple[np.dtype, Sequence[str]]],
    graph: Graph,
    ops: RecordingOps,
) -> list[Port]:
    """Record `forward(ops, params, batch)` over inputs of those types and named sizes; returns the outputs."""
    batch = {name: graph.input(name, dtype, sizes) for name, (dtype, sizes) in inputs.items()}
    params = {name: graph.weight(name, np.asarray(array, np.float32)) for name, array in parameters.items()}
    ports = []
    for name, value in forward(ops, params, batch).items():
        graph.output(value, name)
        sizes = tuple(size if isinstance(size, int) else size.name for size in value.shape)
        ports.append(Port(name, value.dtype, sizes))
    graph.finish()
    return ports
