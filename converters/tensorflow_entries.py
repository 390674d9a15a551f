"""The messages in the index of a TensorFlow checkpoint, as bytes and as values, and the parts of partitioned variables.

As tensor_bundle.proto, tensor_shape.proto and tensor_slice.proto have them:
  BundleHeaderProto{1: number of shards, 2: endianness (0 little), 3: version{1: producer, 2: oldest consumer}}
  BundleEntryProto{1: type, 2: shape{2: dimension{1: size}, 3: unknown rank}, 3: shard, 4: offset, 5: size, 6: masked CRC32C,
                   7: slice{1: extent{1: start, 2: length, missing where it is everything}}}
What is 0 is left out. An entry with slices is of a partitioned variable and has no data of its own; each part has an entry.
The key of a part is, in an encoding that sorts as its content does, 0, the name, the number of dimensions, and start and length
in each; a length of -1 is everything.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ..core.wire import FIXED32, VARINT, Malformed, delimited, fields, messages, number, varint

TYPES = {
    1: "F32",
    2: "F64",
    3: "I32",
    4: "U8",
    5: "I16",
    6: "I8",
    9: "I64",
    10: "BOOL",
    14: "BF16",
    17: "U16",
    19: "F16",
    22: "U32",
    23: "U64",
}
"""TensorFlow's number of a type -> a key of DTYPES."""
TEXT = 7
OTHER_TYPES = {TEXT: "DT_STRING", 8: "DT_COMPLEX64", 18: "DT_COMPLEX128", 20: "DT_RESOURCE", 21: "DT_VARIANT"}

_NUMBERS = {name: value for value, name in TYPES.items()}
_VERSION = 1
_SHARDS, _ENDIANNESS, _HEADER_VERSION, _PRODUCER, _OLDEST_CONSUMER = 1, 2, 3, 1, 2
_TYPE, _SHAPE, _SHARD, _OFFSET, _SIZE, _CRC, _SLICES = 1, 2, 3, 4, 5, 6, 7
_DIMENSION, _UNKNOWN_RANK, _DIMENSION_SIZE = 2, 3, 1
_EXTENT, _START, _LENGTH = 1, 1, 2

Extents = tuple[tuple[int, int | None], ...]
"""(start, length) in each dimension; the length is None where it is everything."""


@dataclass(frozen=True)
class Entry:
    """What the index says of a tensor, or of a part of one."""

    type: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    """Masked."""
    slices: tuple[Extents, ...] = ()


def read_header(data: bytes | None) -> int:
    """The number of shards. Raises Malformed."""
    if data is None:
        raise Malformed("it has no header")
    values = _numbers(data, _SHARDS, _ENDIANNESS)
    if values[_ENDIANNESS]:
        raise Malformed("its numbers are big-endian; only little-endian ones are read")
    for version in messages(data, _HEADER_VERSION):
        oldest = _numbers(version, _OLDEST_CONSUMER)[_OLDEST_CONSUMER]
        if oldest > _VERSION:
            raise Malformed(f"it asks for version {oldest} of the format, and {_VERSION} is known")
    return values[_SHARDS]


def write_header(shards: int) -> bytes:
    """The header of as many shards."""
    return number(_SHARDS, shards) + delimited(_HEADER_VERSION, number(_PRODUCER, _VERSION))


def read_entry(data: bytes) -> Entry:
    """Raises Malformed."""
    values = _numbers(data, _TYPE, _SHARD, _OFFSET, _SIZE)
    shape: tuple[int, ...] = ()
    for message in messages(data, _SHAPE):
        if _numbers(message, _UNKNOWN_RANK)[_UNKNOWN_RANK]:
            raise Malformed("its shape is not known")
        shape = tuple(_numbers(dimension, _DIMENSION_SIZE)[_DIMENSION_SIZE] for dimension in messages(message, _DIMENSION))
    crc = 0
    for field, kind, value in fields(data):
        if field == _CRC:
            if kind != FIXED32:
                raise Malformed("its checksum has another size")
            (crc,) = struct.unpack("<I", value)
    slices = tuple(tuple(map(_read_extent, messages(part, _EXTENT))) for part in messages(data, _SLICES))
    return Entry(values[_TYPE], shape, values[_SHARD], values[_OFFSET], values[_SIZE], crc, slices)


def write_entry(dtype: str, shape: Sequence[int], shard: int, offset: int, size: int, crc: int) -> bytes:
    """The entry of a whole tensor; `crc` is masked."""
    dimensions = b"".join(delimited(_DIMENSION, _number(_DIMENSION_SIZE, length)) for length in shape)
    checksum = varint(_CRC << 3 | FIXED32) + struct.pack("<I", crc)
    place = _number(_SHARD, shard) + _number(_OFFSET, offset) + _number(_SIZE, size)
    return number(_TYPE, _NUMBERS[dtype]) + delimited(_SHAPE, dimensions) + place + checksum


def _number(field: int, value: int) -> bytes:
    return number(field, value) if value else b""


def _numbers(data: bytes | memoryview, *wanted: int) -> dict[int, int]:
    """The fields `wanted`, each a number; 0 for one that is missing."""
    found = dict.fromkeys(wanted, 0)
    for field, kind, value in fields(data):
        if field in found:
            if kind != VARINT:
                raise Malformed(f"field {field} is no number")
            found[field] = value
    return found


def _read_extent(data: memoryview) -> tuple[int, int | None]:
    start, length = 0, None
    for field, kind, value in fields(data):
        if field in (_START, _LENGTH):
            if kind != VARINT:
                raise Malformed(f"field {field} is no number")
            value -= value >> 63 << 64
            start, length = (value, length) if field == _START else (start, value)
    return start, length


# ---------------------------------------------------------------------------------------------- parts

def is_part(key: bytes) -> bool:
    """Whether the key is one of a part, which no name can be."""
    return key.startswith(b"\0")


def part_key(name: str, extents: Extents) -> bytes:
    """The key of a part."""
    text = name.encode().replace(b"\xff", b"\xff\0").replace(b"\0", b"\0\xff")
    numbers = b"".join(_ordered(start) + _ordered(-1 if length is None else length) for start, length in extents)
    dimensions = len(extents).to_bytes((len(extents).bit_length() + 7) // 8, "big")
    return b"\0" + text + b"\0\x01" + bytes([len(dimensions)]) + dimensions + numbers


def _ordered(value: int) -> bytes:
    """A number of 64 bits with its sign: as many bytes as it needs, their count in the bits at the front."""
    size = (~value if value < 0 else value).bit_length() // 7 + 1
    header = ((1 << size) - 1) << (10 * 8 - size) >> (10 - size) * 8
    return ((value & (1 << size * 8) - 1) ^ header & (1 << size * 8) - 1).to_bytes(size, "big")


def is_grid(parts: Sequence[Sequence[tuple[int, int]]], shape: Sequence[int]) -> bool:
    """Whether the parts, (start, length) in each dimension, make the whole without gaps and overlaps: rows of rows."""
    if not shape:
        return len(parts) == 1
    rows: dict[tuple[int, int], list[Sequence[tuple[int, int]]]] = {}
    for first, *rest in parts:
        rows.setdefault(first, []).append(rest)
    behind = 0
    for (start, length), row in sorted(rows.items()):
        if start != behind or length < 0 or not is_grid(row, shape[1:]):
            return False
        behind += length
    return behind == shape[0]
