"""Regression: the answer is a real number."""

from __future__ import annotations

import numpy as np

from ..data.labels import scores
from ..metrics import REGRESSION_METRICS
from .kind import Kind


class OneNumber(Kind):
    """`targets` (examples,) float32 are the numbers; there is one logit, and there are no classes."""

    name, title, described = "regression", "regression", "a regression"
    problem_type = "regression"
    has_classes = False
    default_metrics = REGRESSION_METRICS
    page = "scores"
    record_type = np.dtype(np.float32)

    def outputs(self, labels):
        return 1

    def can_teach(self, other):
        # What a number means is the task's: a cross-encoder of pairs may have been trained for either.
        return isinstance(other, OneNumber) and self.embeds == other.embeds

    def metrics(self, classes):
        return REGRESSION_METRICS

    def targets(self, path, name, labels, cells, line_numbers, source):
        return scores(path, name, cells, line_numbers)

    def cell(self, labels, target):
        return str(np.float32(target))

    def record_limit(self, outputs):
        return None

    def drawn(self, generator, rows, outputs):
        return generator.normal(2, 1, rows).astype(np.float32)

    def differs(self, logits, others, limit):
        return np.abs(logits - others)[:, 0] > limit

    def values(self, logits):
        return logits.astype(np.float64)

    def errors(self, logits, targets):
        """Always "wrong", by the distance."""
        distance = np.abs(self.values(logits)[:, 0] - targets)
        return np.ones(len(distance), bool), distance

    def distance(self, values, others):
        return np.abs(values - others)[:, 0]

    def answer_text(self, labels, logits):
        return f"{float(np.ravel(logits)[0]):.4g}"

    target_text = answer_text

    def prediction(self, labels, values):
        return {"score": float(values[0])}
