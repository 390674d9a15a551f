"""Tables whose rows are a list of words and a list of labels as long, as `datasets` has words with labels: JSON lines, Parquet,
Arrow and what `datasets` saved.

The words become a text with a space between them, as those of columns do. Labels are texts, or numbers that the file's schema
(`datasets.ClassLabel`) or the recipe's `task.labels` gives names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..shown import shown
from .arrow_tables import arrow_classes, arrow_rows, is_arrow
from .labels import listed
from .table_rows import TableFormat
from .tables import column_names, is_half, read_columns, table_records
from .tagged_format import JSON_TEXT, LABELS, SPANS, WORDS
from .texts import Texts

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class WordLists:
    """Texts of words with a space between them, and a tag for each word."""

    texts: Texts
    tags: list[list[str]] | None
    """As the file has them; None where it was not to be read, or has none."""
    lines: np.ndarray
    """(texts,) int64: of each row, in Arrow's files its number."""
    label: str
    """The column of the tags."""
    notes: tuple[str, ...]


def words_column(path: Path, text: str, format: TableFormat) -> str:
    """The column of lists of words in a table; empty where its rows are texts. `text` is the column that a recipe names; without
    it a table that has spans is of texts, and so is one with texts and no labels of words."""
    names = column_names(path, format)
    if text:
        name = _among(names, [text])
        return name if name and isinstance(_first_cell(path, name, format), list) else ""
    name = _among(names, WORDS)
    if _among(names, [JSON_TEXT]) and (_among(names, SPANS) or not _among(names, LABELS)):
        return ""
    return name


def read_lists(
    path: Path, words: str, label: str, format: TableFormat, classes: Sequence[str] | None = None, with_labels: bool | None = True
) -> WordLists:
    """The rows of a table whose column `words` has lists of words. `label` is the column of their labels, empty: the first of
    `LABELS`, which must be there, need not (None), or is not read (False); `classes` are the names of numbers where the file has
    none. Raises DataError, which names file and line."""
    names, notes, named = column_names(path, format), [], bool(label)
    label = _among(names, [label] if label else LABELS) or label
    if with_labels is False or (with_labels is None and label not in names):
        label = ""
    elif label not in names:
        got = f"no column of labels beside '{words}'; the columns are {', '.join(map(str, names[:20]))}"
        raise DataError(f"{path}: {got}, expected '{label or LABELS[0]}', a list of labels; task.label names it")
    table = read_columns(path, [words, *([label] if label else [])], format=format)
    lines = table.line_numbers
    texts, empty = Texts(), []
    for cell, line in zip(table.cells[words], lines.tolist()):
        _check_words(path, line, words, cell)
        texts.append(" ".join(cell))
        if not cell:
            empty.append(line)
    if len(empty) == len(lines):
        raise DataError(f"{path}: holds no words{' with labels' if label else ''}")
    if empty:
        what = "1 row has" if len(empty) == 1 else f"{len(empty):,} rows have"
        notes.append(f"{path.name}: {what} no words (line {empty[0]})")
    if not label:
        return WordLists(texts, None, lines, "", (*table.notes, *notes))
    others = [] if named else [name for name in names if name != label and _key(name) in LABELS]
    if others:
        notes.append(f"{path.name}: its labels are '{label}', and not {listed(others)}; task.label names others")
    names_of = _names_of_numbers(path, label, classes)
    tags = []
    for cell, own, line in zip(table.cells[label], table.cells[words], lines.tolist()):
        if not isinstance(cell, list):
            raise DataError(f"{path}:{line}: '{label}' is {_said(cell)}, expected a list of labels")
        if len(cell) != len(own):
            got = f"'{label}' has {len(cell)} label{'s' * (len(cell) != 1)}"
            raise DataError(f"{path}:{line}: {got}, expected {len(own)}, one for each of '{words}'")
        tags.append([_tag(f"{path}:{line}: {label}[{place}]", tag, *names_of) for place, tag in enumerate(cell)])
    if classes is not None and names_of[0] is classes and any(type(tag) is int for cell in table.cells[label] for tag in cell):
        told = ", ".join(f"{number} is {shown(name)}" for number, name in enumerate(classes[:10]))
        notes.append(f"{path.name}: its labels are numbers, which task.labels names: {told}{', ...' * (len(classes) > 10)}")
    return WordLists(texts, tags, lines, label, (*table.notes, *notes))


def _among(names: Sequence[str], wanted: Sequence[str]) -> str:
    """The first of the `wanted` columns that is there, as the file writes it; empty without one."""
    same = ([name for name in names if name == each] or [name for name in names if _key(name) == _key(each)] for each in wanted)
    return next((found[0] for found in same if found), "")


def _said(cell: Any) -> str:
    return "null" if cell is None else shown(cell, 60)


def _key(name: str) -> str:
    return name.strip().casefold()


def _first_cell(path: Path, name: str, format: TableFormat) -> Any:
    rows = arrow_rows(path, [name]) if is_arrow(path) else table_records(path, format)  # of which the first is read alone
    return next(rows, (0, {}))[1].get(name)


def _check_words(path: Path, line: int, name: str, cell: Any) -> None:
    if not isinstance(cell, list):
        raise DataError(f"{path}:{line}: '{name}' is {_said(cell)}, expected a list of words")
    for place, word in enumerate(cell):
        if not isinstance(word, str) or not _WORD.fullmatch(word) or is_half(word):
            expected = "expected a word: text without white space"
            raise DataError(f"{path}:{line}: {name}[{place}]: got {_said(word)}, {expected}")


def _names_of_numbers(path: Path, label: str, classes: Sequence[str] | None) -> tuple[Sequence[str] | None, str]:
    """The names of labels that are numbers, None without any, and where these are from."""
    known = arrow_classes(path).get(label) if is_arrow(path) else None
    return (known, "the file's schema names") if known is not None else (classes, "task.labels names")


def _tag(place: str, tag: Any, names: Sequence[str] | None, source: str) -> str:
    if isinstance(tag, str) and tag.strip():
        return tag.strip()
    if type(tag) is not int:
        raise DataError(f"{place}: got {_said(tag)}, expected a label")
    if names is None:
        way = "task.labels names the labels in the order of their numbers"
        raise DataError(f"{place}: got the number {tag}, expected a label, since the file has no names of numbers; {way}")
    if not 0 <= tag < len(names):
        raise DataError(f"{place}: got the number {tag}, expected 0 to {len(names) - 1}, which {source} ({listed(names)})")
    return names[tag]
