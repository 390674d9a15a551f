"""How many examples of a split are used: a quick try, or a learning curve."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..errors import DataError
from .tasks import Examples
from .texts import Texts


def limit_of(limit: int | Mapping[str, int] | None, split: str) -> int | None:
    """How many examples of a split a recipe wants; None: all. MNLI's second dev set is as the first."""
    return limit.get(split.removesuffix("_mismatched")) if isinstance(limit, Mapping) else limit


def limited(examples: Examples, limit: int | Mapping[str, int] | None, split: str, key: str = "task") -> Examples:
    """So many examples of a split, drawn at random and in the file's order, since many files are sorted by class. The draw
    depends on their number only, so that runs with other seeds have the same. A limit above what there is changes nothing.
    Raises DataError, which names the key of the section."""
    count, total = limit_of(limit, split), len(examples)
    if count is None or count >= total:
        return examples
    if examples.tokens is not None:
        raise DataError(f"{key}.limit: {examples.source} holds records of tokens; only texts can be limited")
    rows = np.sort(np.random.default_rng([zlib.crc32(split.encode()), count]).permutation(total)[:count])
    if examples.among is not None:
        way = f"{key}.limit: {{train: {count}}} is for train alone"
        raise DataError(f"{key}.limit: {examples.source} has the texts that all queries are searched in; {way}")
    note = f"{examples.source.name}: {count:,} of {total:,} rows are used ({key}.limit), drawn at random"
    if examples.lists is not None:
        note = note.replace(" rows ", " queries ")
        return replace(_of_lists(examples, rows), notes=(*examples.notes, note))
    members = [row + part * total for part in range(examples.members) for row in rows]
    return replace(
        examples,
        texts=Texts(examples.texts[row] for row in members),
        pairs=None if examples.pairs is None else Texts(examples.pairs[row] for row in rows),
        labels=None if examples.labels is None else examples.labels[rows],
        line_numbers=examples.line_numbers[rows],
        row_scores=None if examples.row_scores is None else examples.row_scores[members],
        by_spaces=None if examples.by_spaces is None else examples.by_spaces[rows],
        asked=None if examples.asked is None else examples.asked.of(rows),
        notes=(*examples.notes, note),
    )


def _of_lists(examples: Examples, chosen: np.ndarray) -> Examples:
    """The chosen ones of lists of candidates."""
    starts, ends = examples.lists[:-1][chosen], examples.lists[1:][chosen]
    rows = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends)])
    labels, taught = (values if values is None else values[rows] for values in (examples.labels, examples.row_scores))
    return replace(
        examples,
        texts=Texts(examples.texts[row] for row in rows),
        pairs=Texts(examples.pairs[row] for row in rows),
        labels=labels,
        row_scores=taught,
        line_numbers=examples.line_numbers[chosen],
        lists=np.concatenate([[0], np.cumsum(ends - starts)]),
    )
