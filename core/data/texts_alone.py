"""Texts without labels, for what a teacher alone teaches: which section of a recipe's `aux_data` is of such, and its texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError
from .arrow_tables import is_arrow
from .tables import EXTENSIONS, read_columns
from .tagged_files import JSON_FILES, ONLY_COLUMNS, read_words
from .tagged_lists import read_lists, words_column
from .task_definitions import TaskSection, check_folder, columns_of, found_splits, no_split, table_format
from .task_specs import TaskSpec, glue_task
from .tasks import Examples
from .text_files import text_lines


class AuxSection(TaskSection, Protocol):
    """A section of the recipe's `aux_data`."""

    weight: float
    limit: int | dict[str, int] | None


def is_unlabelled(section: AuxSection) -> bool:
    """Whether a section is of texts alone: it names a column of texts and none of labels, or a file of nothing else."""
    if section.label is not None or section.kind is not None:
        return False
    named = section.text is not None and glue_task(section.name) is None
    return named or section.data.suffix.lower() in (".txt", *ONLY_COLUMNS)


def texts_alone(section: AuxSection, spec: TaskSpec, where: str) -> Examples:
    """The texts of a file, or of the folder's file of `train`. Lines of a .txt file are texts; of tables, columns are named; of a
    task whose words have labels, a file may also be words, one a line. Raises DataError."""
    path = section.data
    if not path.is_file():
        check_folder(path, or_file=True)
        splits = found_splits(section)
        ends = (".txt", *ONLY_COLUMNS) if spec.kind.per_token else (".txt",)
        more = [name for name in (f"train{end}" for end in ends) if (path / name).is_file()]
        if "train" not in splits and more:
            splits["train"] = more[0]
        if "train" not in splits:
            raise no_split(section.name, path, "train", splits)
        path = path / splits["train"]
    if path.suffix.lower() == ".txt":
        _check_no_columns(path, section, where)
        return _by_spaces(_lines(path, section, spec, where), spec, False)
    if spec.kind.per_token and path.suffix.lower() in ONLY_COLUMNS:
        return _by_spaces(_words(path, section, where), spec, True)
    if section.text_pair is not None and spec.text_pair is None:
        raise DataError(f"{where}.text_pair: names the column '{section.text_pair}', but the task has single texts")
    names = [section.text or spec.text or "text"] + ([] if spec.text_pair is None else [section.text_pair or spec.text_pair])
    if path.suffix.lower() not in EXTENSIONS:
        raise DataError(f"{where}.data: {path}: unknown kind of file, expected .txt or one of {', '.join(EXTENSIONS)}")
    header = columns_of(section) if section.header is False else None
    format = table_format(section, "error")
    if spec.kind.per_token and (path.suffix.lower() in JSON_FILES or is_arrow(path)):
        words = words_column(path, section.text or "", format)
        if words:
            lists = read_lists(path, words, "", format, with_labels=False)
            return _by_spaces(Examples(lists.texts, None, None, path, lists.lines, notes=lists.notes), spec, True)
    columns = read_columns(path, names, header=header, texts=names, format=format)
    pairs = columns.cells[names[1]] if len(names) > 1 else None
    found = Examples(columns.cells[names[0]], pairs, None, path, columns.line_numbers, notes=columns.notes)
    return _by_spaces(found, spec, False)


def _by_spaces(examples: Examples, spec: TaskSpec, value: bool) -> Examples:
    """With what words are, where the task's words have labels."""
    return replace(examples, by_spaces=np.full(len(examples), value)) if spec.kind.per_token else examples


def _words(path: Path, section: AuxSection, where: str) -> Examples:
    """The texts of a file of words, one a line. What may be labels beside them is only left out where the section says so."""
    texts, lines, width = read_words(path, section.columns, section.text or "", section.encoding, f"{where}.encoding")
    if width > 1 and section.text is None:
        told = f"has {width} columns; words with labels are read from a folder, with {where}.kind: tokens"
        raise DataError(f"{where}.data: {path} {told}; {where}.text: word takes the first column alone")
    return Examples(texts, None, None, path, lines)


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
