"""Classification: an example has one of the classes."""

from __future__ import annotations

import numpy as np

from ..data.labels import class_indices, found_labels, label_text
from ..metrics import BINARY_METRICS, CLASSIFICATION_METRICS
from .kind import Kind


class OneClass(Kind):
    """`targets` (examples,) int32 are numbers of classes."""

    name, title, described = "classification", "classification", "a classification"
    problem_type = "single_label_classification"
    one_class = True
    target_type = np.dtype("<i4")
    default_metrics = ("accuracy", "macro_f1")
    page = "classes"
    values_code = "powers = np.exp(logits.astype(np.float64) - logits.max())\nprobabilities = powers / powers.sum()"

    def metrics(self, classes):
        return tuple(name for name in CLASSIFICATION_METRICS if classes == 2 or name not in BINARY_METRICS)

    def found_labels(self, path, cells, line_numbers, name):
        return found_labels(path, cells, line_numbers, lambda cell, line: (label_text(path, cell, line, name),))

    def targets(self, path, name, labels, cells, line_numbers, source):
        return class_indices(path, name, labels, cells, line_numbers, source)

    def cell(self, labels, target):
        return labels[int(target)]

    def counts(self, targets, classes):
        return np.bincount(targets, minlength=classes)

    def digest(self, labels, targets):
        return [labels[target] for target in targets]

    def drawn(self, generator, rows, outputs):
        return generator.integers(0, outputs, rows).astype(np.int32)

    def answers(self, logits):
        return logits.argmax(axis=1)[:, None]

    def right(self, logits, targets):
        return logits.argmax(axis=1) == targets

    def values(self, logits):
        powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def errors(self, logits, targets):
        return ~self.right(logits, targets), self.values(logits).max(axis=1)

    def distance(self, values, others):
        """The share of probability that is elsewhere."""
        return 0.5 * np.abs(values - others).sum(axis=1)

    def share(self, values):
        return float(values.max())

    def answer_text(self, labels, logits):
        return labels[int(logits.argmax())]

    def target_text(self, labels, target):
        return labels[int(target)]

    def constant_text(self, labels, logits):
        return f"'{self.answer_text(labels, logits)}'"

    def prediction(self, labels, values):
        by_label = dict(zip(labels, map(float, values), strict=True))
        return {"label": max(by_label, key=by_label.get), "probabilities": by_label}
