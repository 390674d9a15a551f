"""`core.ops.Ops` that records: a forward pass becomes an ONNX graph, dynamic in batch and length, and no framework is loaded.

The forward pass is called once with values that know their shape and where they come from. A size that is not fixed is a `Size`,
which the models only pass on: to `reshape` and as the end of a slice. Nodes are plain ones (MatMul, Softmax, LayerNormalization):
fused attention and skip-normalisation nodes gained nothing with ONNX Runtime, and every runtime reads plain ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.models.encoder import Forward
from ..core.static_tables import static_table
from .onnx_file import Port, node

INTEGERS = np.dtype(np.int64)


@dataclass(frozen=True, eq=False)
class Size:
    """A size that is known when the graph runs: the value of a one-number tensor of it."""

    name: str
    """For people, as in the inputs' shapes."""
    tensor: str

    def __eq__(self, other: object) -> bool:
        # False for a number would be a guess: nothing may depend on it.
        if isinstance(other, Size):
            return self.name == other.name
        raise TypeError(f"the size '{self.name}' is not known when the graph is made, so it cannot be compared with {other!r}")

    __hash__ = None


Shape = tuple[int | Size, ...]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the graph."""

    graph: Graph
    name: str
    shape: Shape
    dtype: np.dtype

    def __add__(self, other):
        return self.graph.combine("Add", self, other)

    __radd__ = __add__

    def __mul__(self, other):
        return self.graph.combine("Mul", self, other)

    __rmul__ = __mul__

    def __sub__(self, other):
        return self.graph.combine("Sub", self, other)

    def __rsub__(self, other):
        return self.graph.combine("Sub", other, self)

    def __truediv__(self, other):
        return self.graph.combine("Div", self, other)

    def __neg__(self):
        return self.graph.add("Neg", [self], self.shape)

    def __getitem__(self, key):
        return self.graph.sliced(self, key if isinstance(key, tuple) else (key,))


@dataclass
class Graph:
    """The nodes and constants so far."""

    nodes: list[bytes] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    """Of each value that is known when the graph is made: its name -> what it is, in full precision."""
    inputs: list[Port] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    """Names of all that a node takes."""
    _count: int = 0
    _constants: dict[tuple, str] = field(default_factory=dict)
    _made: dict[str, Value] = field(default_factory=dict)

    def input(self, name: str, dtype: np.dtype, sizes: Sequence[str]) -> Value:
        """An input all of whose sizes are known when the graph runs."""
        self.inputs.append(Port(name, np.dtype(dtype), tuple(sizes)))
        whole = self.emit("Shape", [name])
        shape = tuple(
            Size(size, self.emit("Slice", [whole, self.numbers([axis]), self.numbers([axis + 1])]))
            for axis, size in enumerate(sizes)
        )
        return Value(self, name, shape, np.dtype(dtype))

    def weight(self, name: str, array: np.ndarray) -> Value:
        """A constant with a name of its own."""
        self.weights[name] = self.arrays[name] = array
        return Value(self, name, array.shape, array.dtype)

    def constant(self, array: np.ndarray) -> Value:
        """A constant without a name; equal small ones are one."""
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= 1024 else (id(array),)
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self.weights[self._constants[key]] = self.arrays[self._constants[key]] = array
        return Value(self, self._constants[key], array.shape, array.dtype)

    def known(self, value: Value) -> np.ndarray:
        """What a weight or a constant is."""
        return self.arrays[value.name]

    def numbers(self, values: Sequence[int]) -> str:
        """The name of a constant list of integers."""
        return self.constant(np.array(values, INTEGERS)).name

    def once(self, name: str, make: Callable[[], np.ndarray]) -> Value:
        """The weight of that name, made where it is not there yet."""
        if name not in self._made:
            self._made[name] = self.weight(name, make())
        return self._made[name]

    def emit(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or their names."""
        self._count += 1
        self.used.update(inputs)
        names = [f"{kind.lower()}_{self._count}" + (f"_{number}" if outputs > 1 else "") for number in range(outputs)]
        self.nodes.append(node(kind, inputs, names, attributes))
        return names[0] if outputs == 1 else names

    def output(self, value: Value, name: str) -> None:
        """Give a value the name of an output."""
        self.used.add(value.name)
        self.nodes.append(node("Identity", [value.name], [name], {}))

    def finish(self) -> None:
        """Of the weights only those stay that a node takes."""
        for name in self.weights.keys() - self.used:
            del self.weights[name]

    def add(self, kind: str, inputs: Sequence[Value], shape: Shape, dtype: np.dtype | None = None, **attributes: Any) -> Value:
        """Add a node with one output of that shape, and by default of the type of its first input."""
        name = self.emit(kind, [value.name for value in inputs], **attributes)
        return Value(self, name, shape, np.dtype(dtype or inputs[0].dtype))

    def combine(self, kind: str, one: Any, other: Any) -> Value:
        """Elementwise arithmetic with NumPy's broadcasting; numbers take the type of the other side."""
        dtype = next(value.dtype for value in (one, other) if isinstance(value, Value))
        one, other = (
            value if isinstance(value, Value) else self.constant(np.asarray(value, dtype)) for value in (one, other)
        )
        return self.add(kind, [one, other], _broadcast(one.shape, other.shape))

    def sliced(self, x: Value, key: tuple) -> Value:
        """`x[key]` of integers, whole axes, and slices whose ends may be sizes."""
        for axis, part in enumerate(key):
            if isinstance(part, slice):
                if part.start is not None or part.stop is not None:
                    x = self._cut(x, axis, part)
            else:
                end = part + 1 if part != -1 else np.iinfo(np.int64).max
                ends = [self.numbers([part]), self.numbers([end]), self.numbers([axis])]
                name = self.emit("Slice", [x.name, *ends])
                x = Value(self, name, (*x.shape[:axis], 1, *x.shape[axis + 1 :]), x.dtype)
        dropped = [axis for axis, part in enumerate(key) if not isinstance(part, slice)]
        if not dropped:
            return x
        kept = tuple(size for axis, size in enumerate(x.shape) if axis not in dropped)
        name = self.emit("Squeeze", [x.name, self.numbers(dropped)])
        return Value(self, name, kept, x.dtype)

    def _cut(self, x: Value, axis: int, part: slice) -> Value:
        if part.step is not None:
            raise ValueError("a slice with a step has no place in a model")
        start = part.start.tensor if isinstance(part.start, Size) else self.numbers([part.start or 0])
        if isinstance(part.stop, Size):
            stop = part.stop.tensor
        else:
            stop = self.numbers([np.iinfo(np.int64).max if part.stop is None else part.stop])
        size: int | Size
        if isinstance(part.start, Size) or (part.stop is None and isinstance(x.shape[axis], Size)):
            # What is left behind a size: only a concatenated batch is cut so, into equal halves.
            size = part.start if isinstance(part.start, Size) else x.shape[axis]
        elif isinstance(part.stop, Size):
            size = part.stop
        else:
            size = len(range(*part.indices(x.shape[axis])))
        name = self.emit("Slice", [x.name, start, stop, self.numbers([axis])])
        return Value(self, name, (*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)


def _broadcast(one: Shape, other: Shape) -> Shape:
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    short = (1,) * (len(long) - len(short)) + tuple(short)
    return tuple(b if isinstance(a, int) and a == 1 else a for a, b in zip(long, short))


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
