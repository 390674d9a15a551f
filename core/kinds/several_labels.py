"""Multi-label classification: an example has any number of the labels; each logit decides about one label alone."""

from __future__ import annotations

import numpy as np

from ..data.labels import SEPARATOR, found_labels, label_rows, label_set
from ..metrics import MULTI_LABEL_DEFAULTS, MULTI_LABEL_METRICS
from .kind import Kind


class SeveralLabels(Kind):
    """`targets` (examples, labels) float32 are 1 where an example has a label."""

    name, title, described = "multi_label", "multi-label classification", "one with several labels an example"
    problem_type = "multi_label_classification"
    default_metrics = MULTI_LABEL_DEFAULTS
    page = "several"
    values_code = "probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))"

    def metrics(self, classes):
        return MULTI_LABEL_METRICS

    def found_labels(self, path, cells, line_numbers, name):
        return found_labels(path, cells, line_numbers, lambda cell, line: label_set(path, cell, line, name))

    def targets(self, path, name, labels, cells, line_numbers, source):
        return label_rows(path, name, labels, cells, line_numbers, source)

    def cell(self, labels, target):
        return SEPARATOR.join(name for name, value in zip(labels, target) if value)

    def record_size(self, outputs):
        return outputs

    def record_limit(self, outputs):
        return 2

    def counts(self, targets, classes):
        return targets.sum(axis=0).astype(np.int64)

    def drawn(self, generator, rows, outputs):
        return generator.integers(0, 2, (rows, outputs)).astype(np.float32)

    def answers(self, logits):
        return logits > 0  # the sigmoid is then above 0.5

    def right(self, logits, targets):
        return ((logits > 0) == (targets > 0.5)).all(axis=1)

    def values(self, logits):
        return np.exp(-np.logaddexp(0.0, -logits.astype(np.float64)))  # the sigmoid, which overflows for no number

    def errors(self, logits, targets):
        share = self.values(logits)
        wrong = (share > 0.5) != (targets > 0.5)
        return wrong.any(axis=1), np.where(wrong, np.where(share > 0.5, share, 1 - share), 0.0).max(axis=1)

    def distance(self, values, others):
        """Of labels that are independent, that of the one that differs most."""
        return np.abs(values - others).max(axis=1)

    def answer_text(self, labels, logits):
        return _listed(labels, logits > 0.0) or "none"

    def target_text(self, labels, target):
        return _listed(labels, target > 0.5) or "none"

    def constant_text(self, labels, logits):
        return _listed(labels, logits > 0.0) or "no label"

    def prediction(self, labels, values):
        by_label = dict(zip(labels, map(float, values), strict=True))
        return {"probabilities": by_label, "labels": tuple(label for label in by_label if by_label[label] > 0.5)}


def _listed(labels, is_there) -> str:
    return ", ".join(name for name, there in zip(labels, is_there, strict=True) if there)
