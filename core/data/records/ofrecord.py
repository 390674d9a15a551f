"""OFRecord files, OneFlow's records, read and written without OneFlow and without protobuf.

A record is
  length (int64, little-endian), the data
and nothing else: no checksum and no mark at the file's beginning. The data is a protobuf message of OneFlow's record.proto,
`OFRecord{1: map<string, Feature>}`; a Feature is one of `1: BytesList`, `2: FloatList`, `3: DoubleList`, `4: Int32List`,
`5: Int64List`, each `{1: repeated value}`, whose numbers may be packed or not.

`nn.OFRecordReader` reads files named `<prefix><number>` in a folder, numbered from 0. Since nothing else would tell damage, what
protobuf takes in silence is an error here: a field that the format does not have, a feature that is there twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...shown import shown
from ...wire import BYTES, FIXED32, FIXED64, Malformed, delimited, fields, integers, number_fields, varints

Feature = list[bytes] | np.ndarray
"""Texts, or numbers as float32, float64, int32 or int64."""

_HEADER = struct.Struct("<q")
_BYTES_LIST, _FLOAT_LIST, _DOUBLE_LIST, _INT32_LIST, _INT64_LIST = 1, 2, 3, 4, 5
_KINDS = {
    np.dtype(np.float32): _FLOAT_LIST,
    np.dtype(np.float64): _DOUBLE_LIST,
    np.dtype(np.int32): _INT32_LIST,
    np.dtype(np.int64): _INT64_LIST,
}


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """(offset in the file, data) of each record. Raises DataError, with the offset, for what is cut off or no record."""
    with path.open("rb", buffering=1 << 20) as file:
        size = file.seek(0, 2)
        offset = file.seek(0)
        while header := file.read(_HEADER.size):
            place = f"{path}: the record at byte {offset}"
            if len(header) < _HEADER.size:
                raise DataError(f"{place} is cut off: {len(header)} of the {_HEADER.size} bytes of its length are there")
            (length,) = _HEADER.unpack(header)
            there = size - offset - _HEADER.size
            # Before anything is read: the length may be larger than the memory.
            if not 0 <= length <= there:
                reason = "is no OFRecord file, or damaged" if offset == 0 else "is damaged or cut off"
                raise DataError(
                    f"{path}: {reason}: the record at byte {offset} has a length of {length:,} bytes, but {there:,} are there"
                )
            yield offset, file.read(length)
            offset += _HEADER.size + length


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Write a file of these records."""
    with path.open("wb") as file:
        for data in records:
            file.write(_HEADER.pack(len(data)) + data)


def parse_record(data: bytes) -> dict[str, Feature]:
    """The features of a record by name. Raises Malformed for bytes that are none."""
    found: dict[str, Feature] = {}
    for field, kind, entry in fields(data):
        if (field, kind) != (1, BYTES):
            raise Malformed(f"it has a field {field} of wire type {kind}")
        name, feature = b"", b""
        for part, part_kind, value in fields(entry):
            if part not in (1, 2) or part_kind != BYTES:
                raise Malformed(f"an entry has a field {part} of wire type {part_kind}")
            if part == 1:
                name = value
            else:
                feature = value
        try:
            text = bytes(name).decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("a feature's name is not UTF-8") from None
        if text in found:
            raise Malformed(f"the feature {shown(text, 80)} is there twice")
        found[text] = _feature(feature)
    return found


def make_record(features: Mapping[str, Sequence[bytes] | np.ndarray]) -> bytes:
    """The record of these features, which are texts, or numbers of a type that the format has."""
    entries = []
    for name, values in features.items():
        if isinstance(values, np.ndarray):
            kind = _KINDS[values.dtype]
            content = values.astype(values.dtype.newbyteorder("<")).tobytes() if values.dtype.kind == "f" else varints(values)
            content = delimited(1, content)
        else:
            kind, content = _BYTES_LIST, b"".join(delimited(1, value) for value in values)
        entries.append(delimited(1, delimited(1, name.encode()) + delimited(2, delimited(kind, content))))
    return b"".join(entries)


def _feature(data: memoryview | bytes) -> Feature:
    """The value of a Feature; an empty one has no kind, and is read as no numbers."""
    lists = list(fields(data))
    if not lists:
        return np.zeros(0, np.int32)
    if len(lists) > 1:
        raise Malformed("a feature has several lists")
    ((field, kind, value),) = lists
    if kind != BYTES or field not in (_BYTES_LIST, *_KINDS.values()):
        raise Malformed(f"a feature has a field {field} of wire type {kind}")
    if any(part != 1 for part, _, _ in fields(value)):
        raise Malformed("a list has a field that is no value")
    if field == _BYTES_LIST:
        parts = [(part_kind, part) for _, part_kind, part in fields(value)]
        if any(part_kind != BYTES for part_kind, _ in parts):
            raise Malformed("a list of bytes is not one")
        return [bytes(part) for _, part in parts]
    if field in (_FLOAT_LIST, _DOUBLE_LIST):
        single, dtype = (FIXED32, "<f4") if field == _FLOAT_LIST else (FIXED64, "<f8")
        return np.frombuffer(b"".join(bytes(part) for part in number_fields(value, single)), dtype)
    numbers = integers(value)
    if field == _INT64_LIST:
        return numbers
    if len(numbers) and not -(1 << 31) <= numbers.min() <= numbers.max() < 1 << 31:
        raise Malformed("a number has more than 32 bits")
    return numbers.astype(np.int32)
