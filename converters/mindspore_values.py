"""The values in a MindSpore `.ckpt` file, found by tags and lengths alone: what they hold stays in the file.

A file is one protobuf message, `Checkpoint{1: repeated Value}`, written value by value:
  Value{1: tag, 2: TensorProto, 3: MapTensorProto}; TensorProto{1: repeated dims, 2: tensor_type, 3: tensor_content}
Fields beyond these are refused and the others counted, since a file's bytes decide how much work it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..core.errors import CheckpointError
from ..core.shown import shown
from ..core.wire import BYTES, VARINT, Malformed, read_varint

VALUE = 1
TAG, TENSOR, MAP_TENSOR = 1, 2, 3
DIMS, TYPE, CONTENT = 1, 2, 3
MAX_TAG, MAX_TYPE = 1 << 12, 1 << 6
"""Bytes of a name."""

_MAX_VALUES, _MAX_DIMENSIONS = 1 << 20, 32


class Span(NamedTuple):
    """Bytes of the file that were not read."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many."""
        return self.stop - self.start


@dataclass
class Entry:
    """One tag, with the content of all the values that follow each other with it."""

    tag: str
    dims: tuple[int, ...]
    kind: str | None
    """Type of the elements; None of a MapTensor."""
    parts: list[Span]


def read_entries(file: BinaryIO, end: int, path: Path) -> list[Entry]:
    """All entries of a message that is the first `end` bytes of a file. Raises CheckpointError."""
    entries: dict[str, Entry] = {}
    last, place = None, "its beginning"
    try:
        for count, (field, span) in enumerate(_fields(file, Span(0, end))):
            if count == _MAX_VALUES:
                raise Malformed(f"there are more than {_MAX_VALUES:,} values")
            if field != VALUE or not isinstance(span, Span):
                raise Malformed(f"there is a field {field}, which a checkpoint does not have")
            place = f"the value at byte {span.start:,}"
            entry = _read_value(file, span)
            place = f"{shown(entry.tag)}"
            if last is not None and entry.tag == last.tag:
                if (entry.dims, entry.kind) != (last.dims, last.kind):
                    raise Malformed("its parts differ in shape or type")
                last.parts += entry.parts
            elif entry.tag in entries:
                raise Malformed("it is there twice")
            else:
                last = entries[entry.tag] = entry
            place = f"what follows {shown(entry.tag)}"
    except Malformed as error:
        raise CheckpointError(f"{path}: {place}: {error}; it is no MindSpore checkpoint, or damaged or cut off") from error
    if not entries:
        raise CheckpointError(f"{path}: is empty; expected a MindSpore checkpoint")
    return list(entries.values())


def _read_value(file: BinaryIO, span: Span) -> Entry:
    found = {}
    for field, value in _fields(file, span):
        if field not in (TAG, TENSOR, MAP_TENSOR):
            raise Malformed(f"field {field} is none of a value")
        _keep(found, field, value)
    if TAG not in found or len(found) != 2:
        raise Malformed("it has not one tag and one tensor")
    tag = _text(file, found[TAG], MAX_TAG)
    if MAP_TENSOR in found:
        return Entry(tag, (), None, [found[MAP_TENSOR]])
    try:
        dims, kind, content = _read_tensor(file, found[TENSOR])
    except Malformed as error:
        raise Malformed(f"{shown(tag)}: {error}") from error
    return Entry(tag, dims, kind, [content])


def _read_tensor(file: BinaryIO, span: Span) -> tuple[tuple[int, ...], str, Span]:
    dims, found = [], {}
    for field, value in _fields(file, span):
        if field == DIMS and not isinstance(value, Span):
            dims.append(value)
            if len(dims) > _MAX_DIMENSIONS:
                raise Malformed(f"it has more than {_MAX_DIMENSIONS} dimensions")
        elif field in (TYPE, CONTENT):
            _keep(found, field, value)
        else:
            raise Malformed(f"field {field} is none of a tensor")
    if len(found) != 2:
        raise Malformed("it has no type or no content")
    return tuple(dims), _text(file, found[TYPE], MAX_TYPE), found[CONTENT]


def _keep(found: dict[int, Span], field: int, value: int | Span) -> None:
    if field in found or not isinstance(value, Span):
        raise Malformed(f"field {field} is there twice, or a number")
    found[field] = value


def _fields(file: BinaryIO, span: Span) -> Iterator[tuple[int, int | Span]]:
    """(field number, number or place of the bytes) of a message. Raises Malformed."""
    position = span.start
    while position < span.stop:
        tag, position = _read_varint(file, position, span.stop)
        field, wire_type = tag >> 3, tag & 7
        if wire_type not in (VARINT, BYTES):
            raise Malformed(f"wire type {wire_type} at byte {position:,} is none of a checkpoint")
        value, position = _read_varint(file, position, span.stop)
        if wire_type == VARINT:
            yield field, value
            continue
        if value > span.stop - position:
            raise Malformed(f"{value:,} bytes are announced at byte {position:,}, but {span.stop - position:,} are left")
        yield field, Span(position, position + value)
        position += value


def _read_varint(file: BinaryIO, position: int, end: int) -> tuple[int, int]:
    file.seek(position)
    value, size = read_varint(file.read(min(10, end - position)), 0)
    return value, position + size


def _text(file: BinaryIO, span: Span, limit: int) -> str:
    if span.size > limit:
        raise Malformed(f"a name is {span.size:,} bytes long")
    file.seek(span.start)
    try:
        return file.read(span.size).decode()
    except UnicodeDecodeError:
        raise Malformed("a name is not UTF-8") from None
