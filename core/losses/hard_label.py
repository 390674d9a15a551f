"""The task's own loss: its labels against the student's logits z (B, C), with label smoothing e and class weights w.

With y the labels, s the sigmoid, and t the smoothed labels:
  classes         t = (1 - e) [c = y] + e / C;  sum over the labelled examples of -sum_c w_c t_c log softmax(z)_c, divided by the
                  sum of their w_y (torch.nn.CrossEntropyLoss with weight, label_smoothing and reduction="mean")
  several labels  t = (1 - e) y + e / 2;  mean over the labelled examples and the classes of
                  -(w_c t_c log s(z_c) + (1 - t_c) log s(-z_c))  (torch.nn.BCEWithLogitsLoss with pos_weight)
  a number        mean over the labelled examples of (z - y)^2
  part of a text  as classes, which are the text's tokens, the mean over its beginning and its end
Both sums are over the whole effective batch, so neither accumulation nor several devices change a value.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from ..shown import shown
from .base import LossTerm, TermContext, sum_rows
from .logits import pairs_of, summed_classes

BALANCED = "balanced"


class HardLabel(LossTerm):
    """Cross-entropy with the labels, their squared error in a regression task, or the mean over the classes of the binary
    cross-entropy where an example has several labels. Examples without a label do not count."""

    newer: ClassVar[tuple[str, ...]] = ("label_smoothing", "class_weights")

    loss: Literal["hard_label"]
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """How much of each label is shared out among all classes."""
    class_weights: Literal["balanced"] | tuple[float, ...] | dict[str, float] | None = None
    """What an example of each class counts: class -> weight, the weights in the order of the classes, or `balanced`: examples /
    (classes x examples of the class), in the training data. Where an example has several labels: what a label that is there
    counts against one that is not; `balanced`: examples without it / examples with it."""

    formula: ClassVar[str] = (
        "-log softmax(z_S)[y]; regression: (z_S - y)^2; multi-label: binary cross-entropy   (BERT, Devlin et al. 2018)"
    )

    @field_validator("class_weights", mode="before")
    @classmethod
    def _weights(cls, value: Any) -> Any:
        if value is None or value == BALANCED:
            return value
        expected = "expected balanced, a list of weights, or a mapping of classes to weights"
        if not isinstance(value, list | tuple | dict) or not value:
            raise ValueError(f"got {shown(value)}, {expected}")
        named = isinstance(value, dict)
        for key, weight in value.items() if named else enumerate(value):
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
                raise ValueError(f"{shown(key) if named else f'weight {key}'}: got {shown(weight)}, expected a number above 0")
        # YAML reads the classes 0 and 1 as numbers; in the data they are text.
        return {str(key): float(weight) for key, weight in value.items()} if named else tuple(map(float, value))

    @property
    def unit(self):
        return "labelled"

    def counter(self, context: TermContext):
        if self.class_weights is None or not context.kind.one_class:
            return super().counter(context)
        weights = self._of_classes(context).astype(np.float64)

        def weight_of_labels(batch):
            counted = batch["example_mask"] * batch.get("label_mask", 1.0)
            labelled = counted > 0
            return float((weights[batch["labels"][labelled]] * counted[labelled]).sum())

        return weight_of_labels

    def problems(self, context: TermContext):
        if context.outputs is None:
            return [("loss", f"hard_label needs labels, but the task is {context.kind.described}")]
        if context.kind.ranks:
            return [("loss", "hard_label is for single answers, but the task is a ranking; use ranking_bce or ranking_mse")]
        if context.kind.own_losses:
            return [("loss", f"hard_label does not know what the logits of {context.kind.described} mean; its plugin has a loss")]
        if not context.kind.has_classes:
            given = {"label_smoothing": self.label_smoothing, "class_weights": self.class_weights}
            return [(key, f"is for classes, but the task is {context.kind.described}") for key, value in given.items() if value]
        problem = self._problem_of_weights(context)
        return [] if problem is None else [("class_weights", problem)]

    def _problem_of_weights(self, context: TermContext) -> str | None:
        weights, classes = self.class_weights, context.outputs
        if isinstance(weights, tuple) and len(weights) != classes:
            return f"got {len(weights)} weights, expected {classes}, one for each class{_listed(context)}"
        if isinstance(weights, dict) and context.labels is not None and set(weights) != set(context.labels):
            wrong = [shown(name) for name in weights if name not in context.labels] or ["none"]
            missing = [shown(name) for name in context.labels if name not in weights] or ["none"]
            what = f"unknown: {', '.join(wrong)}; missing: {', '.join(missing)}"
            return f"expected a weight for each class{_listed(context)}; {what}"
        if weights == BALANCED and context.label_counts is not None:
            for index, count in enumerate(context.label_counts):
                name = f"class {index}" if context.labels is None else shown(context.labels[index])
                if not count or (not context.kind.one_class and count == context.labelled):
                    return f"balanced: {'no' if not count else 'every'} training example has {name}: give the weights"
        return None

    def _of_classes(self, context: TermContext) -> np.ndarray:
        """(C,) float32."""
        weights = self.class_weights
        if weights is None:
            return np.ones(context.outputs, np.float32)
        if isinstance(weights, dict):
            weights = [weights[name] for name in context.labels or sorted(weights)]
        elif weights == BALANCED:
            if context.label_counts is None:
                raise ValueError("class_weights: balanced needs the training data")
            counts = np.asarray(context.label_counts, np.float64)
            weights = (context.labelled / len(counts) if context.kind.one_class else context.labelled - counts) / counts
        return np.asarray(weights, np.float32)

    def function(self, context: TermContext, label: str):
        classes, smoothing = context.outputs, self.label_smoothing
        weights = None if self.class_weights is None else self._of_classes(context)

        def sum_labelled(ops, values, batch):
            return sum_rows(ops, values * batch["label_mask"], batch)

        if not context.kind.one_class and not context.kind.has_classes:

            def squared_error(ops, params, student, teacher, batch):
                difference = ops.reshape(student["logits"], (-1,)) - batch["labels"]
                return sum_labelled(ops, difference * difference, batch)

            return squared_error

        if not context.kind.one_class:

            def binary_cross_entropy(ops, params, student, teacher, batch):
                targets = batch["labels"]
                if smoothing:
                    targets = targets * (1.0 - smoothing) + smoothing / 2.0
                absent = ops.reshape(1.0 - targets, (-1, 1))
                present = targets if weights is None else targets * ops.constant(weights)
                both = ops.concat([ops.reshape(present, (-1, 1)), absent], 1)
                products = both * ops.log_softmax(pairs_of(ops, student["logits"]))
                return sum_labelled(ops, summed_classes(ops, products, student["logits"]), batch) * (-1.0 / classes)

            return binary_cross_entropy

        if weights is None and not smoothing:

            def cross_entropy(ops, params, student, teacher, batch):
                return -sum_labelled(ops, ops.pick(ops.log_softmax(student["logits"]), batch["labels"]), batch)

            return cross_entropy

        own = np.ones(classes, np.float32) if weights is None else weights

        def weighted_cross_entropy(ops, params, student, teacher, batch):
            targets = ops.one_hot(batch["labels"], classes) * (1.0 - smoothing) + smoothing / classes
            products = targets * ops.constant(own) * ops.log_softmax(student["logits"])
            return -sum_labelled(ops, ops.sum(products, axis=1), batch)

        return weighted_cross_entropy


def _listed(context: TermContext) -> str:
    if context.labels is None:
        return ""
    names = [shown(name) for name in context.labels[:20]]
    return f" ({', '.join(names)}{', ...' if len(context.labels) > 20 else ''})"
