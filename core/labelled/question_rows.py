"""The answers of a file at their places in the contexts of questions. Which questions it covers, what is left out and what is
told of it is as for whole texts (`labelled_rows`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..data.answer_tasks import Asked
from ..data.tasks import Examples
from ..data.taught import nothing_known
from ..data.taught_answers import TaughtAnswers
from ..errors import DataError
from .answer_places import Located, Place
from .found_rows import Join, joined
from .labelled_file import Answers
from .said import BadRecord
from .word_answers import Notes


def taught_answers(join: Join, examples: Examples, split: str, notes: Notes) -> TaughtAnswers:
    """What the file says of the questions of a split. Raises DataError, which names the line of an answer that does not fit."""
    count = len(examples)
    found = TaughtAnswers(
        **nothing_known(count, count),
        gold=np.full(count, examples.labels is not None),
        places=np.zeros((0, 2), np.int32),
        shares=np.zeros(0),
        rest=np.zeros(count),
        floor=join.section.floor,
    )
    of_rows: dict[int, dict[Place, float]] = {}
    for row, answers in joined(join, examples, split, found.cost):
        votes = _votes(join, answers, examples.pairs[row], notes)
        if not votes:
            found.abstained[row] = True
            continue
        found.answered[row] = True
        shares: dict[tuple[Place, ...], float] = {}
        for vote in votes:
            for places, share in vote.shares.items():
                shares[places] = shares.get(places, 0.0) + share / len(votes)
        best = max(shares, key=shares.get)
        of_rows[row] = _at_places({best: shares[best], **shares})
        found.rest[row] = np.mean([vote.rest for vote in votes])
        found.agreement[row] = np.mean([vote.shares.get(best, 0.0) if vote.are_votes else vote.best == best for vote in votes])
        found.soft[row] = len(shares) > 1 or found.rest[row] > 0
        if answers.confidences:
            found.confidence[row] = np.mean(answers.confidences)
        elif found.soft[row]:
            found.confidence[row] = shares[best]
    flat = [pair for row in range(count) for pair in of_rows.get(row, {}).items()]
    return replace(
        found,
        places=np.array([place for place, _ in flat], np.int32).reshape(-1, 2),
        shares=np.array([share for _, share in flat], np.float64),
        firsts=np.concatenate([[0], np.cumsum([len(of_rows.get(row, ())) for row in range(count)])]).astype(np.int64),
    )


def _votes(join: Join, answers: Answers, context: str, notes: Notes) -> list[Located]:
    found = []
    for read in answers.values:
        try:
            located = join.file.classes.located(read, context, notes)
        except BadRecord as error:
            raise DataError(f"{join.file.path}:{read.line}: {error}") from None
        if located is not None:
            found.append(located)
    return found


def _at_places(shares: dict[tuple[Place, ...], float]) -> dict[Place, float]:
    """What each place has, of answers that are shared evenly by theirs."""
    found: dict[Place, float] = {}
    for places, share in shares.items():
        for place in places:
            found[place] = found.get(place, 0.0) + share / len(places)
    return found


def with_golds(examples: Examples, taught: TaughtAnswers, rows: np.ndarray) -> Examples:
    """The examples with the file's best answers to these `rows` (booleans) as those that are right."""
    said = said_texts(examples.pairs, taught.best)
    golds = tuple(own if wanted else right for own, right, wanted in zip(said, examples.asked.golds, rows.tolist()))
    return replace(examples, asked=Asked(examples.asked.ids, golds))


def said_texts(contexts, places: np.ndarray) -> list[tuple[str, ...]]:
    """The answers at `places` (questions, 2) of their contexts, empty where the context has none."""
    return [(context[start:end],) if start >= 0 else () for context, (start, end) in zip(contexts, places.tolist())]
