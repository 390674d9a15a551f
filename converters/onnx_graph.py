"""An ONNX graph while it is made: values that know their shape and where they come from, and the nodes that make them.

A size that is not fixed is a `Size`, which the models only pass on: to `reshape` and as the end of a slice. `recording_ops.py`
makes a forward pass into such a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

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
        elif isinstance(x.shape[axis], Size):
            size = part.stop - (part.start or 0)  # the first ones of an axis that has at least so many: of a text one token
        else:
            size = len(range(*part.indices(x.shape[axis])))
        name = self.emit("Slice", [x.name, start, stop, self.numbers([axis])])
        return Value(self, name, (*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)


def _broadcast(one: Shape, other: Shape) -> Shape:
    long, short = (one, other) if len(one) >= len(other) else (other, one)
    short = (1,) * (len(long) - len(short)) + tuple(short)
    return tuple(b if isinstance(a, int) and a == 1 else a for a, b in zip(long, short))
