"""TFRecord files of tf.train.Example records, read and written without TensorFlow and without protobuf.

TensorFlow belongs to none of the backends, and its files are where pre-training data often is. A record is
  length (uint64), masked CRC32C of these 8 bytes (uint32), the data, masked CRC32C of the data (uint32)
in little-endian order, with masked(c) = rotate_right(c, 15) + 0xa282ead8, as TensorFlow's record_writer.cc has it. The data
is a protobuf message, `Example{1: Features{1: map<string, Feature>}}` of example.proto and feature.proto; a Feature is one of
`1: BytesList`, `2: FloatList`, `3: Int64List`, each `{1: repeated value}`, whose numbers may be packed or not.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import DataError
from ...wire import BYTES, FIXED32, Malformed, delimited, fields, integers, masked_crc, messages, number_fields, varints

Feature = list[bytes] | np.ndarray
"""Texts, or numbers as float32 or int64."""

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_GZIP = b"\x1f\x8b"
_BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3


def read_records(path: Path, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, data) of each record, or of those between two bytes at which records begin. Raises DataError, with
    the offset, for what is cut off or changed."""
    with path.open("rb", buffering=1 << 20) as file:
        for offset, length in _headers(path, file, start, stop):
            data = file.read(length)
            (crc,) = _FOOTER.unpack(file.read(_FOOTER.size))
            if masked_crc(data) != crc:
                raise DataError(f"{path}: the record at byte {offset} is damaged: the checksum of its data is wrong")
            yield offset, data


def record_starts(path: Path) -> Iterator[int]:
    """The offset in the file of each record, without reading what they hold. Raises DataError as `read_records`."""
    with path.open("rb", buffering=1 << 16) as file:
        for offset, length in _headers(path, file, 0, None):
            yield offset
            file.seek(offset + _HEADER.size + length + _FOOTER.size)


def _headers(path: Path, file: BinaryIO, start: int, stop: int | None) -> Iterator[tuple[int, int]]:
    """(offset, bytes of the data) of each record; whoever asks for the next one has put the file behind this one."""
    size = file.seek(0, 2)
    offset = file.seek(start)
    while (stop is None or offset < stop) and (header := file.read(_HEADER.size)):
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
        yield offset, length
        offset += _HEADER.size + length + _FOOTER.size


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write a file of these records."""
    with path.open("wb") as file:
        for data in records:
            file.write(framed(data))


def framed(data: bytes) -> bytes:
    """A record as it lies in a file: between its length and its checksums."""
    return b"".join((record_header(len(data)), data, _FOOTER.pack(masked_crc(data))))


@functools.lru_cache(maxsize=4096)
def record_header(size: int) -> bytes:
    """What stands before a record of `size` bytes."""
    length = struct.pack("<Q", size)
    return length + _FOOTER.pack(masked_crc(length))


def parse_example(data: bytes, wanted: Sequence[str] | None = None) -> dict[str, Feature | None]:
    """The features of an Example by name; of those that are not `wanted`, only the name. Raises ValueError for bytes that
    are none."""
    found: dict[str, Feature | None] = {}
    for features in messages(data, 1):
        for entry in messages(features, 1):
            name, feature = b"", b""
            for field, kind, value in fields(entry):
                if field in (1, 2) and kind != BYTES:
                    raise Malformed(f"an entry has a field {field} of wire type {kind}")
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
            kind, content = _BYTES_LIST, b"".join(delimited(1, value) for value in values)
        elif np.asarray(values).dtype.kind == "f":
            kind, content = _FLOAT_LIST, delimited(1, np.asarray(values, "<f4").tobytes())
        else:
            kind, content = _INT64_LIST, delimited(1, varints(values))
        entries += delimited(1, delimited(1, name.encode()) + delimited(2, delimited(kind, content)))
    return delimited(1, entries)


def _feature(data: memoryview | bytes) -> Feature:
    """The value of a Feature; an empty one has no kind, and is read as no numbers."""
    for field, kind, value in fields(data):
        if kind != BYTES:
            raise Malformed("a feature is no list")
        if field == _BYTES_LIST:
            return [bytes(item) for item in messages(value, 1)]
        if field == _FLOAT_LIST:
            return np.frombuffer(b"".join(bytes(part) for part in number_fields(value, FIXED32)), "<f4")
        if field == _INT64_LIST:
            return integers(value)
    return np.zeros(0, np.int64)
