"""A task's folder once more, with the copies of an augmentation behind the training examples; whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.tables import read_columns
from ..data.task_definitions import without_labels
from ..data.task_specs import TaskSpec
from ..data.tasks import read_split
from ..errors import CrossdistilError, DataError
from ..files import replace_folder
from .copies import Copy

NOTE = "augmentation.json"


@dataclass(frozen=True)
class TrainingTexts:
    """The columns of a training file that are read from it; labels are as the file holds them."""

    path: Path
    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Sequence
    notes: tuple[str, ...] = ()


def read_training_texts(spec: TaskSpec, data: Path) -> TrainingTexts:
    """The examples to augment. What else the new folder needs is checked as well, before any work."""
    for split in ("train", "dev"):
        if split not in spec.splits:
            raise DataError(f"{data}: has no file for the split '{split}' of task '{spec.name}'")
    read_split(spec, data, "dev")
    path = data / spec.splits["train"]
    names = [spec.text] if spec.text_pair is None else [spec.text, spec.text_pair]
    columns = read_columns(path, [*names, spec.label], header=spec.header, texts=names, format=spec.format)
    columns = without_labels(path, columns, spec.label, spec.skip_labels, names)
    pairs = None if spec.text_pair is None else columns.cells[spec.text_pair]
    return TrainingTexts(path, columns.cells[spec.text], pairs, columns.cells[spec.label], columns.notes)


def check_new_folder(out: Path, option: str) -> None:
    """Raise CrossdistilError unless `out` can become a new folder: it does not exist, or is empty."""
    if out.is_dir() and any(out.iterdir()):
        raise CrossdistilError(f"{option} {out}: is a folder that is not empty; name a new one")
    if out.exists() and not out.is_dir():
        raise CrossdistilError(f"{option} {out}: is a file, expected a new folder")


def write_task_folder(
    spec: TaskSpec, data: Path, train: TrainingTexts, copies: Iterable[Copy], out: Path, about: dict[str, Any]
) -> dict[str, Any]:
    """Write the originals and after them the copies, the other splits as they are, and a note of how it was made.

    The training file keeps its name and kind, and of its columns those that are read. Returns the note.
    """
    added = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal added
        pairs = [None] * len(train.texts) if train.pairs is None else train.pairs
        for row, (text, pair) in enumerate(zip(train.texts, pairs)):
            yield _row(spec, text, pair, train.labels[row])
        for copy in copies:
            added += 1
            yield _row(spec, copy.text, copy.pair, train.labels[copy.row])

    with replace_folder(out) as temporary:
        new = temporary / train.path.name
        _write_rows(new, spec, rows())
        for name in sorted({spec.splits[split] for split in spec.splits if split != "train"}):
            if (data / name).is_file():
                shutil.copyfile(data / name, temporary / name)
        note = {
            **about,
            "examples": {"original": len(train.texts), "added": added},
            "sha256": {"source": _digest(train.path), train.path.name: _digest(new)},
        }
        (temporary / NOTE).write_text(json.dumps(note, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return note


def _row(spec: TaskSpec, text: str, pair: str | None, label: Any) -> dict[str, Any]:
    row = {spec.text: text, spec.label: label}
    return row if spec.text_pair is None else {spec.text: text, spec.text_pair: pair, spec.label: label}


def _write_rows(path: Path, spec: TaskSpec, rows: Iterable[dict[str, Any]]) -> None:
    """Where the task's files have no header (CoLA) all columns must be there, those that nobody reads empty."""
    texts = [spec.text] if spec.text_pair is None else [spec.text, spec.text_pair]
    names = list(spec.header or [*texts, spec.label])
    kind = path.suffix.lower()
    # newline="": no platform may turn \n into \r\n, and CSV cells keep theirs.
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind in (".jsonl", ".json"):
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            return
        cells = ([str(row.get(name, "")) for name in names] for row in rows)
        if spec.header is None:
            cells = _with_header(names, cells)
        if kind == ".csv":
            csv.writer(file, lineterminator="\n").writerows(cells)
        else:
            file.writelines("\t".join(row) + "\n" for row in cells)


def _with_header(names: list[str], cells: Iterable[list[str]]) -> Iterator[list[str]]:
    yield names
    yield from cells


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
