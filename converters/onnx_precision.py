"""Smaller ONNX graphs: weights stored in half precision, and linear maps in 8-bit integers.

**fp16** is how weights are stored; they are widened when the graph is loaded, and all is computed in float32: half the file, and
nothing else changes.

**int8** (after Dettmers et al. 2022, vector-wise quantisation): a linear map has one scale for each row of the activations, that
is for each token, computed as the graph runs, and one for each row of the weight. ONNX Runtime's own dynamic quantisation takes
one scale for a whole tensor: there a text's answer depends on which texts share its batch. Here it never does. Tables of
embeddings have a scale for each row. All else (attention, normalisation, activations) stays in float32.

Both factors are stored unsigned, shifted by 128: the one pair of types for which ONNX Runtime's kernels are fast on every
processor and exact. Signed by signed it has no kernel for x86; unsigned by signed saturates at 16 bits where there is AVX2 alone.
"""

from __future__ import annotations

import numpy as np

from .onnx_file import node
from .onnx_graph import Graph, Value
from .recording_ops import RecordingOps

PRECISIONS = ("fp32", "fp16", "int8")
_LARGEST, _ZERO = 127.0, 128
_TINY = 1e-30  # a row of zeros has no scale


class HalfGraph(Graph):
    """Weights of more than a few numbers are stored in float16. What widens one is a node only where it is used: of most maps it
    is the weight that was turned already."""

    def __init__(self) -> None:
        super().__init__()
        self._wide: dict[str, str] = {}

    def weight(self, name: str, array: np.ndarray) -> Value:
        stored = super().weight(name, array)
        if array.dtype != np.float32 or array.ndim < 2:
            return stored
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():  # float16 ends at 65,504
            return stored
        self.weights[name] = half
        wide = f"{name}.float32"
        self._wide[wide] = name
        self.arrays[wide] = array
        return Value(self, wide, array.shape, array.dtype)

    def finish(self) -> None:
        """Put what widens before what uses it."""
        used = {wide: name for wide, name in self._wide.items() if wide in self.used}
        self.nodes = [*(node("Cast", [name], [wide], {"to": 1}) for wide, name in used.items()), *self.nodes]
        self.used.update(used.values())
        super().finish()


class Int8Ops(RecordingOps):
    """Linear maps and tables of embeddings in 8 bits."""

    def linear(self, x, weight, bias):
        graph = self._graph
        scale = self._row_scale(x)
        rounded = graph.add("Round", [x / scale + float(_ZERO)], x.shape)
        whole = graph.add("Cast", [rounded], x.shape, np.uint8, to=2)
        matrix, scales = self._quantised(weight)
        zero = graph.constant(np.uint8(_ZERO))
        product = graph.add("MatMulInteger", [whole, matrix, zero, zero], (*x.shape[:-1], weight.shape[0]), np.int32)
        exact = graph.add("Cast", [product], product.shape, np.float32, to=1) * scale * scales
        return exact if bias is None else exact + bias

    def _row_scale(self, x):
        """(..., 1): what the largest value of each row is 127 of."""
        graph = self._graph
        size = graph.add("Abs", [x], x.shape)
        name = graph.emit("ReduceMax", [size.name, graph.numbers([-1])], keepdims=1)
        largest = Value(graph, name, (*x.shape[:-1], 1), x.dtype)
        return graph.add("Max", [largest, graph.constant(np.float32(_TINY * _LARGEST))], largest.shape) * (1.0 / _LARGEST)

    def _quantised(self, weight):
        """The weight (in, out) in 8 bits and the scales (out,)."""
        array = self._graph.known(weight)
        scales = row_scales(array)
        matrix = self._graph.once(f"{weight.name}.int8", lambda: (np.rint(array / scales[:, None]) + _ZERO).astype(np.uint8).T)
        return matrix, self._graph.once(f"{weight.name}.scales", lambda: scales)

    def embedding(self, table, ids):
        graph, array = self._graph, self._graph.known(table)
        scales = row_scales(array)
        rows = graph.once(f"{table.name}.int8", lambda: np.rint(array / scales[:, None]).astype(np.int8))
        shape = (*ids.shape, table.shape[1])
        taken = graph.add("Gather", [rows, ids], shape, np.int8, axis=0)
        column = graph.once(f"{table.name}.scales", lambda: scales[:, None])
        scale = graph.add("Gather", [column, ids], (*ids.shape, 1), np.float32, axis=0)
        return graph.add("Cast", [taken], shape, np.float32, to=1) * scale


def row_scales(array: np.ndarray) -> np.ndarray:
    """(rows,) float32: what the largest value of each row is 127 of."""
    return (np.maximum(np.abs(array).max(axis=1), _TINY * _LARGEST) / _LARGEST).astype(np.float32)


def make_recorder(precision: str) -> tuple[Graph, RecordingOps]:
    """The graph and the operations of a precision."""
    graph = HalfGraph() if precision == "fp16" else Graph()
    return graph, (Int8Ops if precision == "int8" else RecordingOps)(graph)
