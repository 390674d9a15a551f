"""Cells of a label column to numbers: a class, a score, or a row of zeros and ones, with file and line in every error."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError

SEPARATOR = "|"
"""Between the labels of an example that may have several."""


def label_text(path: Path, cell: object, line: int) -> str:
    """A label is compared as text: JSON's 1 and true are '1' and 'true'."""
    label = cell if isinstance(cell, str) else json.dumps(cell)
    if not label or not isinstance(cell, (str, int, float)):
        raise DataError(f"{path}:{line}: label {json.dumps(cell)} is no text or number")
    return label


def label_set(path: Path, cell: object, line: int) -> tuple[str, ...]:
    """The labels of an example that may have several: a JSON list, or a text with `|` between them; an empty one is none."""
    if isinstance(cell, str):
        cell = [part.strip() for part in cell.split(SEPARATOR)] if cell.strip() else []
    labels = tuple(label_text(path, part, line) for part in (cell if isinstance(cell, list) else [cell]))
    if len(set(labels)) < len(labels):
        raise DataError(f"{path}:{line}: a label is there twice: {listed(labels)}")
    return labels


def found_labels(path: Path, cells: list, line_numbers: np.ndarray, several: bool) -> tuple[str, ...]:
    """The distinct labels of a column, in numerical order when all are integers; `several` is whether a cell may hold
    more than one."""

    def all_labels() -> Iterator[str]:
        for cell, line in zip(cells, line_numbers):
            if several:
                yield from label_set(path, cell, line)
            else:
                yield label_text(path, cell, line)

    labels = sorted(set(all_labels()))
    if len(labels) < 2:
        found = f"has the label {listed(labels)}" if labels else "is without a label"
        raise DataError(f"{path}: every row {found}, expected two or more different ones")
    try:
        return tuple(sorted(labels, key=int))
    except ValueError:
        return tuple(labels)


def class_indices(path: Path, labels: Sequence[str], cells: list, line_numbers: np.ndarray) -> np.ndarray:
    """The place of each cell's label among `labels`: (rows,) int32."""
    index_of = {label: index for index, label in enumerate(labels)}
    indices = np.empty(len(cells), dtype=np.int32)
    for row, cell in enumerate(cells):
        label = label_text(path, cell, line_numbers[row])
        if label not in index_of:
            raise _unknown(path, line_numbers[row], label, labels)
        indices[row] = index_of[label]
    return indices


def label_rows(path: Path, labels: Sequence[str], cells: list, line_numbers: np.ndarray) -> np.ndarray:
    """Which of `labels` each cell holds: (rows, labels) float32."""
    index_of = {label: index for index, label in enumerate(labels)}
    rows = np.zeros((len(cells), len(labels)), dtype=np.float32)
    for row, cell in enumerate(cells):
        for label in label_set(path, cell, line_numbers[row]):
            if label not in index_of:
                raise _unknown(path, line_numbers[row], label, labels)
            rows[row, index_of[label]] = 1.0
    return rows


def scores(path: Path, name: str, cells: list, line_numbers: np.ndarray) -> np.ndarray:
    """The numbers of the column `name`: (rows,) float32."""
    values = np.empty(len(cells), dtype=np.float32)
    for row, cell in enumerate(cells):
        try:
            score = float(cell)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise DataError(f"{path}:{line_numbers[row]}: got score {cell!r} in '{name}', expected a finite number")
        values[row] = score
    return values


def listed(labels: Sequence[str]) -> str:
    """Labels in an error: at most ten of them."""
    shown = [f"'{label}'" for label in labels]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")


def _unknown(path: Path, line: int, label: str, labels: Sequence[str]) -> DataError:
    return DataError(f"{path}:{line}: got label '{label}', expected one of {listed(labels)}")
