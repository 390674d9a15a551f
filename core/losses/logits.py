"""Losses between the logits of student and teacher: soft-target distillation.

Formulas, with z the logits (B, C), T the temperature, s the sigmoid:
  kd_ce           mean over the examples of -sum_c softmax(z_T / T)_c log softmax(z_S / T)_c, times T^2
                  (Hinton et al. 2015, section 2)
  kd_mse          mean over the examples of mean_c ((z_S - z_T) / T)^2       (Ba and Caruana 2014; Tang et al. 2019)
  kd_multi_label  mean over the examples of mean_c -(p log s(z_Sc / T) + (1 - p) log s(-z_Sc / T)), p = s(z_Tc / T),
                  times T^2
Where an answer is a part of a text, its tokens are the classes, of its beginning and of its end, and each of the two is an
example; kd_mse is the mean over both and all tokens.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..models.outputs import LOGITS
from .base import UNITS, LossTerm, TermContext, sum_rows
from .temperature import TemperatureSchedule, make_soften, make_sums


def pairs_of(ops, x):
    """(B, C) to (B C, 2): each entry beside a 0, so that a softmax of two is (s(x), s(-x)), and its logarithm is exact
    however large x is."""
    column = ops.reshape(x, (-1, 1))
    return ops.concat([column, column * 0.0], 1)


def summed_classes(ops, values, x):
    """(B C, 2) to (B,): the sum over both sides and all classes of `x` (B, C)."""
    return ops.sum(ops.reshape(ops.sum(values, axis=1), ops.shape(x)), axis=1)


class LogitsMatch(LossTerm):
    """Base of the terms that compare the student's logits with a teacher's: `teacher`, or where it is not given the mean
    of all teachers' logits, weighted as the recipe says."""

    teacher: str | None = None
    """Which teacher, where there are several; the mean of their logits where it is not given."""
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """What the logits of both are divided by."""

    needs_teacher: ClassVar[bool] = True

    def problems(self, context: TermContext):
        if context.outputs is None:
            return [("loss", f"{self.loss} needs logits, but the task is {context.kind.described}")]
        if context.kind.ranks:
            return [("loss", f"{self.loss} compares single answers, but the task is a ranking; use ranking_mse with by: teacher")]
        if self.teacher is not None and self.teacher not in context.teachers:
            known = ", ".join(context.teachers)
            return [("teacher", f"'{self.teacher}' is not one of the teachers: {known}")]
        return []

    def teacher_outputs(self, context):
        return super().teacher_outputs(context) if self.teacher is None else {self.teacher: frozenset({LOGITS})}

    def _own_logits(self, context: TermContext) -> list[tuple[str, str]]:
        """The problem of a term that makes probabilities of logits whose meaning only other losses know."""
        if not context.kind.own_losses:
            return []
        told = f"{self.loss} does not know what the logits of {context.kind.described} mean"
        return [("loss", f"{told}; kd_mse compares them as they are, or its plugin has a loss")]

    @property
    def teacher_key(self) -> str:
        """Where the teacher's logits are among the teachers' outputs."""
        return LOGITS if self.teacher is None else f"{self.teacher}/{LOGITS}"


class ClassLogitsMatch(LogitsMatch):
    """Base of the terms whose teacher or temperature may depend on the example.

    `temperature_schedule` gives each example a temperature of its own (`core.losses.temperature`); `temperature` is then
    their mean. `probability_shift: true` corrects the teacher where it is wrong: its largest logit and that of the true
    label change places. Examples without a label stay as they are.
    """

    temperature_schedule: TemperatureSchedule = TemperatureSchedule()
    """Whether each example has a temperature of its own."""
    probability_shift: bool = False
    """Correct the teacher where it is wrong: its largest logit and that of the true label change places."""

    statistics_size: ClassVar[int] = 2

    @property
    def scope(self):
        return "rows" if self.temperature_schedule.kind == "constant" else "sums"

    def statistics(self, context):
        sums, targets = make_sums(self.temperature_schedule), self.make_targets(context)

        def of_temperatures(ops, student, teacher, batch):
            return sums(ops, student["logits"], targets(ops, teacher, batch), batch)

        return of_temperatures

    def problems(self, context: TermContext):
        found = super().problems(context)
        if found:
            return found
        if context.kind.over_tokens:
            given = {"temperature_schedule": self.temperature_schedule.kind != "constant"}
            given["probability_shift"] = self.probability_shift and context.kind.of_spans
            reason = f"needs one class an example, but the task is {context.kind.described}"
            return [(key, reason) for key, there in given.items() if there]
        if not context.kind.one_class:
            task = context.kind.described
            if self.probability_shift:
                found.append(("probability_shift", f"needs one class an example, but the task is {task}"))
            if self.temperature_schedule.kind != "constant":
                found.append(("temperature_schedule", f"needs one class an example, but the task is {task}"))
            return found
        lowest = self.temperature_schedule.lowest(self.temperature, context.outputs)
        if lowest <= 0:
            found.append(
                (
                    "temperature_schedule",
                    f"could make an example's temperature {lowest:.3g}, which must be above 0; "
                    "use a smaller beta or gamma, or a higher temperature",
                )
            )
        return found

    def make_targets(self, context: TermContext):
        """`f(ops, teacher, batch) -> (B, C)`: the teacher's logits."""
        key, classes = self.teacher_key, context.outputs
        if not self.probability_shift:

            def targets(ops, teacher, batch):
                return teacher[key]

            return targets

        def shifted(ops, teacher, batch):
            logits = teacher[key]
            largest = ops.one_hot(ops.argmax(logits), classes)
            true = ops.one_hot(batch["labels"], classes)
            # The sum over a row of one-hot products is one entry; where both are the same the difference is 0.
            difference = ops.sum(logits * (largest - true), axis=1) * batch["label_mask"]
            return logits + (true - largest) * ops.reshape(difference, (-1, 1))

        return shifted


class KnowledgeDistillationCrossEntropy(ClassLogitsMatch):
    """Cross-entropy of the softened distributions.

    `reduction: mean` divides by the number of classes too, as several published codes do (`KLDivLoss` with its default
    reduction); `batchmean` is the formula of the paper. With a temperature schedule, `temperature_squared` multiplies each
    example by the square of its own temperature; TextBrewer, which has the schedules, never multiplies.
    """

    loss: Literal["kd_ce"]
    temperature_squared: bool = True
    """Multiply by the temperature's square, so that gradients keep their size."""
    reduction: Literal["batchmean", "mean"] = "batchmean"
    """`mean` divides by the number of classes too."""

    formula: ClassVar[str] = "T^2 times -sum over classes of softmax(z_T/T) log softmax(z_S/T)   (Hinton et al. 2015)"

    def problems(self, context: TermContext):
        if context.kind.of_spans and self.reduction == "mean":
            return [("reduction", "mean divides by the number of classes, but here each text has as many as it has tokens")]
        if problem := self._own_logits(context):
            return problem
        if context.outputs is not None and not context.kind.has_classes and not context.kind.of_spans:
            use = "ranknet or listnet with by: teacher" if context.kind.ranks else "kd_mse"
            return [("loss", f"kd_ce needs classes, but the task is {context.kind.described}; use {use}")]
        if context.outputs is not None and not context.kind.one_class:
            return [("loss", "kd_ce needs one class an example, but here are several labels; use kd_multi_label")]
        return super().problems(context)

    def function(self, context: TermContext, label: str):
        return self._cross_entropy(context, False)

    def entropy(self, context: TermContext):
        return self._cross_entropy(context, True)

    def _cross_entropy(self, context: TermContext, with_itself: bool):
        """Of the teacher with the student, or with itself."""
        targets, soften = self.make_targets(context), make_soften(self.temperature_schedule, self.temperature)
        squared, scale = self.temperature_squared, -1.0
        if self.reduction == "mean":
            scale = scale / context.outputs

        def soft_cross_entropy(ops, params, student, teacher, batch, sums=None):
            own, taught, square = soften(ops, student["logits"], targets(ops, teacher, batch), batch, sums)  # (B, C)
            if with_itself:
                own = taught
            per_example = ops.sum(ops.softmax(taught) * ops.log_softmax(own), axis=1)
            if squared:
                per_example = per_example * square
            return sum_rows(ops, per_example, batch) * scale

        return soft_cross_entropy


class KnowledgeDistillationMeanSquaredError(ClassLogitsMatch):
    """Squared difference of the logits over the temperature, averaged over the classes."""

    loss: Literal["kd_mse"]

    formula: ClassVar[str] = "mean over classes of ((z_S - z_T) / T)^2   (Ba and Caruana 2014; Tang et al. 2019)"

    def counter(self, context: TermContext):
        return UNITS["tokens"] if context.kind.of_spans else super().counter(context)

    def function(self, context: TermContext, label: str):
        targets, soften = self.make_targets(context), make_soften(self.temperature_schedule, self.temperature)
        scale = 1.0 if context.kind.of_spans else 1.0 / context.outputs

        def squared_difference(ops, params, student, teacher, batch, sums=None):
            own, taught, _ = soften(ops, student["logits"], targets(ops, teacher, batch), batch, sums)
            difference = own - taught  # (B, C)
            return sum_rows(ops, ops.sum(difference * difference, axis=1), batch) * scale

        return squared_difference


class KnowledgeDistillationMultiLabel(LogitsMatch):
    """Binary cross-entropy of the softened sigmoids, averaged over the classes, for tasks where an example may have several
    labels. (A softmax over them, which toolkits use there, makes independent labels compete.)"""

    loss: Literal["kd_multi_label"]
    temperature_squared: bool = True
    """Multiply by the temperature's square."""

    formula: ClassVar[str] = (
        "T^2 times mean over classes of the binary cross-entropy of sigmoid(z_S/T) with sigmoid(z_T/T)   (as Hinton et al. 2015)"
    )

    def problems(self, context: TermContext):
        if problem := self._own_logits(context):
            return problem
        if context.outputs is not None and (context.kind.one_class or not context.kind.has_classes):
            use = "kd_ce" if context.kind.one_class else "ranking_mse" if context.kind.ranks else "kd_mse"
            return [("loss", f"kd_multi_label needs several labels an example; for this task use {use}")]
        return super().problems(context)

    def function(self, context: TermContext, label: str):
        return self._cross_entropy(context, False)

    def entropy(self, context: TermContext):
        return self._cross_entropy(context, True)

    def _cross_entropy(self, context: TermContext, with_itself: bool):
        """Of the teacher with the student, or with itself."""
        key, inverse_temperature = self.teacher_key, 1.0 / self.temperature
        scale = -(self.temperature**2 if self.temperature_squared else 1.0) / context.outputs

        def soft_binary_cross_entropy(ops, params, student, teacher, batch):
            taught = pairs_of(ops, teacher[key] * inverse_temperature)
            own = taught if with_itself else pairs_of(ops, student["logits"] * inverse_temperature)
            per_example = summed_classes(ops, ops.softmax(taught) * ops.log_softmax(own), teacher[key])
            return sum_rows(ops, per_example, batch) * scale

        return soft_binary_cross_entropy
