"""Rows of files by their numbers: in which lines those of a file begin, also those that are not used; and where those examples
of train come from that are of other data than the task's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .tables import read_columns
from .tagged_files import read_tagged
from .task_specs import TaskSpec


@dataclass(frozen=True)
class MixedRows:
    """The last examples of a split, the sections one behind another."""

    sections: np.ndarray
    """(rows,) int64: which section of `aux_data` each is of."""
    lines: tuple[np.ndarray, ...]
    """Of each section, where the rows of its file begin, also those that are not used: (rows of the file,) int64."""
    sources: tuple[Path, ...]
    """The files."""

    def of(self, rows: np.ndarray) -> MixedRows:
        """Some of the examples."""
        return MixedRows(self.sections[rows], self.lines, self.sources)


def with_more(before: MixedRows | None, lines: np.ndarray, source: Path, count: int) -> MixedRows:
    """Those `before` and `count` examples of one more section, whose file has its rows in these `lines`."""
    if before is None:
        before = MixedRows(np.zeros(0, np.int64), (), ())
    sections = np.concatenate([before.sections, np.full(count, len(before.lines), np.int64)])
    return MixedRows(sections, (*before.lines, lines), (*before.sources, source))


def row_lines(path: Path, spec: TaskSpec) -> np.ndarray:
    """The line of each row of a split's file: (rows,) int64. Raises DataError."""
    if spec.tagged is not None:
        return read_tagged(path, spec.tagged, False).lines
    texts = [name for name in (spec.text, spec.text_pair) if name is not None]
    # A row that cannot be read and is left out would have had a number.
    return read_columns(path, texts, header=spec.header, format=replace(spec.format, bad_rows="error")).line_numbers
