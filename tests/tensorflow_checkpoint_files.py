"""TensorFlow checkpoints for the tests: arrays of every kind, and tables and entries made by hand."""

from __future__ import annotations

import struct

import numpy as np

from crossdistil.converters.tensorflow_entries import write_entry
from crossdistil.converters.tensors import DTYPES, TensorInfo, dtype_name
from crossdistil.core.wire import delimited, masked_crc, number, varint

# ---------------------------------------------------------------------------------------------- tensors


def every_kind():
    """All types, all bits of small numbers, scalars and empty tensors; sorted by name, as TensorFlow sorts them."""
    generator = np.random.default_rng(0)
    arrays = {"bert/embeddings/größe": generator.normal(size=(7, 3)).astype(np.float32), "a b": np.float64(np.pi).reshape(())}
    for name, dtype in DTYPES.items():
        if name == "BOOL":
            arrays[f"kind/{name}"] = generator.integers(0, 2, (3, 5)).astype(bool)
        else:
            arrays[f"kind/{name}"] = generator.integers(0, 256, (2, 3, 4 * dtype.itemsize), np.uint8).view(dtype)
        arrays[f"scalar/{name}"] = np.ones((), dtype)
        arrays[f"empty/{name}"] = np.zeros((3, 0, 2), dtype)
    return {name: arrays[name] for name in sorted(arrays, key=str.encode)}


def assert_same(checkpoint, arrays):
    """Names in TensorFlow's order, types, shapes and bits."""
    assert list(checkpoint.tensors) == sorted(arrays, key=str.encode)
    for name, tensor in checkpoint.tensors.items():
        array, found = arrays[name], tensor.load()
        assert tensor.info == TensorInfo(name, array.shape, dtype_name(array.dtype))
        assert (found.shape, found.dtype, found.tobytes()) == (array.shape, array.dtype, array.tobytes()), name
        assert found.flags.writeable and found.flags.c_contiguous


# ---------------------------------------------------------------------------------------------- tables


def entry_of(dtype="F32", shape=(2,), shard=0, offset=0, size=8, crc=0, slices=()):
    """An entry as bytes; slices are rows of (start, length)."""
    parts = (b"".join(delimited(1, number(1, start) + number(2, length)) for start, length in part) for part in slices)
    return write_entry(dtype, shape, shard, offset, size, crc) + b"".join(delimited(7, part) for part in parts)


def table_of(data, meta, index, kind):
    """A table of these blocks with right checksums and right places, except what `index` says."""
    file, places = b"", []
    for content in (data, meta, index):
        places.append(varint(len(file)) + varint(len(content)))
        file += content + bytes([kind]) + struct.pack("<I", masked_crc(content + bytes([kind])))
    return file + (places[1] + places[2]).ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


EMPTY = struct.pack("<II", 0, 1)
"""A block without entries, and the end of every other."""


def block_of(entries):
    """A block of these entries, each with its whole key."""
    rows = (varint(0) + varint(len(key)) + varint(len(entries[key])) + key + entries[key] for key in sorted(entries))
    return b"".join(rows) + EMPTY


def index_of(size):
    """An index block for a data block of as many bytes at the beginning, whose keys are not behind q."""
    place = varint(0) + varint(size)
    return varint(0) + varint(1) + varint(len(place)) + b"q" + place + EMPTY


def compressed_table(entries):
    """A table of one block, whose blocks Snappy compressed."""
    data = snappy(block_of(entries))
    return table_of(data, snappy(EMPTY), snappy(index_of(len(data))), 1)


def snappy(data):
    """All four elements of Snappy: literals, and copies by 1, 2 and 4 bytes of offset, also such that overlap themselves."""
    out, position, literal, seen = varint(len(data)), 0, b"", {}
    while position < len(data):
        key = data[position : position + 4]
        start = seen.get(key, -1)
        seen[key] = position
        if len(key) < 4 or start < 0:
            literal += data[position : position + 1]
            position += 1
            continue
        length = 4
        while length < 64 and position + length < len(data) and data[start + length] == data[position + length]:
            length += 1
        back = position - start
        out += snappy_literal(literal)
        literal = b""
        if length < 12 and back < 2048:
            out += bytes([1 | length - 4 << 2 | back >> 8 << 5, back & 0xFF])
        elif position % 2 and back < 65536:
            out += bytes([2 | length - 1 << 2]) + struct.pack("<H", back)
        else:
            out += bytes([3 | length - 1 << 2]) + struct.pack("<I", back)
        position += length
    return out + snappy_literal(literal)


def snappy_literal(literal):
    if not literal:
        return b""
    size = len(literal) - 1
    return (bytes([size << 2]) if size < 60 else bytes([61 << 2]) + struct.pack("<H", size)) + literal
