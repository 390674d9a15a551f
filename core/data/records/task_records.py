"""A task's examples as records of tokens, and back: the features of Google's run_classifier.py.

  input_ids, input_mask, segment_ids   max_length integers: `[CLS] text [SEP] pair [SEP]`, padded; 1 at tokens; 1 at the pair
  label_ids          the class; of a regression the score as a float; of several labels one 0 or 1 for each
  is_real_example    0 marks a row that only fills a batch up, which is left out here
Integers are int64 in TFRecord files and int32 in OFRecord and MindRecord files. A split without labels has zeros.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...kinds.kind import Kind
from ...kinds.known_kinds import kind_titled
from ..token_cache import TABLE_ARRAYS, Arrays, cached_arrays, update_with_file
from ..token_table import TokenTable
from . import ofrecord, tfrecord
from .record_note import RecordNote, first_damage
from .record_rows import integer_feature, token_row

Features = Mapping[str, list[bytes] | np.ndarray]
_LAYOUT = 1  # of a cache entry: one more whenever the same files give others
_AT_ONCE = 4096
_FILES = {"tfrecord": "{split}.tfrecord", "ofrecord": "{split}.of_record-0", "mindrecord": "{split}.mindrecord"}
"""OneFlow's reader asks for a number at the end."""


@dataclass(frozen=True)
class Shape:
    """What a record must be."""

    vocabulary: int
    max_length: int
    kind: Kind
    outputs: int
    """Classes, or labels that an example may have, or 1 score."""


@dataclass(frozen=True)
class RecordTokens:
    """A split that is tokens already."""

    table: TokenTable
    note: RecordNote
    source: Path

    def fitting(self, tokenizer, max_length: int) -> TokenTable:
        """The table, for a model with that tokenizer. Raises DataError where the records are not what it would make."""
        if tokenizer.is_words:
            raise DataError(f"task.data: {self.source}: its records are of word pieces, but this tokenizer has whole words")
        if not tokenizer.is_berts:
            reason = f"its records are of BERT's word pieces, but this is a {tokenizer.kind} tokenizer with other special tokens"
            raise DataError(f"task.data: {self.source}: {reason}")
        problems = self.note.fit_problems(tokenizer.library, max_length)
        if problems:
            raise DataError("\n".join(f"task.data: {self.source}: {problem}" for problem in problems))
        return replace(self.table, pad_id=tokenizer.pad_id)


def file_name(format: str, split: str) -> str:
    """What an exported file is called."""
    return _FILES[format].format(split=split)


def read_recorded(folder: Path, note: RecordNote, split: str) -> tuple[RecordTokens, np.ndarray | None]:
    """(tokens, labels) of a split of a folder of records, from the cache or put there. Raises DataError for anything that is
    not as it was written."""
    found = note.splits[split]
    path = folder / found.file
    if note.format == "mindrecord":
        raise DataError(f"{path}: only MindSpore reads MindRecord; make another format of it: crossdistil data import")
    damage = first_damage(path, found)
    if damage is not None:
        for _ in record_features([path], note.format):  # names the place, where the damage is one of the format
            pass
        raise DataError(f"{path}: {damage}")
    kind = kind_titled(note.kind)
    shape = Shape(note.vocabulary.size, note.max_length, kind, kind.outputs(note.labels))
    key = hashlib.sha256(f"records {_LAYOUT} {note.format} {shape} {found.crc32c}".encode())
    update_with_file(key, path)
    arrays = cached_arrays(
        "records", key.hexdigest(), None, array_types(shape), lambda: rows_of(record_features([path], note.format), shape)
    )
    table, labels = split_arrays(arrays, shape)
    if len(table.lengths) != found.rows:
        raise DataError(f"{path}: has {len(table.lengths):,} records, but records.json says {found.rows:,}")
    if not found.rows:
        raise DataError(f"{path}: holds no records")
    return RecordTokens(table, note, path), labels if found.labelled else None


def record_features(paths: Iterable[Path], format: str) -> Iterator[tuple[str, Features]]:
    """(file and record for errors, features) of each record of TFRecord or OFRecord files."""
    for path in paths:
        try:
            for offset, data in (tfrecord if format == "tfrecord" else ofrecord).read_records(path):
                place = f"{path}: the record at byte {offset}"
                try:
                    yield place, tfrecord.parse_example(data) if format == "tfrecord" else ofrecord.parse_record(data)
                except ValueError as error:
                    raise DataError(f"{place}: is damaged or no {format}: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def array_types(shape: Shape) -> dict[str, np.dtype]:
    """The arrays that `rows_of` gives pieces of."""
    return {**TABLE_ARRAYS, "labels": shape.kind.target_type}


def split_arrays(arrays: Arrays, shape: Shape) -> tuple[TokenTable, np.ndarray]:
    """(table, labels) of those arrays."""
    table = TokenTable(**{name: arrays[name] for name in TABLE_ARRAYS})
    size = shape.kind.record_size(shape.outputs)
    return table, np.asarray(arrays["labels"]).reshape((-1, size) if size > 1 else -1)


def rows_of(records: Iterable[tuple[str, Features]], shape: Shape) -> Iterator[Arrays]:
    """Pieces of the arrays of a split, each record checked. Raises DataError that names the file and the record."""
    yield {"offsets": np.zeros(1, np.int64)}
    rows: list[tuple[np.ndarray, int]] = []
    labels: list[np.ndarray] = []
    total = 0

    def piece() -> Arrays:
        ends = total + np.cumsum([len(ids) for ids, _ in rows])
        firsts = np.array([first for _, first in rows])
        return {
            "ids": np.concatenate([ids for ids, _ in rows]),
            "offsets": ends,
            "first_lengths": firsts,
            "labels": np.concatenate(labels),
        }

    for place, features in records:
        features = {name: _wide(values) for name, values in features.items()}
        if "is_real_example" in features and not integer_feature(place, features, "is_real_example").any():
            continue
        length = len(integer_feature(place, features, "input_ids"))
        if length != shape.max_length:
            raise DataError(f"{place}: input_ids has {length} numbers, expected {shape.max_length}")
        rows.append(token_row(place, features, shape.vocabulary, shape.max_length))
        labels.append(_label(place, features, shape))
        if len(rows) >= _AT_ONCE:
            found = piece()
            yield found
            total += len(found["ids"])
            rows, labels = [], []
    if rows:
        yield piece()


def make_rows(table: TokenTable, labels: np.ndarray | None, shape: Shape) -> Iterator[dict[str, np.ndarray]]:
    """The features of each row of a table, integers as int32."""
    positions = np.arange(shape.max_length)
    nothing = np.zeros(shape.kind.record_size(shape.outputs), shape.kind.record_type)
    for row, (start, end) in enumerate(zip(table.offsets[:-1], table.offsets[1:])):
        length, first = end - start, table.first_lengths[row]
        ids = np.full(shape.max_length, table.pad_id, np.int32)
        ids[:length] = table.ids[start:end]
        yield {
            "input_ids": ids,
            "input_mask": (positions < length).astype(np.int32),
            "segment_ids": ((positions >= first) & (positions < length)).astype(np.int32),
            "label_ids": nothing if labels is None else np.atleast_1d(labels[row]).astype(nothing.dtype),
            "is_real_example": np.ones(1, np.int32),
        }


def write_rows(path: Path, format: str, rows: Iterable[dict[str, np.ndarray]]) -> None:
    """Write a TFRecord or OFRecord file of these features."""
    if format == "tfrecord":
        tfrecord.write_records(path, map(tfrecord.make_example, rows))
    else:
        ofrecord.write_records(path, map(ofrecord.make_record, rows))


def _wide(values: list[bytes] | np.ndarray) -> list[bytes] | np.ndarray:
    is_narrow = isinstance(values, np.ndarray) and values.dtype.kind == "i"
    return values.astype(np.int64) if is_narrow else values


def _label(place: str, features: Features, shape: Shape) -> np.ndarray:
    expected, limit = shape.kind.record_size(shape.outputs), shape.kind.record_limit(shape.outputs)
    if limit is None:
        values = features.get("label_ids")
        if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise DataError(f"{place}: label_ids is no list of finite floating-point numbers, as {shape.kind.described} has")
    else:
        values = integer_feature(place, features, "label_ids")
    if len(values) != expected:
        raise DataError(f"{place}: label_ids has {len(values)} numbers, expected {expected}")
    if limit is not None and not 0 <= values.min() <= values.max() < limit:
        wrong = values.min() if values.min() < 0 else values.max()
        raise DataError(f"{place}: label_ids has {wrong}, expected 0 to {limit - 1}")
    return values
