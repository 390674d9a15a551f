"""Losses over the scores of a query's candidates. In brackets, the loss of sentence-transformers' CrossEncoder that each is.

With s the student's scores of the candidates of a query, t what they are to be like (`by`: the labels, a teacher's scores, or
those of the file), T a temperature, and p the sigmoid:
  ranking_bce         mean over candidates of -(y log p(s) + (1 - y) log p(-s)), y the labels, the scores of the file, or p(t)
                      of a teacher                                                             (BinaryCrossEntropyLoss)
  ranking_mse         mean over candidates of (s - t)^2                                                       (MSELoss)
A batch of lists of m candidates has their first candidates, then their second ones: scores (m lists, 1). Rows that fill a list
count nothing. Means are over the whole effective batch.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from ..models.outputs import LOGITS
from .base import TEACHER_SCORES, LossTerm, TermContext
from .logits import pairs_of


class RankingTerm(LossTerm):
    """Base of the terms over the scores of candidates."""

    by: Literal["labels", "teacher", "scores"] = "labels"
    """What the scores are to be like: the `labels`, the scores of a `teacher`, or the `scores` of one that the data has
    (`task.ranking.teacher_score`)."""
    teacher: str | None = None
    """Which teacher, where there are several; the mean of their scores where it is not given."""

    @property
    def needs_teacher(self) -> bool:
        """Whether it learns from a model."""
        return self.by == "teacher"

    def problems(self, context: TermContext):
        if not context.kind.ranks:
            return [("loss", f"{self.loss} needs lists of candidates, but task.kind is not 'ranking'")]
        if self.teacher is not None and self.by != "teacher":
            return [("teacher", f"is for by: teacher, got by: {self.by}")]
        if self.by == "teacher" and not context.teachers:
            return [("by", "teacher: there is no teacher; labels and scores need none")]
        if self.teacher is not None and self.teacher not in context.teachers:
            return [("teacher", f"'{self.teacher}' is not one of the teachers: {', '.join(context.teachers)}")]
        if self.by == "scores" and not context.taught:
            return [("by", "scores: task.ranking.teacher_score names no column of a teacher's scores")]
        if self.needs_labels and not context.scored:
            return [(self.needs_labels, "needs labels, but the training file does not say which candidates are relevant")]
        return []

    @property
    def needs_labels(self) -> str:
        """The key for which labels are needed; empty where they are not."""
        return "by" if self.by == "labels" else ""

    def teacher_outputs(self, context):
        if self.by != "teacher":
            return {}
        return {name: frozenset({LOGITS}) for name in (context.teachers if self.teacher is None else (self.teacher,))}

    def make_targets(self):
        """`f(ops, teacher, batch) -> (rows,)`."""
        by, key = self.by, LOGITS if self.teacher is None else f"{self.teacher}/{LOGITS}"

        def targets(ops, teacher, batch):
            if by == "teacher":
                return ops.float32(ops.reshape(teacher[key], (-1,)))
            return batch["labels"] if by == "labels" else batch[TEACHER_SCORES]

        return targets


class CandidateTerm(RankingTerm):
    """Base of those with a value for each candidate."""

    def function(self, context: TermContext, label: str):
        targets, compare = self.make_targets(), self.compare()

        def matched(ops, params, student, teacher, batch):
            own = ops.float32(ops.reshape(student[LOGITS], (-1,)))
            return ops.sum(compare(ops, own, targets(ops, teacher, batch)) * batch["example_mask"])

        return matched

    def compare(self):
        """`f(ops, own, targets) -> (rows,)`, all of them (rows,)."""
        raise NotImplementedError


class RankingCrossEntropy(CandidateTerm):
    """Binary cross-entropy of a candidate's score, as the logit of being relevant, with its label from 0 to 1."""

    loss: Literal["ranking_bce"]

    formula: ClassVar[str] = "mean over candidates of the binary cross-entropy of sigmoid(s)   (BinaryCrossEntropyLoss)"

    def problems(self, context):
        found = super().problems(context)
        lowest, highest = (context.target_range or {}).get(self.by, (0.0, 1.0))
        if not found and (lowest < 0 or highest > 1):
            got = f"the {self.by} of train go from {lowest:g} to {highest:g}"
            found = [("loss", f"ranking_bce needs numbers from 0 to 1, but {got}; ranking_mse, ranknet and listnet take any")]
        return found

    def compare(self):
        soft = self.by == "teacher"

        def cross_entropy(ops, own, taught):
            both = ops.log_softmax(pairs_of(ops, own))  # (rows, 2): log p(s), log p(-s)
            wanted = ops.softmax(pairs_of(ops, taught))[:, 0] if soft else taught
            return -(wanted * both[:, 0] + (1.0 - wanted) * both[:, 1])

        return cross_entropy


class RankingMeanSquaredError(CandidateTerm):
    """Squared difference of a candidate's scores."""

    loss: Literal["ranking_mse"]

    formula: ClassVar[str] = "mean over candidates of (s - t)^2   (MSELoss)"

    def compare(self):
        def squared_difference(ops, own, taught):
            return (own - taught) * (own - taught)

        return squared_difference
