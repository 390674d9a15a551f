"""Files of rankings: queries, each with its candidates, how relevant they are, and perhaps how a teacher scores them.

A file has one of these forms, which its columns tell:
  lists      {"query": ..., "candidates": [text, ...], "labels": [number, ...]}, as sentence-transformers' listwise losses take it
  sides      {"query": ..., "positive": text or [texts], "negative": text or [texts]}, with further columns `negative_1`, ...: the
             triples of MS MARCO, the tuples of sentence-transformers, and what its CrossEncoderRerankingEvaluator takes, also
             with all `documents`, some of them positive
  rows       a query, a text and its label in each row of a table; rows of one query are a list, wherever they stand
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..shown import shown
from .labels import number_of
from .ranking_format import RankingFormat
from .table_rows import TableFormat
from .tables import column_names, is_half, read_columns, require_columns

QUERIES = ("query", "question", "anchor")
POSITIVES, NEGATIVES = ("positive", "positives", "pos"), ("negative", "negatives", "neg")
CANDIDATES = ("candidates", "documents", "docs", "passages", "document", "passage", "text", "answer")
LABELS = ("label", "labels", "relevance", "score", "scores")
"""What people call the columns; the first of them that a file has is meant."""
_NUMBERED = re.compile(r"^negative_\d+$", re.MULTILINE)


@dataclass
class RankedList:
    """A query and its candidates."""

    query: str
    line: int
    texts: list[str] = field(default_factory=list)
    labels: list[float] | None = None
    teacher: list[float] | None = None


@dataclass(frozen=True)
class FoundColumns:
    """The columns that a file is read by."""

    query: str
    candidates: str | None
    label: str | None
    positive: str | None
    negatives: tuple[str, ...]
    teacher: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """Their names."""
        named = (self.query, self.candidates, self.label, self.positive)
        return [*(name for name in named if name), *self.negatives, *self.teacher]


def read_ranking(
    path: Path, how: RankingFormat, format: TableFormat, header: Sequence[str] | None, needs_labels: bool, teacher: bool
) -> tuple[list[RankedList], tuple[str, ...]]:
    """(the lists of a file in their order, what a person must know of how it was read). `needs_labels` is whether the file has to
    say what is relevant, `teacher` whether a teacher's scores are wanted. Raises DataError, which names file and line."""
    names = list(header) if header is not None else column_names(path, format)
    found = find_columns(path, names, how, needs_labels, teacher)
    texts = [found.query]
    read = read_columns(path, found.all, header=header, texts=texts, format=format)
    queries = read.cells[found.query]
    columns = {name: read.cells[name] for name in found.all if name != found.query}
    lists: dict[Any, RankedList] = {}
    for row, line in enumerate(read.line_numbers.tolist()):
        cells, where = {name: column[row] for name, column in columns.items()}, f"{path}:{line}"
        query, of_rows = queries[row], found.candidates is not None and isinstance(cells[found.candidates], str)
        own = lists.setdefault(query if of_rows else row, RankedList(query, line))
        _add(own, found, cells, where)
    kept = list(lists.values())
    for each in kept:
        if needs_labels and each.labels is None:
            raise DataError(f"{path}:{each.line}: does not say which candidates are relevant; task.label names the column")
    return kept, (*read.notes, *_other_columns(path, names, how, found))


def find_columns(path: Path, names: Sequence[str], how: RankingFormat, needs_labels: bool, teacher: bool) -> FoundColumns:
    """The columns that are meant among the `names` of a file. Raises DataError."""
    given = [name for name in (how.query, how.candidates, how.label, how.positive, how.negative) if name]
    given += how.teacher_scores if teacher else ()
    require_columns(path, names, given)
    free = [name for name in names if name not in (*given, *how.teacher_scores)]

    def named(own: str | None, usual: Sequence[str]) -> str | None:
        return own or next((name for name in usual if name in free), None)

    query, positive = named(how.query, QUERIES), named(how.positive, POSITIVES)
    if query is None:
        raise DataError(_lacks(path, names, "queries", QUERIES, "task.text"))
    negative = named(how.negative, NEGATIVES)
    negatives = tuple(name for name in (negative, *_NUMBERED.findall("\n".join(free))) if name)
    scores = how.teacher_scores if teacher else ()
    if positive is not None and negatives and how.candidates is None:  # there may be other texts beside
        return FoundColumns(query, None, None, positive, negatives, scores)
    candidates = named(how.candidates, CANDIDATES)
    if candidates is None:
        ways = "task.text_pair, or task.ranking.positive and task.ranking.negative,"
        raise DataError(_lacks(path, names, "candidates", (*CANDIDATES, "positive and negative"), ways))
    if positive is not None:
        return FoundColumns(query, candidates, None, positive, (), scores)
    label = named(how.label, LABELS)
    if label is None and needs_labels:
        raise DataError(_lacks(path, names, "labels", LABELS, "task.label"))
    return FoundColumns(query, candidates, label, None, (), scores)


def _other_columns(path: Path, names: Sequence[str], how: RankingFormat, found: FoundColumns) -> list[str]:
    """What to know of columns that could be meant as well as those that are read."""
    choices = [("task.text", how.query, found.query, QUERIES), ("task.text_pair", how.candidates, found.candidates, CANDIDATES)]
    choices += [("task.label", how.label, found.label, LABELS)]
    notes = []
    for key, given, own, usual in choices:
        others = [name for name in usual if name in names and name not in found.all and name not in how.teacher_scores]
        if given is None and own is not None and others:
            notes.append(f"{path.name}: '{own}' is read, and not {', '.join(map(repr, others))}; {key} names another column")
    return notes


def _lacks(path: Path, names: Sequence[str], what: str, usual: Sequence[str], key: str) -> str:
    expected = ", ".join(usual)
    return f"{path}: no column of {what} ({expected}); the columns are {', '.join(names[:20])}; {key} names it"


def _add(own: RankedList, found: FoundColumns, cells: Mapping[str, Any], where: str) -> None:
    """Put the candidates of a row into its list."""
    labels: list[float] | None
    if found.candidates is not None:
        texts = _texts(cells[found.candidates], where, found.candidates)
        labels = None
        if found.positive is not None:
            positives = _texts(cells[found.positive], where, found.positive)
            texts = [text for place, text in enumerate(texts) if text not in positives or text not in texts[:place]]
            texts += [text for text in positives if text not in texts]
            labels = [float(text in positives) for text in texts]
        elif found.label is not None:
            labels = _numbers(cells[found.label], where, found.label, len(texts))
    else:
        positives = _texts(cells[found.positive], where, found.positive)
        texts = [*positives, *(text for name in found.negatives for text in _texts(cells[name], where, name))]
        labels = [1.0] * len(positives) + [0.0] * (len(texts) - len(positives))
    if not texts:
        raise DataError(f"{where}: '{found.candidates or found.positive}' is an empty list, expected one candidate or more")
    if found.teacher:
        own.teacher = [*(own.teacher or []), *_teacher_scores(found, cells, where, labels, len(texts))]
    own.texts += texts
    if labels is not None:
        own.labels = [*(own.labels or []), *labels]


def _teacher_scores(
    found: FoundColumns, cells: Mapping[str, Any], where: str, labels: list[float] | None, count: int
) -> list[float]:
    counts = [count]
    if len(found.teacher) > 1:
        if found.candidates is not None:
            raise DataError(f"{where}: task.ranking.teacher_score has two columns, but the candidates are in one; name one")
        positives = int(sum(labels))
        counts = [positives, count - positives]
    own = zip(found.teacher, counts, strict=True)
    return [value for name, size in own for value in _numbers(cells[name], where, name, size)]


def _list(cell: Any) -> list[Any]:
    return cell if isinstance(cell, list) else [cell]


def _texts(cell: Any, where: str, name: str) -> list[str]:
    texts = _list(cell)
    for text in texts:
        if not isinstance(text, str):
            raise DataError(f"{where}: '{name}' holds {json.dumps(text)[:100]}, expected a text or a list of texts")
        if is_half(text):
            raise DataError(f"{where}: '{name}' holds half a surrogate pair")
    return texts


def _numbers(cell: Any, where: str, name: str, count: int) -> list[float]:
    values = []
    for value in _list(cell):
        number = number_of(value)
        if math.isnan(number) or isinstance(value, bool):
            raise DataError(f"{where}: got score {shown(value)} in '{name}', expected a finite number")
        values.append(number)
    if len(values) != count:
        raise DataError(f"{where}: got {len(values)} numbers in '{name}' for {count} candidates, expected one for each")
    return values
