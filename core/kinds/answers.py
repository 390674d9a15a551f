"""Extractive question answering: the answer to a question is a part of a text, its context.

`targets` (questions, 2) int32 say from which character to which the answer is, -1 where there is none. `logits` (batch, length,
2) say of each token how well an answer begins and ends there; of a split what is kept is (questions, 2) float32, the exact
match and the F1 of each question's answer.
"""

from __future__ import annotations

import numpy as np

from ..metrics import ANSWER_METRICS, MORE_UNANSWERABLE_METRICS, UNANSWERABLE_METRICS
from ..models.answer_heads import SPANS
from .kind import Kind


class Answers(Kind):
    """A part of a text for each question."""

    name, title, described = "question_answering", "question answering", "a question answering"
    head = SPANS
    what = "questions"
    has_classes = False
    is_used = False
    one_class = True
    of_spans = True
    default_metrics = ANSWER_METRICS
    page = "questions"
    target_type = np.dtype("<i4")

    def outputs(self, labels):
        return 2

    def metrics_of(self, with_none: bool) -> tuple[str, ...]:
        """The names of all metrics; `with_none` is whether questions may have no answer."""
        more = (*UNANSWERABLE_METRICS, *MORE_UNANSWERABLE_METRICS) if with_none else ()
        return (*ANSWER_METRICS, *more)

    def drawn(self, generator, rows, outputs):
        return generator.integers(0, 4, (rows, 2)).astype(np.int32)

    def differs(self, logits, others, limit):
        return (np.abs(logits - others) > limit).any(axis=1)

    def right(self, logits, targets):
        return logits[:, 0] > 0.5

    def values(self, logits):
        return logits.astype(np.float64)

    def errors(self, logits, targets):
        """How far the F1 is from 1."""
        return logits[:, 0] < 0.5, 1.0 - self.values(logits)[:, 1]

    def distance(self, values, others):
        return np.abs(values - others)[:, 1]

    def answer_text(self, labels, logits):
        return "exact" if logits[0] > 0.5 else f"F1 {float(logits[1]):.2f}"

    def target_text(self, labels, target):
        return "exact"
