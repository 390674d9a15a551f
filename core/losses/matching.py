"""Terms that match a layer of the student with a layer of a teacher, and the projections between their widths.

A subclass says what it compares (`kind`: an output of `core.models.outputs`) and how one pair is compared; the layers,
the projection and the sum over the pairs are the same for all.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidatorFunctionWrapHandler, field_validator, model_validator

from ..errors import did_you_mean
from ..models.outputs import output_name
from ..shown import shown
from .base import LossTerm, ProjectionTensor, TermContext
from .layers import RULES, Pairs, pairs_text, resolve_layers, sides


class Projection(BaseModel):
    """A map from the student's width to the teacher's, trained with the student and not part of it.

    Matches that give the same `name` share one, also across terms and stages (TinyBERT's `fit_dense`); without a name
    each match has its own (TextBrewer). Weights start as N(0, 0.02), biases as 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    kind: Literal["linear", "relu", "tanh"] = "linear"
    """A linear map, or one followed by an activation."""
    name: str | None = Field(None, min_length=1, pattern=r"^[\w-]+$")
    """Matches of one name share the map."""
    per_layer: bool = False
    """Whether each of the student's layers has its own, `NAME.LAYER` (the `fit_denses` of TinyBERT's second version)."""
    learning_rate: float | None = Field(None, gt=0, allow_inf_nan=False)
    """The peak of its own learning rate, which follows the stage's schedule; the stage's where it is not given."""

    @model_validator(mode="after")
    def _layers_of_a_name(self) -> Projection:
        if self.per_layer and self.name is None:
            raise ValueError("per_layer is for a projection with a name; without one each match has its own")
        return self


class MatchTerm(LossTerm):
    """Base of the terms over pairs of layers. Pairs are (teacher, student), counted from 1; 0 is the embedding output."""

    layers: Literal[RULES] | Pairs = "uniform"  # type: ignore[valid-type]
    """A rule, or [teacher, student] pairs, counted from 1; 0 is the embedding output."""
    teacher: str | None = None
    """Which teacher, where there are several; the first where it is not given."""
    layer_reduction: Literal["sum", "mean"] = "sum"
    """Over the pairs."""

    @field_validator("layers", mode="wrap", check_fields=False)  # a term without layers is among the heirs
    @classmethod
    def _rule_or_pairs(cls, value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except ValidationError:  # of either form, a line for each
            near = did_you_mean(value, RULES) if isinstance(value, str) else ""
            expected = f"{', '.join(RULES)} or a list of [teacher, student] layers"
            raise ValueError(f"expected {expected}, got {shown(value)}{near}") from None

    needs_teacher: ClassVar[bool] = True
    kind: ClassVar[str] = "hidden"
    """Which kind of output is compared."""
    two_layers: ClassVar[bool] = False
    """Whether a side of a pair may be two layers."""

    def pairs(self, context: TermContext) -> Pairs:
        """The resolved (teacher, student) pairs. Raises ValueError."""
        teacher = context.teachers[context.teacher(self.teacher)]
        return resolve_layers(self.layers, teacher.num_hidden_layers, context.student.num_hidden_layers)

    def describe(self, context: TermContext) -> str:
        """The resolved layer map for people."""
        return pairs_text(self.pairs(context))

    def problems(self, context: TermContext):
        if self.teacher is not None and self.teacher not in context.teachers:
            known = ", ".join(context.teachers)
            return [("teacher", f"'{self.teacher}' is not one of the teachers: {known}")]
        for who, config in (("teacher", context.teachers[context.teacher(self.teacher)]), ("student", context.student)):
            if not hasattr(config, "num_attention_heads"):
                return [("loss", f"{self.loss} matches layers of BERT models, but the {who} is none")]
        try:
            pairs = self.pairs(context)
        except ValueError as error:
            return [("layers", str(error))]
        if self.kind != "hidden" and any(0 in (*sides(t), *sides(s)) for t, s in pairs):
            return [("layers", "layer 0 is the embedding output, which has no attention")]
        if not self.two_layers and any(not isinstance(side, int) for pair in pairs for side in pair):
            return [("layers", f"{self.loss} compares one layer with one; two layers a side are for fsp and mmd")]
        return self.size_problems(context)

    def size_problems(self, context: TermContext) -> list[tuple[str, str]]:
        """What does not fit between the sizes of the two models."""
        return []

    def outputs_of(self, layer: int) -> tuple[str, ...]:
        """The names of the outputs that are compared at a layer."""
        return (output_name(self.kind, layer),)

    def taught_by(self, layer: int) -> tuple[str, ...]:
        """The names of a teacher's outputs that are compared with them."""
        return self.outputs_of(layer)

    def student_outputs(self, context):
        return frozenset(
            name for _, side in self.pairs(context) for layer in sides(side) for name in self.outputs_of(layer)
        )

    def teacher_outputs(self, context):
        names = {name for side, _ in self.pairs(context) for layer in sides(side) for name in self.taught_by(layer)}
        return {context.teacher(self.teacher): frozenset(names)}

    def layer_scale(self, context: TermContext) -> float:
        """What the sum over the pairs is multiplied by."""
        return 1.0 / len(self.pairs(context)) if self.layer_reduction == "mean" else 1.0


class HiddenMatch(MatchTerm):
    """Base of the terms over hidden states, (B, L, D), with an optional projection of the student's.

    A subclass implements `compare(context) -> f(ops, student, teacher, batch)`, the sum for one pair, where `student` and
    `teacher` are (B, L, D) tensors, the student's already projected and the teacher's without gradient.
    """

    embeddings: bool = False
    """Also match the embedding outputs, 0 to 0, where `layers` is a rule."""
    projection: Projection | None = None
    """A map from the student's width to the teacher's."""

    any_width: ClassVar[bool] = False
    """Whether the two widths may differ without a projection."""

    @model_validator(mode="after")
    def _embeddings_with_a_rule(self):
        if self.embeddings and not isinstance(self.layers, str):
            raise ValueError("embeddings is for a rule; in a list, add [0, 0]")
        return self

    def pairs(self, context):
        pairs = super().pairs(context)
        return ((0, 0), *pairs) if self.embeddings else pairs

    def size_problems(self, context):
        student, teacher = context.student, context.teachers[context.teacher(self.teacher)]
        if self.projection is None and not self.any_width and student.hidden_size != teacher.hidden_size:
            widths = f"student {student.hidden_size}, teacher {teacher.hidden_size}"
            return [("projection", f"missing; the hidden sizes differ ({widths}), for example {{kind: linear}}")]
        return []

    def projection_names(self, context: TermContext, label: str) -> list[str]:
        """One name a pair; equal names are one projection."""
        pairs = self.pairs(context)
        if self.projection is None:
            return ["" for _ in pairs]
        if self.projection.name is not None:
            names = [f"projection.{self.projection.name}" for _ in pairs]
            if not self.projection.per_layer:
                return names
            layers = ["_".join(map(str, dict.fromkeys(sides(student)))) for _, student in pairs]
            return [f"{name}.{layer}" for name, layer in zip(names, layers)]
        return [f"projection.{label}.{index}" for index in range(len(pairs))]

    def projections(self, context, label):
        if self.projection is None:
            return {}
        student, teacher = context.student, context.teachers[context.teacher(self.teacher)]
        tensors = {}
        for name in self.projection_names(context, label):
            rate, kind = self.projection.learning_rate, self.projection.kind
            tensors[name + ".weight"] = ProjectionTensor((teacher.hidden_size, student.hidden_size), rate, kind)
            tensors[name + ".bias"] = ProjectionTensor((teacher.hidden_size,), rate, kind)
        return tensors

    def function(self, context, label):
        pairs, teacher_name = self.pairs(context), context.teacher(self.teacher)
        names, kind = self.projection_names(context, label), self.projection.kind if self.projection else None
        scale, compare = self.layer_scale(context), self.compare(context)
        student_keys = [[self.outputs_of(layer)[0] for layer in sides(side)] for _, side in pairs]
        teacher_keys = [[f"{teacher_name}/{self.taught_by(layer)[0]}" for layer in sides(side)] for side, _ in pairs]
        same = [isinstance(teacher, int) and isinstance(student, int) for teacher, student in pairs]

        def project(ops, params, name, x):
            if kind is None:
                return x
            x = ops.float32(ops.linear(x, params[name + ".weight"], params[name + ".bias"]))
            if kind == "relu":
                return ops.relu(x)
            return ops.tanh(x) if kind == "tanh" else x

        def matched(ops, params, student, teacher, batch):
            total = 0.0
            for index in range(len(names)):
                first = project(ops, params, names[index], student[student_keys[index][0]])
                target = teacher[teacher_keys[index][0]]
                if same[index]:
                    total = total + compare(ops, first, first, target, target, batch)
                else:
                    second = project(ops, params, names[index], student[student_keys[index][1]])
                    total = total + compare(ops, first, second, target, teacher[teacher_keys[index][1]], batch)
            return total * scale

        return matched

    def compare(self, context: TermContext):
        """`f(ops, student, student_2, teacher, teacher_2, batch) -> scalar`: the sum for one pair of layers. The seconds
        are the firsts unless the recipe gives two layers a side, which only grams use."""
        raise NotImplementedError


class AttentionMatch(MatchTerm):
    """Base of the terms over one kind of attention output, (B, A, L, ...).

    A subclass implements `compare(context) -> f(ops, student, teacher, batch)`, the sum for one pair.
    """

    kind: ClassVar[str] = "scores"

    @property
    def unit(self) -> str:
        """Queries, each with a distribution over the keys."""
        return "tokens"

    def size_problems(self, context):
        student, teacher = context.student, context.teachers[context.teacher(self.teacher)]
        if self.kind == "scores" and (problem := self._different_views(student, teacher, context)):
            return [("layers", problem)]
        if self.needs_equal_heads and student.num_attention_heads != teacher.num_attention_heads:
            counts = f"student {student.num_attention_heads}, teacher {teacher.num_attention_heads}"
            return [("loss", f"{self.loss} compares head by head, but the numbers of heads differ ({counts})")]
        return []

    def _different_views(self, student, teacher, context) -> str:
        """The problem of the first pair whose layers do not see the same tokens; an empty string where all do."""
        causal = teacher.family.block.causal, student.family.block.causal
        if causal[0] != causal[1]:
            who = ("teacher", "student") if causal[0] else ("student", "teacher")
            seen = f"tokens of the {who[0]} see only those before them, those of the {who[1]} all"
            return f"{self.loss} compares scores, but {seen}"
        for theirs, own in self.pairs(context):
            windows = teacher.window(theirs - 1), student.window(own - 1)
            if windows[0] != windows[1]:
                seen = ["all tokens" if window is None else f"{window} tokens on each side" for window in windows]
                return (
                    f"{self.loss} compares scores, but layer {theirs} of the teacher sees {seen[0]}, layer {own} of the student "
                    f"{seen[1]}; student.architecture.layer_types or a list of pairs brings together layers that see the same"
                )
        return ""

    @property
    def needs_equal_heads(self) -> bool:
        """Whether heads are compared one by one."""
        return True

    def function(self, context, label):
        pairs, teacher_name = self.pairs(context), context.teacher(self.teacher)
        scale, compare = self.layer_scale(context), self.compare(context)
        student_keys = [self.outputs_of(student)[0] for _, student in pairs]
        teacher_keys = [f"{teacher_name}/{self.taught_by(layer)[0]}" for layer, _ in pairs]

        def matched(ops, params, student, teacher, batch):
            total = 0.0
            for index in range(len(student_keys)):
                total = total + compare(ops, student[student_keys[index]], teacher[teacher_keys[index]], batch)
            return total * scale

        return matched

    def compare(self, context: TermContext):
        """`f(ops, student, teacher, batch) -> scalar`: the sum for one pair of layers."""
        raise NotImplementedError
