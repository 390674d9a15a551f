"""A task of ranking: which files, a split of it, and its training examples as rows of one size.

A split's rows are pairs of a query and a candidate, list after list. For training each list becomes an example of so many rows
as `task.ranking.candidates` says: a longer list is cut, a shorter one filled with rows that count nothing. First come the first
candidates of all lists, then the second ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..kinds.kind import Kind
from ..kinds.known_kinds import kind_named
from .ranking_files import FoundColumns, RankedList, find_columns, read_ranking
from .ranking_format import RankingFormat
from .tables import column_names
from .task_definitions import TaskSection, check_folder, columns_of, found_splits, no_split, table_format
from .task_specs import TaskSpec
from .texts import Texts

TRAIN = "train"


def ranking_task(section: TaskSection, kind: Kind) -> TaskSpec:
    """The task that a recipe means. Raises DataError."""
    check_folder(section.data)
    splits, header = found_splits(section), columns_of(section) if section.header is False else None
    how, format, labelled = _format(section), table_format(section, "error"), True
    if TRAIN in splits and (path := Path(section.data) / splits[TRAIN]).is_file():
        names = list(header) if header is not None else column_names(path, format)
        labelled = _says_what_is_relevant(find_columns(path, names, how, False, bool(how.teacher_scores)))
    how = RankingFormat(**{**vars(how), "labelled": labelled})
    text, pair, label = how.query or "", how.candidates, how.label or ""
    return TaskSpec(
        section.name, text, pair, label, None, kind.default_metrics, splits, header=header, kind=kind, format=format, ranked=how
    )


def assumed_ranking(section: TaskSection) -> TaskSpec:
    """What is known of a task whose files are not there."""
    return TaskSpec(section.name, "", None, "", None, (), {}, kind=kind_named(section.kind), ranked=_format(section))


def _format(section: TaskSection) -> RankingFormat:
    own = section.ranking
    columns = {"query": section.text, "candidates": section.text_pair, "label": section.label}
    if own is None:
        return RankingFormat(**columns)
    given = own.teacher_score
    scores = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    more = {"positive": own.positive, "negative": own.negative, "teacher_scores": scores, "most": own.candidates}
    return RankingFormat(**columns, **more)


def _says_what_is_relevant(found: FoundColumns) -> bool:
    return found.label is not None or found.positive is not None


class RankingSplit(NamedTuple):
    """The rows of a split, list after list."""

    queries: Texts
    candidates: Texts
    labels: np.ndarray | None
    """(rows,) float32."""
    teacher: np.ndarray | None
    """(rows,) float32: a teacher's scores."""
    lists: np.ndarray
    """(lists + 1,) int64: where each list begins, and the end of the last."""
    lines: np.ndarray
    """(lists,) int64."""
    notes: tuple[str, ...]


def ranking_split(spec: TaskSpec, data: Path, split: str) -> RankingSplit:
    """A split's file. Raises DataError, which names file and line."""
    if split not in spec.splits:
        raise no_split(spec.name, data, split, spec.splits)
    path, how, train = data / spec.splits[split], spec.ranked, split == TRAIN
    needs_labels, taught = not train and not split.startswith("test"), train and bool(how.teacher_scores)
    lists, notes = read_ranking(path, how, spec.format, spec.header, needs_labels, taught)
    labels = _joined(lists, [each.labels for each in lists])
    if labels is not None:
        notes += _notes(path, lists, train)
    return RankingSplit(
        Texts(each.query for each in lists for _ in each.texts),
        Texts(text for each in lists for text in each.texts),
        labels,
        _joined(lists, [each.teacher for each in lists]),
        np.cumsum([0, *(len(each.texts) for each in lists)]),
        np.array([each.line for each in lists], np.int64),
        notes,
    )


def _joined(lists: Sequence[RankedList], values: Sequence[list[float] | None]) -> np.ndarray | None:
    if not lists or values[0] is None:
        return None
    return np.array([value for own in values for value in own], np.float32)


def _notes(path: Path, lists: Sequence[RankedList], train: bool) -> tuple[str, ...]:
    """What a person must know of lists in which nothing is relevant."""
    without = [each for each in lists if max(each.labels) <= 0]
    if not without:
        return ()
    count = f"{len(without):,} of {len(lists):,} queries have no relevant candidate (line {without[0].line})"
    return (f"{path.name}: {count}" + ("" if train else ", and score 0"),)


class LaidOut(NamedTuple):
    """Training examples as rows: the first candidates of all lists, then the second ones."""

    queries: Texts
    candidates: Texts
    labels: np.ndarray | None
    """(rows,) float32."""
    teacher: np.ndarray | None
    real: np.ndarray
    """(rows,) float32: 0 of a row that only fills."""
    notes: tuple[str, ...]


def laid_out(
    queries: Sequence[str],
    candidates: Sequence[str],
    labels: np.ndarray | None,
    teacher: np.ndarray | None,
    lists: np.ndarray,
    most: int,
    name: str,
) -> LaidOut:
    """Lists as examples of `most` rows. Of a longer list the first of its most relevant candidates is kept, and of the others
    those that come first in the file; `name` is the file's. Raises DataError where no list has two candidates."""
    lengths = np.diff(lists)
    if lengths.max(initial=0) < 2:
        raise DataError(f"{name}: no query has two candidates, so there is nothing to rank")
    rows = np.full((len(lengths), most), -1, np.int64)
    for place, (start, length) in enumerate(zip(lists[:-1].tolist(), lengths.tolist())):
        own = np.arange(start, start + length)
        if length > most and labels is not None:
            best = start + int(labels[own].argmax())
            own = np.concatenate([[best], own[own != best]])
        own = own[:most]
        rows[place, : len(own)] = own
    flat = rows.T.reshape(-1)
    real = flat >= 0
    cut = int((lengths > most).sum())
    notes = ()
    if cut:
        left = int(np.maximum(lengths - most, 0).sum())
        told = f"{left:,} candidates of {cut:,} queries are left out, which have more than task.ranking.candidates ({most})"
        notes = (f"{name}: {told}; the first of the most relevant and those that come first are kept",)

    def numbers(values: np.ndarray | None) -> np.ndarray | None:
        return None if values is None else np.where(real, values[flat], np.float32(0)).astype(np.float32)

    return LaidOut(
        Texts(queries[row] if row >= 0 else "" for row in flat),
        Texts(candidates[row] if row >= 0 else "" for row in flat),
        numbers(labels), numbers(teacher), real.astype(np.float32), notes,
    )  # fmt: skip
