"""What several file formats are made of: protobuf messages on the wire, and Google's masked CRC32C.

Read and written without protobuf, whose versions the frameworks do not agree on. A message is a row of fields, each a tag
(field number << 3 | wire type) and a value.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c
import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""


class Malformed(ValueError):
    """Bytes that are no protobuf message."""


def masked_crc(data: bytes | memoryview) -> int:
    """CRC32C as TFRecord and TensorFlow's checkpoints hold it: masked, since a checksum of bytes that hold checksums is a
    weak one; rotate_right(crc, 15) + 0xa282ead8."""
    return mask_crc(google_crc32c.value(bytes(data)))


def mask_crc(value: int) -> int:
    """The masked form of a CRC32C."""
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    """A number of at least 0, seven bits a byte."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def delimited(field: int, content: bytes) -> bytes:
    """A field of bytes: text, a message, packed numbers."""
    return varint(field << 3 | BYTES) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    """A field of an integer; negative ones as 64 bits."""
    return varint(field << 3 | VARINT) + varint(value & (1 << 64) - 1)


def read_varint(data: memoryview | bytes, position: int) -> tuple[int, int]:
    """(value, position behind it). Raises Malformed."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise Malformed("a number is cut off or too long")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise Malformed("a number has more than 64 bits")
            return value, position
        shift += 7


def fields(data: memoryview | bytes) -> Iterator[tuple[int, int, memoryview | int]]:
    """(field number, wire type, value) of a message: a number of a varint, bytes of everything else."""
    data, position = memoryview(data), 0
    while position < len(data):
        tag, position = read_varint(data, position)
        field, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, position = read_varint(data, position)
            yield field, kind, value
            continue
        if kind == BYTES:
            length, position = read_varint(data, position)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise Malformed(f"wire type {kind} is unknown")
        if length > len(data) - position:
            raise Malformed("a field is longer than its message")
        yield field, kind, data[position : position + length]
        position += length


def messages(data: memoryview | bytes, wanted: int) -> Iterator[memoryview]:
    """The values of field `wanted`, which must be bytes."""
    for field, kind, value in fields(data):
        if field == wanted:
            if kind != BYTES:
                raise Malformed(f"field {field} is no message")
            yield value


def number_fields(data: memoryview | bytes, single: int) -> Iterator[memoryview | int]:
    """The values of field 1, `repeated` and numeric, whose wire type is `single` or which are packed: several in one piece."""
    for field, kind, value in fields(data):
        if field == 1:
            width = {FIXED32: 4, FIXED64: 8}.get(single, 1)
            if kind not in (BYTES, single) or (kind == BYTES and len(value) % width):
                raise Malformed("a list of numbers is not one")
            yield value


def integers(data: memoryview | bytes) -> np.ndarray:
    """The integers of a message whose field 1 is a repeated one, packed or not: (numbers,) int64."""
    parts = [
        np.array([part], np.uint64) if isinstance(part, int) else read_varints(part) for part in number_fields(data, VARINT)
    ]
    return np.concatenate(parts or [np.zeros(0, np.uint64)]).view(np.int64)


def read_varints(packed: memoryview | bytes) -> np.ndarray:
    """The numbers of a packed list: (numbers,) uint64. Raises Malformed."""
    data = np.frombuffer(packed, np.uint8)
    if not len(data) or data.max() < 0x80:  # masks and segments: each byte is a number
        return data.astype(np.uint64)
    ends = np.flatnonzero(data < 0x80)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise Malformed("a packed list is cut off")
    sizes = np.diff(ends, prepend=-1)
    starts = ends - sizes + 1
    if sizes.max() > 10:
        raise Malformed("a number is too long")
    places = (np.arange(len(data)) - np.repeat(starts, sizes)).astype(np.uint64)
    return np.add.reduceat((data & 0x7F).astype(np.uint64) << places * np.uint64(7), starts)


def varints(numbers: np.ndarray) -> bytes:
    """Integers (numbers,) one after the other, as a packed list has them; negative ones as 64 bits."""
    values = np.asarray(numbers, np.int64).view(np.uint64)
    if not len(values) or values.max() < 0x80:
        return values.astype(np.uint8).tobytes()
    groups = values[:, None] >> np.arange(0, 70, 7, dtype=np.uint64)  # (numbers, 10)
    used = groups > 0
    used[:, 0] = True
    content = groups & np.uint64(0x7F)
    content[:, :-1] |= np.where(used[:, 1:], np.uint64(0x80), np.uint64(0))
    return content[used].astype(np.uint8).tobytes()
