"""What `crossdistil data export` and `data import` do: a task's tokens to a folder of record files, and such files back.

Records that others made have no note (`core.data.records.record_note`): their files are known by the names that run_classifier.py
(`train.tf_record`, `eval.tf_record`, `predict.tf_record`) and OneFlow's scripts (`train/train.of_record-0`) give them, and what
they are of is what the user says, checked against every record.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...backends.registry import load_module
from ..data.folders import folder_contents
from ..data.records.record_note import NOTE, RecordNote, SplitNote, VocabularyNote, block_checksums, first_damage, read_note
from ..data.records.record_texts import check_cells, check_ends, decoded, write_table
from ..data.records.task_records import (
    Features,
    Shape,
    array_types,
    file_name,
    make_rows,
    record_features,
    rows_of,
    split_arrays,
    write_rows,
)
from ..data.tasks import TaskSpec, read_split
from ..data.token_cache import gathered
from ..data.token_table import TokenTable
from ..data.tokenize import Tokenizer, tokenized
from ..errors import DataError
from ..files import replace_folder

_NAMES = {"train": "train", "eval": "dev", "dev": "dev", "predict": "test", "test": "test"}
_PATTERNS = {
    "ofrecord": re.compile(r"(train|eval|dev|predict|test)[^/]*of_?record[^/]*|part-\d+", re.IGNORECASE),
    "tfrecord": re.compile(r"(train|eval|dev|predict|test)[^/]*tf_?rec(ord)?[^/]*", re.IGNORECASE),
    "mindrecord": re.compile(r"(train|eval|dev|predict|test)[^/]*mindrecord\d*", re.IGNORECASE),
}


@dataclass(frozen=True)
class Split:
    """A split as tokens."""

    table: TokenTable
    labels: np.ndarray | None
    notes: tuple[str, ...] = ()
    """What a person is told of the reading, as rows that are left out."""


@dataclass(frozen=True)
class Found:
    """Record files of a folder."""

    format: str
    files: dict[str, list[Path]]
    note: RecordNote | None


def task_splits(spec: TaskSpec, data: Path, tokenizer: Tokenizer, max_length: int) -> dict[str, Split]:
    """The splits of a task whose files are there, tokenized. Train and dev must be."""
    splits = {}
    for split, name in spec.splits.items():
        if split in ("train", "dev") or (data / name).is_file():
            examples = read_split(spec, data, split)
            splits[split] = Split(tokenized(examples, tokenizer, max_length), examples.labels, examples.notes)
    for split in ("train", "dev"):
        if split not in splits:
            raise DataError(f"{data}: task '{spec.name}' has no file for the split '{split}'; {folder_contents(data)}")
    return splits


def write_records(
    out: Path, spec: TaskSpec, splits: dict[str, Split], tokenizer: Tokenizer, max_length: int, format: str
) -> RecordNote:
    """Write a folder of record files and their note, in place of what is there; whole or not at all."""
    shape = Shape(tokenizer.vocab_size, max_length, spec.kind, spec.kind.outputs(spec.labels))
    notes = {}
    with replace_folder(out) as temporary:
        for split, found in splits.items():
            path = temporary / file_name(format, split)
            rows = make_rows(found.table, found.labels, shape)
            if format == "mindrecord":
                load_module("mindspore", "mindrecord").write_rows(path, rows)
            else:
                write_rows(path, format, rows)
            notes[split] = SplitNote(
                file=path.name,
                rows=len(found.table.lengths),
                labelled=found.labels is not None,
                bytes=path.stat().st_size,
                crc32c=block_checksums(path),
            )
        note = RecordNote(
            format=format,
            task=spec.name,
            kind=spec.kind.title,
            labels=None if spec.labels is None else list(spec.labels),
            text=spec.text,
            text_pair=spec.text_pair,
            label=spec.label,
            vocabulary=VocabularyNote.of(tokenizer.library),
            max_length=max_length,
            splits=notes,
        )
        (temporary / NOTE).write_text(note.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return note


def find_records(source: Path) -> Found:
    """The record files of a folder by split: those of its note, or those with names that are known, in it or in folders
    that are called as the splits are."""
    if not source.is_dir():
        raise DataError(f"{source}: {'is a file, expected a folder' if source.exists() else 'no such folder'}")
    note = read_note(source)
    if note is not None:
        return Found(note.format, {split: [source / found.file] for split, found in note.splits.items()}, note)
    kinds: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(source.glob("*")) + sorted(path for name in _NAMES for path in source.glob(f"{name}/*")):
        kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(path.name)), None)
        word = path.name if path.name.lower().startswith(tuple(_NAMES)) else path.parent.name
        split = next((split for name, split in _NAMES.items() if word.lower().startswith(name)), None)
        if kind is not None and split is not None and path.is_file():
            kinds.setdefault(kind, {}).setdefault(split, []).append(path)
    if len(kinds) != 1:
        what = f"holds files of {' and '.join(kinds)}; move one kind away" if kinds else "holds no train, dev or test records"
        raise DataError(f"{source}: {what}; {folder_contents(source)}")
    ((kind, files),) = kinds.items()
    return Found(kind, dict(sorted(files.items(), key=lambda item: list(_NAMES.values()).index(item[0]))), None)


def first_shape(found: Found) -> tuple[int, bool]:
    """(numbers in input_ids, whether there is a pair) of the first record, where no note says it."""
    path = next(iter(found.files.values()))[0]
    for place, features in _features([path], found.format):
        ids, segments = features.get("input_ids"), features.get("segment_ids")
        if not isinstance(ids, np.ndarray):
            raise DataError(f"{place}: has no input_ids; its features are {', '.join(sorted(features)) or 'none'}")
        return len(ids), isinstance(segments, np.ndarray) and bool(segments.any())
    raise DataError(f"{path}: holds no records")


def read_splits(found: Found, spec: TaskSpec, tokenizer: Tokenizer, max_length: int) -> dict[str, Split]:
    """Every record of these files, checked. Raises DataError that names file and record."""
    shape = Shape(tokenizer.vocab_size, max_length, spec.kind, spec.kind.outputs(spec.labels))
    splits = {}
    for split, paths in found.files.items():
        source = " and ".join(map(str, paths[:2]))
        noted = None if found.note is None else found.note.splits[split]
        damage = None if noted is None else first_damage(paths[0], noted)
        if damage is not None:
            if found.format != "mindrecord":
                for _ in _features(paths, found.format):  # names the place, where the damage is one of the format
                    pass
            raise DataError(f"{source}: {damage}")
        table, labels = split_arrays(gathered(array_types(shape), rows_of(_features(paths, found.format), shape)), shape)
        count = len(table.lengths)
        if not count or (noted is not None and count != noted.rows):
            expected = "one or more" if noted is None else f"{noted.rows:,}"
            raise DataError(f"{source}: has {count:,} records, expected {expected}")
        check_ends(paths[0], table, tokenizer, spec.text_pair is not None)
        # run_classifier.py gives every row of a test split the first class.
        unlabelled = not labels.any() and split.startswith("test") if noted is None else not noted.labelled
        splits[split] = Split(replace(table, pad_id=tokenizer.pad_id), None if unlabelled else labels)
    return splits


def write_texts(
    out: Path, spec: TaskSpec, splits: dict[str, Split], tokenizer: Tokenizer, max_length: int
) -> Iterator[str]:
    """Write a folder with a .tsv file for each split; yields what is lost in each, in words."""
    check_cells([*(spec.labels or ()), spec.text, spec.text_pair or "", spec.label])
    with replace_folder(out) as temporary:
        for split, found in splits.items():
            texts = decoded(found.table, tokenizer, max_length, spec.text_pair is not None)
            name = spec.splits.get(split, f"{split}.tsv")
            write_table(temporary / name, spec, texts, found.labels, split.startswith("test"))
            count = len(texts.texts)
            yield (
                f"{name}: {texts.same:,} of {count:,} rows give the same tokens again; {texts.cut:,} fill all "
                f"{max_length} tokens, so that their ends may be cut off; {texts.unknown:,} hold [UNK]"
            )


def described(split: Split, spec: TaskSpec) -> str:
    """Rows, lengths and labels of a split, in words."""
    lengths = split.table.lengths
    text = f"{len(lengths):,} rows of {lengths.mean():.1f} tokens, at most {lengths.max()}"
    if split.labels is None:
        return f"{text}; no labels"
    counts = spec.kind.counts(split.labels, len(spec.labels or ()))
    if counts is None:
        return f"{text}; scores {split.labels.min():g} to {split.labels.max():g}, mean {split.labels.mean():.3g}"
    shown = ", ".join(f"{name}: {int(count):,}" for name, count in list(zip(spec.labels, counts))[:10])
    return f"{text}; {shown}" + (", ..." if len(spec.labels) > 10 else "")


def _features(paths: list[Path], format: str) -> Iterator[tuple[str, Features]]:
    if format != "mindrecord":
        yield from record_features(paths, format)
        return
    for path in paths:
        yield from load_module("mindspore", "mindrecord").read_rows(path)
