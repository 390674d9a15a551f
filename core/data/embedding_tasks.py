"""A task of sentence embeddings: which files, and a split of it as texts.

Training examples are texts alone, pairs with a score, pairs that belong together, or triplets, as `task.embeddings.examples`
says; what is scored on are pairs with a score. All first texts come first, then all second ones, then all third ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError
from ..kinds.kind import Kind
from ..kinds.known_kinds import kind_named
from ..metrics import RANKING_METRICS, REGRESSION_METRICS
from ..shown import shown
from .embedding_format import EmbeddingFormat
from .folders import folder_contents
from .labels import scores
from .ranking_files import read_ranking
from .ranking_format import RankingFormat
from .tables import EXTENSIONS, Columns, read_columns
from .task_definitions import TaskSection, check_folder, columns_of, found_splits, no_split, table_format
from .task_specs import TaskSpec, glue_task
from .text_files import text_lines
from .texts import Texts

TRAIN, LINES = "train", ".txt"
_COLUMNS = ("text", "text_pair", "label")


def embedding_task(section: TaskSection, kind: Kind) -> TaskSpec:
    """The task that a recipe means. Raises DataError."""
    check_folder(section.data)
    own, official, name = section.embeddings, glue_task(section.name), section.name
    if official is not None and any(getattr(section, key) not in (None, getattr(official, key)) for key in _COLUMNS):
        # The recipe's name is STS-B's; columns of others are another task's, whose scores have another range.
        official, name = None, Path(section.data).name
    examples = "scored" if own is None else own.examples
    text, pair, label = (getattr(section, key) or getattr(official, key, None) for key in _COLUMNS)
    negative = None if own is None else own.negative
    splits = found_splits(section)
    if TRAIN not in splits and (Path(section.data) / f"{TRAIN}{LINES}").is_file():
        splits[TRAIN] = f"{TRAIN}{LINES}"
    of_lines = splits.get(TRAIN, "").endswith(LINES)
    retrieval = own is not None and own.scored_on == "retrieval"
    scored = list(_COLUMNS) if "dev" in splits and not retrieval else []
    needed = {"texts": [] if of_lines else ["text"], "scored": list(_COLUMNS)}
    needed = needed.get(examples, ["text", "text_pair"])
    known = {"text": text, "text_pair": pair, "label": label}
    if unnamed := [key for key in dict.fromkeys([*needed, *scored]) if not known[key]]:
        whys = [f"examples are {examples}" if key in needed else "pairs with a score are scored on" for key in unnamed]
        lines = [f"task.{key}: needed, because {why}: name the column" for key, why in zip(unnamed, whys)]
        raise DataError("\n".join(lines))
    if (examples == "triplets") != (negative is not None):
        got = "names no column of third texts" if negative is None else f"is for triplets, but examples are {examples}"
        raise DataError(f"task.embeddings.negative: {got}")
    taught = () if own is None or own.teacher_scores is None else own.teacher_scores
    taught = (taught,) if isinstance(taught, str) else tuple(taught)
    if taught and examples != "triplets":
        raise DataError(f"task.embeddings.teacher_scores: are of triplets, but examples are {examples}")
    low, high = (0.0, 5.0) if official is not None and official.name == "sts-b" else (0.0, 1.0)
    low, high = (low, high) if own is None or own.scores is None else own.scores
    header = columns_of(section) if section.header is False else None
    format = EmbeddingFormat(examples, negative, low, high, section.encoding, taught, retrieval)
    metrics = RANKING_METRICS if retrieval else kind.default_metrics
    _check_metrics(section, metrics, retrieval)
    return TaskSpec(
        name, text or "", pair, label or "", None, metrics, splits, header=header, kind=kind,
        format=table_format(section, "skip" if official is not None else "error"), embedded=format,
    )  # fmt: skip


def _check_metrics(section: TaskSection, fitting: tuple[str, ...], retrieval: bool) -> None:
    for name in section.metrics or ():
        if name in (*REGRESSION_METRICS, *RANKING_METRICS) and name not in fitting:
            what = "retrieval" if retrieval else "pairs with a score"
            way = f"; expected one of {', '.join(fitting)} (task.embeddings.scored_on)"
            raise DataError(f"task.metrics: '{name}' is no metric of {what}{way}")


def assumed_task(section: TaskSection) -> TaskSpec:
    """What is known of a task whose files are not there."""
    format = EmbeddingFormat("scored" if section.embeddings is None else section.embeddings.examples)
    return TaskSpec(section.name, "", None, "", None, (), {}, kind=kind_named(section.kind), embedded=format)


class EmbeddingSplit(NamedTuple):
    """The texts of a split."""

    texts: Texts
    members: int
    """How many texts an example has."""
    scores: np.ndarray | None
    """(examples,) float32, from 0 to 1."""
    lines: np.ndarray
    notes: tuple[str, ...]
    lists: np.ndarray | None = None
    """Of queries to retrieve for: (examples + 1,) int64, which of `among` and `scores` are of each."""
    among: np.ndarray | None = None
    """(judgements,) int64: which text of those behind the queries each of `scores` is of."""
    taught: np.ndarray | None = None
    """(rows,) float32: what another model scored each text with, with the first one of its triplet."""


def embedding_split(spec: TaskSpec, data: Path, split: str) -> EmbeddingSplit:
    """A split's file. Raises DataError, which names file and line."""
    if split not in spec.splits:
        if split == TRAIN and spec.embedded.examples == "texts":
            expected = f"{TRAIN}{LINES}, a text a line, or a table ({', '.join(EXTENSIONS)})"
            raise DataError(f"{data}: task '{spec.name}' has no file for the split 'train' ({expected}); {folder_contents(data)}")
        raise no_split(spec.name, data, split, spec.splits)
    path, format = data / spec.splits[split], spec.embedded
    if format.retrieval and split != TRAIN:
        return _retrieval(path, spec)
    if path.suffix.lower() == LINES:
        if split != TRAIN:
            raise DataError(f"{path}: has a text a line, expected a table of pairs with a score to score on")
        if format.examples != "texts":
            raise DataError(f"task.embeddings.examples: {path} has a text a line, expected texts, got {format.examples}")
        return _lines(path, format)
    examples = format.examples if split == TRAIN else "scored"
    names = [spec.text]
    if examples != "texts":
        names += [spec.text_pair] + ([format.negative] if examples == "triplets" else [])
    optional = [spec.text_pair] if examples == "texts" and spec.text_pair else []
    taught = format.teacher_scores if split == TRAIN else ()
    required = [*names, spec.label] if examples == "scored" else [*names, *taught]
    of_texts = [*names, *optional]
    read = read_columns(path, required, optional, header=spec.header, texts=of_texts, format=spec.format)
    found = [read.cells[name] for name in of_texts if name in read.cells]
    targets = None
    if examples == "scored":
        targets = _scaled(path, spec, scores(path, spec.label, read.cells[spec.label], read.line_numbers), read)
    notes, lines, members = read.notes, read.line_numbers, len(found)
    if examples == "texts" and members > 1:
        notes = (*notes, f"{path.name}: both {spec.text} and {spec.text_pair} of each row are texts")
        lines, members = np.concatenate([lines, lines]), 1
    texts, margins = Texts(text for column in found for text in column), _taught(path, taught, read)
    return EmbeddingSplit(texts, members, targets, lines, notes, taught=margins)


def _taught(path: Path, names: tuple[str, ...], read: Columns) -> np.ndarray | None:
    """(3 triplets,): the scores of the second and of the third texts, the first ones without."""
    if not names:
        return None
    first, *second = (scores(path, name, read.cells[name], read.line_numbers) for name in names)
    nothing = np.zeros_like(first)
    return np.concatenate([nothing, first, *(second or [nothing])])


def _retrieval(path: Path, spec: TaskSpec) -> EmbeddingSplit:
    """Queries, and behind them the candidates of all of them, each text once."""
    lists, notes = read_ranking(path, RankingFormat(), spec.format, spec.header, True, False)
    places: dict[str, int] = {}
    relevance: dict[tuple[int, int], float] = {}
    for row, each in enumerate(lists):
        for text, label in zip(each.texts, each.labels):
            key = row, places.setdefault(text, len(places))
            relevance[key] = max(label, relevance.get(key, label))
    rows = np.array([row for row, _ in relevance], np.int64)
    ends = np.searchsorted(rows, np.arange(len(lists) + 1))
    return EmbeddingSplit(
        Texts([*(each.query for each in lists), *places]), 1, np.array(list(relevance.values()), np.float32),
        np.array([each.line for each in lists], np.int64), notes, ends, np.array([place for _, place in relevance], np.int64),
    )  # fmt: skip


def _scaled(path, spec: TaskSpec, values: np.ndarray, read) -> np.ndarray:
    """Scores of a file as numbers from 0 to 1."""
    low, high = spec.embedded.lowest, spec.embedded.highest
    outside = np.flatnonzero((values < low) | (values > high))
    if len(outside):
        row = outside[0]
        got = f"got score {shown(read.cells[spec.label][row])} in '{spec.label}'"
        way = "task.embeddings.scores says the range"
        raise DataError(f"{path}:{read.line_numbers[row]}: {got}, expected {low:g} to {high:g}; {way}")
    return ((values - np.float32(low)) / np.float32(high - low)).astype(np.float32)


def _lines(path: Path, format: EmbeddingFormat) -> EmbeddingSplit:
    """A text a line; empty lines are none."""
    texts, numbers = text_lines(path, format.encoding, "task.encoding: {}")
    if not len(numbers):
        raise DataError(f"{path}: holds no text")
    return EmbeddingSplit(texts, 1, None, numbers, ())
