"""Losses between sentence embeddings of which each is of a text or a pair alone; those over several are in
`sentence_similarities`. In brackets, the loss of sentence-transformers that each is.

With s and t the student's (projected) and the teacher's vector of a text (D,), u and v the student's of a pair, c the cosine:
  sentence_mse     mean over texts and width of (s - t)^2                                            (MSELoss)
  sentence_cosine  mean over texts of 1 - c(s, t)                                       (EmbedDistillLoss, cosine)
  similarity_mse   mean over pairs of (c(u, v) - y)^2, y the score from 0 to 1              (CosineSimilarityLoss)
With `widths` each is the weighted sum over the first w numbers of the vectors, scaled to length 1 (MatryoshkaLoss), the teacher's
as the student's.

A batch of examples of m texts has their first texts, then their second ones, then their third ones: (m rows, width).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ..models.outputs import EMBEDDING, LOGITS
from ..models.pooling import EPSILON, to_length_one
from .base import LossTerm, ProjectionTensor, TermContext, sum_rows
from .matching import Projection

HOLDS = {1: "texts", 2: "pairs", 3: "triplets"}
"""How many texts an example has -> what it is called."""


class SentenceTerm(LossTerm):
    """Base of the terms between sentence embeddings."""

    widths: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(None, min_length=1)
    """Compute it of the first so many numbers of the vectors, for each of these widths, and add up (Matryoshka); null: of the
    whole vectors as they are."""
    width_weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    """What each of the widths counts; null: 1."""

    needs: ClassVar[tuple[int, ...]] = (1, 2, 3)
    """How many texts an example may have."""
    needs_scores: ClassVar[bool] = False

    @model_validator(mode="after")
    def _weights_of_widths(self):
        if self.width_weights is not None and len(self.width_weights) != len(self.widths or ()):
            raise ValueError(f"width_weights: got {len(self.width_weights)} weights for {len(self.widths or ())} widths")
        return self

    def counter(self, context: TermContext):
        members = context.members if self.of_examples else 1

        def examples(batch):
            return float(batch["example_mask"].sum()) / members

        return examples

    def mean_over(self, context: TermContext) -> str:
        """What its value is the mean over, in words."""
        return HOLDS[context.members] if self.of_examples else "texts"

    @property
    def of_examples(self) -> bool:
        """Whether the mean is over examples, and not over all their texts."""
        return True

    def problems(self, context: TermContext):
        if not context.kind.embeds:
            return [("loss", f"{self.loss} needs sentence embeddings, but task.kind is not 'embeddings'")]
        if context.members not in self.needs:
            expected = " or ".join(HOLDS[count] for count in self.needs)
            return [("loss", f"{self.loss} needs {expected}, but task.embeddings.examples gives {HOLDS[context.members]}")]
        if self.needs_scores and not context.scored:
            return [("loss", f"{self.loss} needs pairs with scores, task.embeddings.examples: scored")]
        size = getattr(context.student, "hidden_size", None)
        if size is not None and self.widths is not None and max(self.widths) > size:
            return [("widths", f"got {max(self.widths)}, but the student's vectors have {size} numbers")]
        return []

    def student_outputs(self, context):
        return frozenset({EMBEDDING})

    def cuts(self) -> tuple[tuple[int, float], ...]:
        """(width, weight) of each part of the vectors; width 0 is the whole as it is."""
        if self.widths is None:
            return ((0, 1.0),)
        return tuple(zip(self.widths, self.width_weights or (1.0,) * len(self.widths), strict=True))

    def function(self, context: TermContext, label: str):
        compare, members, key = self.compare(context), context.members, self.teacher_key(context)
        widths, weights = [width for width, _ in self.cuts()], [weight for _, weight in self.cuts()]
        project, scored = self.make_projection(context, label), self.learns_scores_of(context)

        def matched(ops, params, student, teacher, batch):
            own = project(ops, params, student[EMBEDDING])
            taught = teacher[key] if key else own
            mask = batch["example_mask"]
            examples = ops.shape(mask)[0] // members
            total = 0.0
            for index in range(len(widths)):
                width = widths[index]
                theirs = taught if scored else _first(ops, taught, width)
                value = compare(ops, _first(ops, own, width), theirs, batch, mask, examples)
                total = total + value * weights[index]
            return total

        return matched

    def teacher_key(self, context: TermContext) -> str:
        """Where what the teacher gives is among the outputs; empty without a teacher."""
        return ""

    def learns_scores_of(self, context: TermContext) -> bool:
        """Whether its teacher is one that scores pairs, and has no vectors."""
        return False

    def make_projection(self, context: TermContext, label: str):
        """`f(ops, params, x)`: the student's vectors as they are compared."""

        def as_they_are(ops, params, x):
            return x

        return as_they_are

    def compare(self, context: TermContext):
        """`f(ops, own, taught, batch, mask, examples) -> scalar`, the sum over the micro-batch of vectors (m examples, width);
        `mask` is the batch's `example_mask`."""
        raise NotImplementedError


def _first(ops, x, width):
    return to_length_one(ops, x[:, :width]) if width else x


class TaughtSentences(SentenceTerm):
    """Base of the terms with a teacher."""

    teacher: str | None = None
    """Which teacher, where there are several; the first where it is not given."""

    needs_teacher: ClassVar[bool] = True
    takes_scores: ClassVar[bool] = False
    """Whether it can learn from a teacher that scores pairs."""

    def problems(self, context: TermContext):
        found = super().problems(context)
        if found:
            return found
        if self.teacher is not None and self.teacher not in context.teachers:
            return [("teacher", f"'{self.teacher}' is not one of the teachers: {', '.join(context.teachers)}")]
        if self.learns_scores_of(context):
            if self.takes_scores:
                return []
            told = f"compares a teacher's vectors, but '{context.teacher(self.teacher)}' scores pairs (kind: ranking)"
            return [("loss", f"{self.loss} {told}; margin_mse, and similarity_kl with candidates: own, learn scores")]
        taught = getattr(context.teachers.get(context.teacher(self.teacher)), "hidden_size", None)
        if taught is not None and self.widths is not None and max(self.widths) > taught:
            return [("widths", f"got {max(self.widths)}, but the teacher's vectors have {taught} numbers")]
        return self.width_problems(getattr(context.student, "hidden_size", None), taught)

    def width_problems(self, own: int | None, taught: int | None) -> list[tuple[str, str]]:
        """What does not fit between the two widths."""
        return []

    def learns_scores_of(self, context):
        return context.teacher(self.teacher) in context.rerankers

    def _taught(self, context: TermContext) -> str:
        return LOGITS if self.learns_scores_of(context) else EMBEDDING

    def teacher_outputs(self, context):
        return {context.teacher(self.teacher): frozenset({self._taught(context)})}

    def teacher_key(self, context):
        return f"{context.teacher(self.teacher)}/{self._taught(context)}"


class ProjectedSentences(TaughtSentences):
    """Base of the terms that compare a text's vector with the teacher's, number by number."""

    projection: Projection | None = None
    """A map from the student's width to the teacher's, where they differ: trained with the student and not part of it."""

    @model_validator(mode="after")
    def _one_map(self):
        if self.projection is not None and self.projection.per_layer:
            raise ValueError("projection.per_layer is for layers; there is one vector")
        if self.projection is not None and self.widths is not None:
            raise ValueError("widths: the parts of a projected vector are not those of the student's; leave one of the two out")
        return self

    @property
    def of_examples(self):
        return False

    def width_problems(self, own, taught):
        if None in (own, taught) or own == taught or self.projection is not None:
            return []
        return [("projection", f"missing; the widths differ (student {own}, teacher {taught}), for example {{kind: linear}}")]

    def _name(self, label: str) -> str:
        return f"projection.{label if self.projection.name is None else self.projection.name}"

    def projection_names(self, context: TermContext, label: str) -> list[str]:
        """The name of its map, if it has one."""
        return [] if self.projection is None else [self._name(label)]

    def projections(self, context, label):
        if self.projection is None:
            return {}
        own, taught = context.student.hidden_size, context.teachers[context.teacher(self.teacher)].hidden_size
        rate, kind, name = self.projection.learning_rate, self.projection.kind, self._name(label)
        weight, bias = ProjectionTensor((taught, own), rate, kind), ProjectionTensor((taught,), rate, kind)
        return {f"{name}.weight": weight, f"{name}.bias": bias}

    def make_projection(self, context, label):
        if self.projection is None:
            return super().make_projection(context, label)
        name, kind = self._name(label), self.projection.kind

        def project(ops, params, x):
            x = ops.float32(ops.linear(x, params[name + ".weight"], params[name + ".bias"]))
            if kind == "relu":
                return ops.relu(x)
            return ops.tanh(x) if kind == "tanh" else x

        return project


class SentenceMeanSquaredError(ProjectedSentences):
    """Squared difference of a text's vectors, averaged over the width and the texts."""

    loss: Literal["sentence_mse"]

    formula: ClassVar[str] = "mean over texts and width of (W s - t)^2   (Reimers and Gurevych 2020; MSELoss)"

    def compare(self, context):
        def squared_difference(ops, own, taught, batch, mask, examples):
            difference = own - taught
            return sum_rows(ops, ops.sum(difference * difference, axis=1), batch) / ops.shape(taught)[1]

        return squared_difference


class SentenceCosine(ProjectedSentences):
    """One minus the cosine of the angle between a text's vectors, averaged over the texts. Lengths do not matter."""

    loss: Literal["sentence_cosine"]

    formula: ClassVar[str] = "mean over texts of 1 - cos(W s, t)   (EmbedDistillLoss, cosine)"

    def compare(self, context):
        def one_minus_cosine(ops, own, taught, batch, mask, examples):
            return sum_rows(ops, 1.0 - cosine(ops, own, taught), batch)

        return one_minus_cosine


class SimilarityMeanSquaredError(SentenceTerm):
    """Squared difference of the cosine of a pair's vectors and its score, from 0 to 1 (`task.embeddings.scores` says from where
    to where those of the file are)."""

    loss: Literal["similarity_mse"]

    needs: ClassVar[tuple[int, ...]] = (2,)
    needs_scores: ClassVar[bool] = True
    formula: ClassVar[str] = "mean over pairs of (cos(u, v) - score)^2   (Reimers and Gurevych 2019; CosineSimilarityLoss)"

    def compare(self, context):
        def squared_difference(ops, own, taught, batch, mask, examples):
            difference = cosine(ops, own[:examples], own[examples:]) - batch["labels"][:examples]
            return ops.sum(difference * difference * mask[:examples])

        return squared_difference


def cosine(ops, x, y):
    """(rows,): of each row of (rows, width) with that of the other."""
    squared = (ops.sum(x * x, axis=1) + EPSILON) * (ops.sum(y * y, axis=1) + EPSILON)
    return ops.sum(x * y, axis=1) / ops.sqrt(squared)
