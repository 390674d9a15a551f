"""Losses on the logits: the task's own loss, and soft-target distillation.

Formulas, with z the logits (B, C), y the labels, T the temperature, and the mean over the B examples of a batch:
  hard_label   classification: -log softmax(z_S)[y];  regression: (z_S - y)^2
  kd_ce        -sum_c softmax(z_T / T)_c log softmax(z_S / T)_c, times T^2   (Hinton et al. 2015, section 2)
  kd_mse       mean_c ((z_S - z_T) / T)^2                                    (Ba and Caruana 2014; Tang et al. 2019)
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .base import LossTerm, TermContext, sum_rows


class HardLabel(LossTerm):
    """Cross-entropy with the labels, or their squared error in a regression task."""

    loss: Literal["hard_label"]

    def function(self, context: TermContext):
        if context.regression:

            def squared_error(ops, student, teacher, batch):
                difference = ops.reshape(student["logits"], (-1,)) - batch["labels"]
                return sum_rows(ops, difference * difference, batch)

            return squared_error

        def cross_entropy(ops, student, teacher, batch):
            return -sum_rows(ops, ops.pick(ops.log_softmax(student["logits"]), batch["labels"]), batch)

        return cross_entropy


class KnowledgeDistillationCrossEntropy(LossTerm):
    """Cross-entropy of the softened distributions.

    `reduction: mean` divides by the number of classes too, as several published codes do (`KLDivLoss` with its default
    reduction); `batchmean` is the formula of the paper.
    """

    loss: Literal["kd_ce"]
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    temperature_squared: bool = True
    reduction: Literal["batchmean", "mean"] = "batchmean"

    needs_teacher: ClassVar[bool] = True

    def problems(self, context: TermContext):
        if context.regression:
            return [("loss", "kd_ce needs classes, but the task is a regression; use kd_mse")]
        return []

    def function(self, context: TermContext):
        inverse_temperature = 1.0 / self.temperature
        scale = self.temperature**2 if self.temperature_squared else 1.0
        if self.reduction == "mean":
            scale = scale / context.outputs

        def soft_cross_entropy(ops, student, teacher, batch):
            targets = ops.softmax(ops.stop_gradient(teacher["logits"]) * inverse_temperature)  # (B, C)
            log_probabilities = ops.log_softmax(student["logits"] * inverse_temperature)
            return sum_rows(ops, ops.sum(targets * log_probabilities, axis=1), batch) * -scale

        return soft_cross_entropy


class KnowledgeDistillationMeanSquaredError(LossTerm):
    """Squared difference of the logits, averaged over the classes."""

    loss: Literal["kd_mse"]
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)

    needs_teacher: ClassVar[bool] = True

    def function(self, context: TermContext):
        scale = 1.0 / (context.outputs * self.temperature**2)

        def squared_difference(ops, student, teacher, batch):
            difference = student["logits"] - ops.stop_gradient(teacher["logits"])  # (B, C)
            return sum_rows(ops, ops.sum(difference * difference, axis=1), batch) * scale

        return squared_difference


LOSSES: dict[str, type[LossTerm]] = {
    "hard_label": HardLabel,
    "kd_ce": KnowledgeDistillationCrossEntropy,
    "kd_mse": KnowledgeDistillationMeanSquaredError,
}
