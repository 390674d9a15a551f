"""TFRecord files of tf.train.Example records, read and written without TensorFlow and without protobuf.

TensorFlow belongs to none of the backends, and its files are where pre-training data often is. A record is
  length (uint64), masked CRC32C of these 8 bytes (uint32), the data, masked CRC32C of the data (uint32)
in little-endian order, with masked(c) = rotate_right(c, 15) + 0xa282ead8, as TensorFlow's record_writer.cc has it. The data
is a protobuf message, `Example{1: Features{1: map<string, Feature>}}` of example.proto and feature.proto; a Feature is one of
`1: BytesList`, `2: FloatList`, `3: Int64List`, each `{1: repeated value}`, whose numbers may be packed or not.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import google_crc32c
import numpy as np

from ..errors import DataError

Feature = list[bytes] | np.ndarray
"""Texts, or numbers as float32 or int64."""

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_GZIP = b"\x1f\x8b"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


class _Malformed(ValueError):
    """Bytes that are no protobuf message."""


def masked_crc(data: bytes) -> int:
    """The checksum as the files hold it: masked, since a checksum of bytes that hold checksums is a weak one."""
    value = google_crc32c.value(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, data) of each record. Raises DataError, with the offset, for what is cut off or changed."""
    with path.open("rb", buffering=1 << 20) as file:
        size = file.seek(0, 2)
        offset = file.seek(0)
        while header := file.read(_HEADER.size):
            place = f"{path}: the record at byte {offset}"
            if offset == 0 and header.startswith(_GZIP):
                raise DataError(f"{path}: is compressed by gzip; unpack it first")
            if len(header) < _HEADER.size:
                raise DataError(f"{place} is cut off: {len(header)} bytes of its header are there")
            length, crc = _HEADER.unpack(header)
            if masked_crc(header[:8]) != crc:
                reason = "is no TFRecord file, or damaged" if offset == 0 else "is damaged"
                raise DataError(f"{path}: {reason}: the checksum of the length is wrong at byte {offset}")
            # Before anything is read: the length may be larger than the memory.
            if length + _FOOTER.size > size - offset - _HEADER.size:
                there = max(0, size - offset - _HEADER.size)
                raise DataError(f"{place} is cut off: {there:,} of {length + _FOOTER.size:,} bytes are there")
            data = file.read(length)
            (crc,) = _FOOTER.unpack(file.read(_FOOTER.size))
            if masked_crc(data) != crc:
                raise DataError(f"{place} is damaged: the checksum of its data is wrong")
            yield offset, data
            offset += _HEADER.size + length + _FOOTER.size


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write a file of these records."""
    with path.open("wb") as file:
        for data in records:
            length = struct.pack("<Q", len(data))
            file.write(length + _FOOTER.pack(masked_crc(length)) + data + _FOOTER.pack(masked_crc(data)))


def parse_example(data: bytes, wanted: Sequence[str] | None = None) -> dict[str, Feature | None]:
    """The features of an Example by name; of those that are not `wanted`, only the name. Raises ValueError for bytes that
    are none."""
    found: dict[str, Feature | None] = {}
    for features in _messages(data, 1):
        for entry in _messages(features, 1):
            name, feature = b"", b""
            for field, _, value in _fields(entry):
                if field == 1:
                    name = value
                elif field == 2:
                    feature = value
            text = bytes(name).decode("utf-8", errors="replace")
            found[text] = _feature(feature) if wanted is None or text in wanted else None
    return found


def make_example(features: Mapping[str, Sequence[int] | Sequence[float] | Sequence[bytes] | np.ndarray]) -> bytes:
    """The Example of these features: integers, floating-point numbers or bytes."""
    entries = b""
    for name, values in features.items():
        if len(values) and isinstance(values[0], bytes):
            kind, content = _BYTES_LIST, b"".join(_delimited(1, value) for value in values)
        elif np.asarray(values).dtype.kind == "f":
            kind, content = _FLOAT_LIST, _delimited(1, np.asarray(values, "<f4").tobytes())
        else:
            kind, content = _INT64_LIST, _delimited(1, b"".join(_varint(int(value) & (1 << 64) - 1) for value in values))
        entries += _delimited(1, _delimited(1, name.encode()) + _delimited(2, _delimited(kind, content)))
    return _delimited(1, entries)


def _delimited(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: memoryview | bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise _Malformed("a number is cut off or too long")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _fields(data: memoryview | bytes) -> Iterator[tuple[int, int, memoryview | int]]:
    """(field number, wire type, value) of a message: a number of a varint, bytes of everything else."""
    data, position = memoryview(data), 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        field, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _read_varint(data, position)
            yield field, kind, value
            continue
        if kind == _BYTES:
            length, position = _read_varint(data, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise _Malformed(f"wire type {kind} is unknown")
        if length > len(data) - position:
            raise _Malformed("a field is longer than its message")
        yield field, kind, data[position : position + length]
        position += length


def _messages(data: memoryview | bytes, wanted: int) -> Iterator[memoryview]:
    for field, kind, value in _fields(data):
        if field == wanted:
            if kind != _BYTES:
                raise _Malformed(f"field {field} is no message")
            yield value


def _feature(data: memoryview | bytes) -> Feature:
    """The value of a Feature; an empty one has no kind, and is read as no numbers."""
    for field, kind, value in _fields(data):
        if kind != _BYTES:
            raise _Malformed("a feature is no list")
        if field == _BYTES_LIST:
            return [bytes(item) for item in _messages(value, 1)]
        if field == _FLOAT_LIST:
            return np.frombuffer(b"".join(bytes(part) for part in _values(value, _FIXED32)), "<f4")
        if field == _INT64_LIST:
            parts = [np.array([part], np.uint64) if isinstance(part, int) else _varints(part) for part in _values(value, _VARINT)]
            return np.concatenate(parts or [np.zeros(0, np.uint64)]).view(np.int64)
    return np.zeros(0, np.int64)


def _values(data: memoryview, single: int) -> Iterator[memoryview | int]:
    for field, kind, value in _fields(data):
        if field == 1:
            if kind not in (_BYTES, single) or (single == _FIXED32 and len(value) % 4):
                raise _Malformed("a list of numbers is not one")
            yield value


def _varints(packed: memoryview) -> np.ndarray:
    """The numbers of a packed list: (numbers,) uint64."""
    data = np.frombuffer(packed, np.uint8)
    if not len(data) or data.max() < 0x80:  # masks and segments: each byte is a number
        return data.astype(np.uint64)
    ends = np.flatnonzero(data < 0x80)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise _Malformed("a packed list is cut off")
    sizes = np.diff(ends, prepend=-1)
    starts = ends - sizes + 1
    if sizes.max() > 10:
        raise _Malformed("a number is too long")
    places = (np.arange(len(data)) - np.repeat(starts, sizes)).astype(np.uint64)
    return np.add.reduceat((data & 0x7F).astype(np.uint64) << places * np.uint64(7), starts)
