"""More training texts among those of a task: another task's, or texts without labels, for what a teacher alone teaches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError
from ..registered import NOTHING, Registered
from .limits import limited
from .tables import EXTENSIONS, read_columns
from .task_definitions import TaskSection, check_folder, columns_of, found_splits, no_split, table_format
from .task_specs import TaskSpec, glue_task
from .tasks import Examples, read_split, resolve_task
from .text_files import text_lines
from .texts import Texts


class AuxSection(TaskSection, Protocol):
    """A section of the recipe's `aux_data`."""

    weight: float
    limit: int | dict[str, int] | None


def mixed(
    train: Examples, spec: TaskSpec, section: AuxSection, where: str, registered: Registered = NOTHING
) -> Examples:
    """`train` with the training examples of another section after them.

    Where the other task has the same classes, its labels are labels here too; else, or where it has none, its examples have
    none, and only the terms that need no labels learn from them. The 0 and 1 of two GLUE tasks are the same only where they mean
    the same; those of a task with a name of its own are the recipe's word that they do. The section's weight is what each of its
    examples counts in sums and in what they are divided by. Raises DataError, which starts with `where`, if one task is about
    pairs of texts and the other is not.
    """
    if spec.kind.over_tokens or not spec.kind.one_row:
        raise DataError(f"{where}: is for tasks with an answer for a whole text, but task.kind is '{spec.kind.name}'")
    same = False
    try:
        if is_unlabelled(section):
            other = _unlabelled(section, spec, where)
        else:
            other_spec = resolve_task(section, registered)
            other = read_split(other_spec, section.data, "train")
            same = train.labels is not None and (spec.labels, spec.kind) == (other_spec.labels, other_spec.kind)
            if glue_task(section.name) is not None:
                same = same and spec.label_names == other_spec.label_names
    except DataError as error:
        raise DataError(str(error).replace("task.", f"{where}.")) from error
    other = limited(other, section.limit, "train", where)
    for key, examples in (("task.data", train), (where, other)):
        if examples.tokens is not None:
            raise DataError(f"{key}: {examples.source} holds records of tokens; only texts can be mixed with others")
    if (train.pairs is None) != (other.pairs is None):
        kinds = ("pairs of texts", "single texts")
        raise DataError(f"{where}: has {kinds[other.pairs is None]}, the task {kinds[train.pairs is None]}")
    count = len(other)
    labels = None
    if train.labels is not None:
        labels = np.concatenate([train.labels, other.labels if same else spec.kind.fill(count, train.labels)])
    known, weights = (np.ones(len(train), np.float32) if own is None else own for own in (train.label_mask, train.weights))
    return replace(
        train,
        texts=Texts(text for texts in (train.texts, other.texts) for text in texts),
        pairs=None if train.pairs is None else Texts(text for texts in (train.pairs, other.pairs) for text in texts),
        labels=labels,
        line_numbers=np.concatenate([train.line_numbers, other.line_numbers]),
        label_mask=np.concatenate([known, np.full(count, float(same), np.float32)]),
        weights=np.concatenate([weights, np.full(count, section.weight, np.float32)]),
        notes=(*train.notes, *other.notes),
        mixed=train.mixed + count,
    )


def is_unlabelled(section: AuxSection) -> bool:
    """Whether a section is of texts alone: it names a column of texts and none of labels, or a .txt file."""
    if section.label is not None or section.kind is not None:
        return False
    return section.data.suffix.lower() == ".txt" or (section.text is not None and glue_task(section.name) is None)


def _unlabelled(section: AuxSection, spec: TaskSpec, where: str) -> Examples:
    """The texts of a file, or of the folder's file of `train`. Lines of a .txt file are texts; of tables, columns are named."""
    path = section.data
    if not path.is_file():
        check_folder(path, or_file=True)
        splits = found_splits(section)
        if "train" not in splits and (path / "train.txt").is_file():
            splits["train"] = "train.txt"
        if "train" not in splits:
            raise no_split(section.name, path, "train", splits)
        path = path / splits["train"]
    if path.suffix.lower() == ".txt":
        _check_no_columns(path, section, where)
        return _lines(path, section, spec, where)
    if section.text_pair is not None and spec.text_pair is None:
        raise DataError(f"{where}.text_pair: names the column '{section.text_pair}', but the task has single texts")
    names = [section.text or spec.text] + ([] if spec.text_pair is None else [section.text_pair or spec.text_pair])
    if path.suffix.lower() not in EXTENSIONS:
        raise DataError(f"{where}.data: {path}: unknown kind of file, expected .txt or one of {', '.join(EXTENSIONS)}")
    header = columns_of(section) if section.header is False else None
    columns = read_columns(path, names, header=header, texts=names, format=table_format(section, "error"))
    pairs = columns.cells[names[1]] if len(names) > 1 else None
    return Examples(columns.cells[names[0]], pairs, None, path, columns.line_numbers, notes=columns.notes)


def _check_no_columns(path: Path, section: AuxSection, where: str) -> None:
    """Raise DataError where a section says of a .txt file what only tables have. In a folder, `text` is what says that its files
    are without labels."""
    for key in ("text", "text_pair", "header", "columns", "separator", "quoting"):
        if getattr(section, key) is not None and (key != "text" or path == section.data):
            raise DataError(f"{where}.{key}: {path} has no columns: a text a line")


def _lines(path: Path, section: AuxSection, spec: TaskSpec, where: str) -> Examples:
    """A text a line; empty lines are none."""
    if spec.text_pair is not None:
        raise DataError(f"{where}: {path}: lines are single texts, the task has pairs of texts")
    texts, numbers = text_lines(path, section.encoding, f"{where}.encoding: {{}}")
    if not len(numbers):
        raise DataError(f"{where}.data: {path}: holds no text")
    return Examples(texts, None, None, path, numbers)
