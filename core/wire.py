"""What several file formats are made of: protobuf messages on the wire, and Google's masked CRC32C.

Read and written without protobuf, whose versions the frameworks do not agree on. A message is a row of fields, each a tag
(field number << 3 | wire type) and a value.
"""

from __future__ import annotations

from collections.abc import Iterator

import google_crc32c

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
