"""Cells of a label column to numbers: a class, a score, or a row of zeros and ones, with file and line in every error.

A label is what a cell says without the white space around it. Labels that a person would read as the same (`Good` and `good`,
`1` and a full-width one, `1` and `1.0`) are never two classes unless the recipe names both.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, did_you_mean
from ..shown import shown
from .tables import is_half

SEPARATOR = "|"
"""Between the labels of an example that may have several."""

MISSING = ("-", "--", "?", "n/a", "na", "nan", "none", "null", "#n/a", "undefined")
"""What tools write where there is no label."""

_ALMOST_NEVER, _FREQUENT, _SHORTEST = 2, 20, 3
"""How often a class that may be a misspelling is there at most, and how much more often the one that is meant; and how many
letters are looked at."""

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def cell_text(cell: object) -> str:
    """What a cell says, as text: JSON's 1 and true are '1' and 'true'."""
    return cell.strip() if isinstance(cell, str) else json.dumps(cell)


def label_text(path: Path, cell: object, line: int, name: str, verb: str = "is") -> str:
    """The label in a cell of the column `name`, which is compared as text; of one of several in a cell, `verb` says `holds`."""
    label = cell_text(cell)
    if not label or not isinstance(cell, (str, int, float)):
        raise DataError(
            f"{path}:{line}: '{name}' {verb} {json.dumps(cell)[:100]}, expected a label; task.skip_labels leaves such rows out"
        )
    if is_half(label):
        raise DataError(f"{path}:{line}: label {json.dumps(label)[:100]} holds half a surrogate pair")
    return label


def label_set(path: Path, cell: object, line: int, name: str) -> tuple[str, ...]:
    """The labels of an example that may have several: a JSON list, or a text with `|` between them; an empty one is none."""
    if isinstance(cell, str):
        cell = cell.split(SEPARATOR) if cell.strip() else []
    if not isinstance(cell, list):
        return (label_text(path, cell, line, name),)
    labels = tuple(label_text(path, part, line, name, "holds") for part in cell)
    if len(set(labels)) < len(labels):
        raise DataError(f"{path}:{line}: a label is there twice: {listed(labels)}")
    return labels


def found_labels(
    path: Path, cells: Sequence, line_numbers: np.ndarray, labels_of: Callable[[object, int], Sequence[str]]
) -> tuple[str, ...]:
    """The distinct labels of a column, in numerical order when all are integers; `labels_of(cell, line)` are those of a cell.
    Raises DataError where two of them differ in nothing that a person sees."""

    lines: dict[str, int] = {}
    for cell, row in first_rows(cells):
        line = int(line_numbers[row])
        for label in labels_of(cell, line):
            lines.setdefault(label, line)
    labels = sorted(lines)
    if len(labels) < 2:
        found = f"has the label {listed(labels)}" if labels else "is without a label"
        raise DataError(f"{path}: every row {found}, expected two or more different ones")
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(label_key(label), []).append(label)
    clashes = ["; ".join(f"{shown(label)} (line {lines[label]})" for label in same) for same in alike.values() if len(same) > 1]
    if clashes:
        raise DataError(
            f"{path}: labels that look like the same class, written in different ways: {' and '.join(clashes[:5])}; write each "
            "class in one way, or name the classes with task.labels"
        )
    try:
        return tuple(sorted(labels, key=int))
    except ValueError:
        return tuple(labels)


def first_rows(cells: Sequence) -> Iterator[tuple[object, int]]:
    """Each different cell of a column with the row where it is first."""
    known: set[str] = set()
    for row, cell in enumerate(cells):
        if not isinstance(cell, str):
            yield cell, row
        elif cell not in known:
            known.add(cell)
            yield cell, row


def label_key(label: str) -> str:
    """What labels have in common that a person takes for the same: letters whatever their case and width, and numbers by
    their value; characters that are not seen do not count."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    text = " ".join("".join(character for character in text if unicodedata.category(character) != "Cf").split())
    return repr(float(text)) if _NUMBER.fullmatch(text) else text


def class_indices(
    path: Path, name: str, labels: Sequence[str], cells: Sequence, line_numbers: np.ndarray, source: str = ""
) -> np.ndarray:
    """The place of each label of the column `name` among `labels`: (rows,) int32. `source` is the file whose labels these are."""
    index_of = {label: index for index, label in enumerate(labels)}
    index_of = {label: index for index, label in enumerate(labels)}
    indices, unknown = [], _Unknown(path, labels, source)
    known: dict[str, int] = {}  # as the file spells it
    for row, cell in enumerate(cells):
        index = known.get(cell) if isinstance(cell, str) else None
        if index is None:
            label = label_text(path, cell, line_numbers[row], name)
            index = index_of.get(label, -1)
            if index < 0:
                unknown.add(label, line_numbers[row])
            elif isinstance(cell, str):
                known[cell] = index
        indices.append(index)
    unknown.throw()
    return np.array(indices, np.int32)


def label_rows(
    path: Path, name: str, labels: Sequence[str], cells: Sequence, line_numbers: np.ndarray, source: str = ""
) -> np.ndarray:
    """Which of `labels` each cell of the column `name` holds: (rows, labels) float32."""
    index_of = {label: index for index, label in enumerate(labels)}
    rows, unknown = np.zeros((len(cells), len(labels)), dtype=np.float32), _Unknown(path, labels, source)
    for row, cell in enumerate(cells):
        for label in label_set(path, cell, line_numbers[row], name):
            if label in index_of:
                rows[row, index_of[label]] = 1.0
            else:
                unknown.add(label, line_numbers[row])
    unknown.throw()
    return rows


class _Unknown:
    """Labels that are none of the task's, all of them told at once."""

    def __init__(self, path: Path, labels: Sequence[str], source: str):
        self._path, self._labels, self._source = path, labels, source
        self._lines: dict[str, list[int]] = {}

    def add(self, label: str, line: int) -> None:
        self._lines.setdefault(label, []).append(int(line))

    def throw(self) -> None:
        if not self._lines:
            return
        (label, lines), *others = self._lines.items()
        text = f"{self._path}:{lines[0]}: got label {shown(label)}, expected one of {listed(self._labels)}"
        same = next((known for known in self._labels if label_key(known) == label_key(label)), None)
        if same is not None:
            text += f"; it looks like {shown(same)}, written in another way"
        else:
            text += did_you_mean(label, self._labels).rstrip("?")
        if self._source:
            text += f"; {self._source} has no such label"
        if others:
            text += f"; nor are {listed([name for name, _ in others])}"
        rows = sum(map(len, self._lines.values()))
        text += f" ({rows:,} row{'s' * (rows > 1)}); task.labels names all classes, task.skip_labels leaves rows out"
        raise DataError(text)


def scores(path: Path, name: str, cells: Sequence, line_numbers: np.ndarray) -> np.ndarray:
    """The numbers of the column `name`: (rows,) float32."""
    values = np.empty(len(cells), dtype=np.float32)
    for row, cell in enumerate(cells):
        score = number_of(cell)
        if math.isnan(score):
            raise DataError(f"{path}:{line_numbers[row]}: got score {shown(cell)} in '{name}', expected a finite number")
        values[row] = score
    return values


def number_of(cell: Any) -> float:
    """A cell as a number; NaN where it is none, or none that is finite."""
    try:
        number = float(cell)
    except (OverflowError, TypeError, ValueError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def listed(labels: Sequence[str]) -> str:
    """Labels in an error: at most ten of them."""
    return ", ".join(map(shown, labels[:10])) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")


def misspelt(names: Sequence[str], counts: Sequence[int], elsewhere: Sequence[int] | None) -> dict[int, int]:
    """Class -> the one that may be meant: of a class that is there once or twice, and is not `elsewhere`, the most frequent of
    those that are one letter from it and there twenty times as often. Digits that differ are no misspelling."""
    found = {}
    for rare, (name, count) in enumerate(zip(names, counts)):
        if not 0 < count <= _ALMOST_NEVER or (elsewhere is not None and elsewhere[rare]):
            continue
        near = [other for other in range(len(names)) if counts[other] >= _FREQUENT * count and one_letter(name, names[other])]
        if near:
            found[rare] = max(near, key=lambda other: counts[other])
    return found


def one_letter(name: str, other: str) -> bool:
    """Whether two names differ in one letter that is another one, there or not, or in two that have changed places."""
    short, long = sorted((label_key(name), label_key(other)), key=len)
    if len(short) < _SHORTEST or len(long) - len(short) > 1:
        return False
    start = next((place for place, (a, b) in enumerate(zip(short, long)) if a != b), len(short))
    ends = short[start:], long[start:]
    if any(letter.isdigit() for end in ends for letter in end[:1]):
        return False
    if len(short) < len(long):
        return ends[0] == ends[1][1:]
    return ends[0][1:] == ends[1][1:] or (ends[0][:2] == ends[1][1::-1] and ends[0][2:] == ends[1][2:])


def label_warnings(labels: Sequence[str], counts: np.ndarray, split: str) -> list[str]:
    """What looks wrong with classes and how many rows (labels,) each has in a split, in words."""
    lines = []
    missing = [label for label in labels if label.casefold() in MISSING]
    if missing:
        lines.append(
            f"{listed(missing)} is a class here; if it stands for a missing label: task.skip_labels: {json.dumps(missing)}"
        )
    if all(_NUMBER.fullmatch(label) for label in labels) and any("." in label for label in labels):
        lines.append(f"the classes are decimal numbers ({listed(labels)}); scores are for kind: regression")
    rare = [label for label, count in zip(labels, counts) if count == 1]
    if rare:
        lines.append(f"{listed(rare)} {'has' if len(rare) == 1 else 'have'} one row in {split}")
    absent = [label for label, count in zip(labels, counts) if not count]
    if absent:
        lines.append(f"{listed(absent)} {'has' if len(absent) == 1 else 'have'} no row in {split}")
    if len(labels) > 100:
        lines.append(f"{len(labels):,} classes; is the label a column of classes?")
    return lines
