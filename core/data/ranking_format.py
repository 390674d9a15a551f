"""What lists of candidates are, as a recipe's `task.ranking` says."""

from __future__ import annotations

from dataclasses import dataclass

CANDIDATES = 8
"""How many candidates a training example has, where a recipe does not say it."""


@dataclass(frozen=True)
class RankingFormat:
    """How the files are read; a column that is None is looked for under the names that people give it."""

    query: str | None = None
    candidates: str | None = None
    label: str | None = None
    positive: str | None = None
    negative: str | None = None
    teacher_scores: tuple[str, ...] = ()
    """The column of a teacher's scores; two, where positives and negatives have their own."""
    most: int = CANDIDATES
    """How many candidates of a query a training example has at most."""
    labelled: bool = True
    """Whether the training file says which candidates are relevant."""
