"""ONNX files (opset 20, IR 10), written as protobuf messages: a graph of nodes with named tensors between them.

Written with `core.wire` and not with the onnx package: the weights go from their arrays to the file piece by piece and are never
copied whole, and nothing need be installed. What is over 2 GB, which a protobuf message cannot be, lies beside the graph in one
file of external data, as the format has it. Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.wire import delimited, number, varint

OPSET, IR_VERSION = 20, 10
TYPES = {
    np.dtype(np.float32): 1,
    np.dtype(np.uint8): 2,
    np.dtype(np.int8): 3,
    np.dtype(np.int32): 6,
    np.dtype(np.int64): 7,
    np.dtype(np.bool_): 9,
    np.dtype(np.float16): 10,
}
"""NumPy type -> TensorProto.DataType."""
_FLOAT, _INT, _STRING, _FLOATS, _INTS = 1, 2, 3, 6, 7  # AttributeProto.AttributeType
_LIMIT = 2_000_000_000
_ALIGNMENT = 4096  # of external data: it can be mapped into memory

Pieces = list[bytes | memoryview]
"""A message in pieces, to be written one after the other."""


@dataclass(frozen=True)
class Port:
    """An input or output of the graph; a dimension is a size or the name of one."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str, ...]


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], attributes: Mapping[str, Any]) -> bytes:
    """A NodeProto. An input that is left out is an empty name."""
    content = b"".join(delimited(1, name.encode()) for name in inputs)
    content += b"".join(delimited(2, name.encode()) for name in outputs)
    content += delimited(4, kind.encode())
    return content + b"".join(delimited(5, _attribute(name, value)) for name, value in attributes.items())


def _attribute(name: str, value: Any) -> bytes:
    content = delimited(1, name.encode())
    if isinstance(value, str):
        return content + delimited(4, value.encode()) + number(20, _STRING)
    if isinstance(value, float):
        return content + varint(2 << 3 | 5) + np.float32(value).tobytes() + number(20, _FLOAT)
    if isinstance(value, int):
        return content + number(3, value) + number(20, _INT)
    if all(isinstance(item, int) for item in value):
        return content + b"".join(number(8, item) for item in value) + number(20, _INTS)
    return content + b"".join(varint(7 << 3 | 5) + np.float32(item).tobytes() for item in value) + number(20, _FLOATS)


def _port(port: Port) -> bytes:
    sizes = b"".join(
        delimited(1, delimited(2, size.encode()) if isinstance(size, str) else number(1, size)) for size in port.shape
    )
    tensor = number(1, TYPES[np.dtype(port.dtype)]) + delimited(2, sizes)
    return delimited(1, port.name.encode()) + delimited(2, delimited(1, tensor))


def _head(name: str, array: np.ndarray) -> bytes:
    sizes = b"".join(number(1, size) for size in array.shape)
    return sizes + number(2, TYPES[array.dtype]) + delimited(8, name.encode())


def _entry(key: str, value: str) -> bytes:
    return delimited(1, key.encode()) + delimited(2, value.encode())


def _message(field: int, pieces: Pieces) -> Pieces:
    return [varint(field << 3 | 2) + varint(sum(map(len, pieces))), *pieces]


def write_onnx(
    path: Path,
    name: str,
    nodes: Iterable[bytes],
    weights: Mapping[str, np.ndarray],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    metadata: Mapping[str, str],
    limit: int = _LIMIT,
) -> list[Path]:
    """Write a graph into `path`; weights of more than `limit` bytes in all lie beside it. Returns the files."""
    outside = sum(array.nbytes for array in weights.values()) > limit
    beside = path.with_name(path.name + ".data")
    graph: Pieces = [delimited(1, content) for content in nodes]
    graph.append(delimited(2, name.encode()))
    place = 0
    for own, array in weights.items():
        head = _head(own, array)
        if outside and array.nbytes > 1024:
            place = -(-place // _ALIGNMENT) * _ALIGNMENT
            where = {"location": beside.name, "offset": str(place), "length": str(array.nbytes)}
            head += b"".join(delimited(13, _entry(key, value)) for key, value in where.items()) + number(14, 1)
            graph += _message(5, [head])
            place += array.nbytes
        else:
            data = memoryview(np.ascontiguousarray(array)).cast("B") if array.size else memoryview(b"")
            graph += _message(5, [head, varint(9 << 3 | 2) + varint(len(data)), data])
    graph += [delimited(11, _port(port)) for port in inputs] + [delimited(12, _port(port)) for port in outputs]
    model: Pieces = [number(1, IR_VERSION), delimited(2, b"crossdistil")]
    model += _message(7, graph)
    model.append(delimited(8, delimited(1, b"") + number(2, OPSET)))
    model += [delimited(14, _entry(key, value)) for key, value in metadata.items()]
    with path.open("wb") as file:
        for piece in model:
            file.write(piece)
    if not outside:
        return [path]
    with beside.open("wb") as file:
        for array in weights.values():
            if array.nbytes > 1024:
                file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT)
                file.write(np.ascontiguousarray(array).data)
    return [path, beside]
