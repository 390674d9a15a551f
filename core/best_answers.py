"""From the logits of windows to an answer for each question: the best pair of a first and a last token in its context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .answer_scores import best_threshold, scores_of, which_scores
from .data.answer_format import AnswerFormat
from .data.token_table import TokenTable
from .metrics import ANSWER_METRICS, check_finite


@dataclass(frozen=True)
class Answer:
    """What a model answers to a question."""

    text: str
    """A part of the context; empty for "no answer"."""
    start: int
    """Where it begins in the context, in characters; -1 for "no answer"."""
    end: int
    score: float
    """The sum of the two logits of the best part of the context, be it the answer or not."""
    null_score: float
    """The sum of those of the first token, the least of all windows: what speaks for "no answer"."""
    probability: float
    """That of the best part, in its window: the product of the two softmaxes over the window's tokens."""
    best: str
    """The best part, be it the answer or not."""

    @property
    def null_difference(self) -> float:
        """What is compared with the threshold."""
        return self.null_score - self.score

    def said(self) -> dict[str, Any]:
        """What predictions say of it."""
        return {
            "answer": self.text, "start": self.start, "end": self.end, "score": self.score, "null_score": self.null_score,
            "probability": self.probability,
        }  # fmt: skip


def best_answers(table: TokenTable, logits: np.ndarray, contexts: Sequence[str], format: AnswerFormat) -> list[Answer]:
    """An answer for each question, by the logits (tokens, 2) of the table's tokens. Of all pairs of a first and a last token, of
    which the first is taken from the window where it has most around it, that with the highest sum of logits, over all windows
    of the question; it has at most `answer_length` tokens and is never a part of the question. Raises TrainingError for logits
    that are not finite."""
    check_finite(logits, "tokens")
    rows_of = np.searchsorted(table.examples, np.arange(len(contexts) + 1))
    return [
        best_answer(table, logits, range(first, end), contexts[number], format)
        for number, (first, end) in enumerate(zip(rows_of[:-1], rows_of[1:]))
    ]


def best_answer(table: TokenTable, logits: np.ndarray, rows: Sequence[int], context: str, format: AnswerFormat) -> Answer:
    """The same of one question, whose windows are these rows of the table."""
    best, place, null, chosen = -np.inf, (0, 0), np.inf, None
    for row in rows:
        first, end = int(table.offsets[row]), int(table.offsets[row + 1])
        starts, ends = logits[first:end].astype(np.float64).T
        null = min(null, float(starts[0] + ends[0]))
        is_context = table.places[first:end, 0] >= 0
        ends = np.where(is_context, ends, -np.inf)
        room = np.concatenate([ends, np.full(format.answer_length - 1, -np.inf)])
        following = np.lib.stride_tricks.sliding_window_view(room, format.answer_length)  # (tokens, answer length)
        last = following.argmax(axis=1)
        sums = np.where(table.owned[first:end], starts + following[np.arange(len(last)), last], -np.inf)
        found = int(sums.argmax())
        if sums[found] > best:
            best, place, chosen = float(sums[found]), (found, found + int(last[found])), (first, end)
    at = table.places[chosen[0] : chosen[1]]
    start, end = int(at[place[0], 0]), int(at[place[1], 1])
    own = logits[chosen[0] : chosen[1]].astype(np.float64)
    own = own - own.max(axis=0)
    shares = own - np.log(np.exp(own).sum(axis=0))
    probability = float(np.exp(shares[place[0], 0] + shares[place[1], 1]))
    text = context[start:end]
    if format.unanswerable and null - best > format.null_threshold:
        return Answer("", -1, -1, best, null, probability, text)
    return Answer(text, start, end, best, null, probability, text)


def answers_score(
    names: Sequence[str], answers: Sequence[Answer], golds: Sequence[Sequence[str]], format: AnswerFormat
) -> tuple[dict[str, float], np.ndarray]:
    """(the metrics of these names, what each answer scored: (questions, 2) float32 exact match and F1). `golds` are the right
    answers to each question; none where the context does not tell."""
    which = which_scores(golds) if format.scores == "auto" else format.scores
    score, with_none = scores_of(which, format.unanswerable), format.unanswerable
    scores = np.array([score(answer.text, right) for answer, right in zip(answers, golds, strict=True)], np.float64)
    found = dict(zip(ANSWER_METRICS, scores.mean(axis=0).tolist()))
    if with_none:
        possible = np.array([bool(each) for each in golds])
        parts = {"has_answer_exact": scores[possible, 0], "has_answer_f1": scores[possible, 1]}
        parts["no_answer_exact"] = scores[~possible, 0]
        found |= {name: float(each.mean()) if len(each) else 0.0 for name, each in parts.items()}
        differences = np.array([answer.null_difference for answer in answers])
        answered = np.array([score(answer.best, right) for answer, right in zip(answers, golds)])
        for column, name in enumerate(("best_exact", "best_f1")):
            found[name], found[f"{name}_threshold"] = best_threshold(differences, answered[:, column], possible)
    return {name: found[name] for name in names}, scores.astype(np.float32)
