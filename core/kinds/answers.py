"""Extractive question answering: the answer to a question is a part of a text, its context.

`targets` (questions, 2) int32 say from which character to which the answer is, -1 where there is none. `logits` (batch, length,
2) say of each token how well an answer begins and ends there; of a split what is kept is (questions, 2) float32, the exact
match and the F1 of each question's answer.
"""

from __future__ import annotations

import numpy as np

from ..best_answers import best_answer
from ..data.answer_format import format_of
from ..data.answer_tokens import question_table
from ..metrics import ANSWER_METRICS, MORE_UNANSWERABLE_METRICS, UNANSWERABLE_METRICS
from ..models.answer_heads import SPANS
from .asked import Asked
from .kind import Kind


class Answers(Kind):
    """A part of a text for each question."""

    name, title, described = "question_answering", "question answering", "a question answering"
    head = SPANS
    what = "questions"
    has_classes = False
    endpoint = "/answer"
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

    def fill(self, rows, like):
        return np.full((rows, 2), -1, like.dtype)  # without an answer

    def drawn(self, generator, rows, outputs):
        return generator.integers(0, 4, (rows, 2)).astype(np.int32)

    def differs(self, logits, others, limit):
        return (np.abs(logits - others) > limit).any(axis=1)

    def agrees(self, said, others):
        """1 where two models answer with the same part of the context, be it none."""
        return (said == others).all(axis=1).astype(np.float64)

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

    def asked(self, tokenizer, texts, pairs, length, labels, task):
        """A context that is longer than a row of `length` tokens is read in windows, each behind the question, of which
        `question_length` tokens are read."""
        format = format_of(task)
        table = question_table(texts, pairs, None, tokenizer, length, format)
        rows = np.searchsorted(table.examples, np.arange(len(texts) + 1))
        asked = tokenizer.library.encode_batch(list(texts), add_special_tokens=False)
        cut = np.array([len(question.ids) > format.question_length for question in asked], bool)

        def answers(numbers, logits):
            own = np.zeros((len(table.ids), 2), np.float32)
            for number, found in zip(numbers, logits, strict=True):
                for row, of_row in zip(range(rows[number], rows[number + 1]), found, strict=True):
                    first, end = table.offsets[row], table.offsets[row + 1]
                    own[first:end] = of_row[: end - first]
            return [
                best_answer(table, own, range(rows[number], rows[number + 1]), pairs[number], format).said() for number in numbers
            ]

        return Asked(table, table.examples, cut, answers)
