"""Losses over the similarities of sentence embeddings. In brackets, the loss of sentence-transformers that each is.

With u, v, n the student's vectors of a first, second and third text, c the cosine, f the cosine or the dot product, for which a
teacher that scores pairs has its scores:
  margin_mse       mean over triplets of ((f(u, v) - f(u, n)) - the teacher's)^2                   (MarginMSELoss)
  similarity_kl    T^2 times the mean over texts of KL(softmax(f_T / T) || softmax(f_S / T)) over what each is compared with
                                                                          (DistillKLDivLoss with `candidates: own`)
  contrastive      mean over pairs of -log softmax_j(scale c(u_i, v_j))_i, j over all second and third texts
                                                                                     (MultipleNegativesRankingLoss)
What is compared with the whole batch is compared with the whole effective one (`core.losses.whole_batch`).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..models.pooling import to_length_one
from .base import TEACHER_SCORES, TermContext
from .sentence_vectors import HOLDS, SentenceTerm, TaughtSentences, cosine

_NEVER = -1e9
"""The score of what only fills a batch."""


class TaughtSimilarities(TaughtSentences):
    """Base of those that learn how near texts are, be it by a teacher's vectors or by what one scores each pair with."""

    newer: ClassVar[tuple[str, ...]] = ("by",)

    by: Literal["teacher", "scores"] = "teacher"
    """What is learned: a teacher's similarities, or what it scores pairs with (`kind: ranking`); or the `scores` of another model
    that the data has, as of a reranker (`task.embeddings.teacher_scores`)."""

    takes_scores: ClassVar[bool] = True

    @property
    def needs_teacher(self) -> bool:
        """Whether it learns from a model."""
        return self.by == "teacher"

    def problems(self, context):
        if self.by == "teacher":
            return super().problems(context)
        found = SentenceTerm.problems(self, context)
        if not found and self.teacher is not None:
            found = [("teacher", "is for by: teacher, got by: scores")]
        if not found and not context.taught:
            found = [("by", "scores: task.embeddings.teacher_scores names no column of another model's scores")]
        return found

    def teacher_outputs(self, context):
        return super().teacher_outputs(context) if self.by == "teacher" else {}

    def teacher_key(self, context):
        return super().teacher_key(context) if self.by == "teacher" else ""

    def scores_of_triplets(self, context: TermContext):
        """`f(ops, taught, batch, examples) -> (second, third)`, (examples,) each: what the first text of each triplet is scored
        with beside its second and its third one. None where the teacher gives vectors."""
        of_file = self.by == "scores"
        if not of_file and not self.learns_scores_of(context):
            return None

        def scores(ops, taught, batch, examples):
            found = batch[TEACHER_SCORES] if of_file else ops.float32(ops.reshape(taught, (-1,)))
            return found[examples : 2 * examples], found[2 * examples :]

        return scores


class MarginMeanSquaredError(TaughtSimilarities):
    """Squared difference of the margins by which student and teacher find the second text of a triplet nearer than the third."""

    loss: Literal["margin_mse"]
    similarity: Literal["dot", "cosine"] = "dot"
    """What a margin is the difference of."""

    needs: ClassVar[tuple[int, ...]] = (3,)
    formula: ClassVar[str] = (
        "mean over triplets of ((f(u, v) - f(u, n)) - the teacher's)^2   (Hofstätter et al. 2020; MarginMSELoss)"
    )

    def compare(self, context):
        alike, scored = cosine if self.similarity == "cosine" else _dot, self.scores_of_triplets(context)

        def margin(ops, x, examples):
            first, second, third = x[:examples], x[examples : 2 * examples], x[2 * examples :]
            return alike(ops, first, second) - alike(ops, first, third)

        def squared_difference(ops, own, taught, batch, mask, examples):
            if scored is None:
                wanted = margin(ops, taught, examples)
            else:
                second, third = scored(ops, taught, batch, examples)
                wanted = second - third
            difference = margin(ops, own, examples) - wanted
            return ops.sum(difference * difference * mask[:examples])

        return squared_difference


class SimilarityDivergence(TaughtSimilarities):
    """Kullback-Leibler divergence of the student's from the teacher's distribution over the texts that a text is compared with.

    `candidates: batch` compares texts with all others of the batch, and first texts of pairs and triplets with all second and
    third ones of the batch; `own` compares the first text of a triplet with its second and third one, and is what scores of pairs
    are for.
    """

    loss: Literal["similarity_kl"]
    similarity: Literal["dot", "cosine"] = "cosine"
    """What the distributions are the softmax of."""
    temperature: float = Field(0.05, gt=0, allow_inf_nan=False)
    """What the similarities, or scores, of both are divided by."""
    candidates: Literal["batch", "own"] = "batch"
    """Those of the whole batch, or of the example alone."""

    formula: ClassVar[str] = (
        "T^2 times mean over texts of KL(softmax(f_T/T) || softmax(f_S/T)) over the texts compared with   (DistillKLDivLoss)"
    )

    @property
    def scope(self):
        return "vectors" if self.candidates == "batch" else "rows"

    def problems(self, context):
        found = super().problems(context)
        if not found and self.candidates == "batch" and (self.by == "scores" or self.learns_scores_of(context)):
            found = [("candidates", "batch compares texts that nobody has scored together; expected own, with triplets")]
        if not found and self.candidates == "own" and context.members != 3:
            found = [("candidates", f"own needs triplets, but task.embeddings.examples gives {HOLDS[context.members]}")]
        return found

    def compare(self, context):
        angles, inverse, square = self.similarity == "cosine", 1.0 / self.temperature, self.temperature**2
        alike, own_only, members = cosine if angles else _dot, self.candidates == "own", context.members
        scored = self.scores_of_triplets(context)

        def two(ops, second, third):
            return ops.concat([ops.reshape(second, (-1, 1)), ops.reshape(third, (-1, 1))], 1) * inverse

        def scores(ops, x, mask, examples):
            first = x[:examples]
            if own_only:
                second, third = x[examples : 2 * examples], x[2 * examples :]
                return two(ops, alike(ops, first, second), alike(ops, first, third))
            if members == 1:
                found = _matrix(ops, first, first, angles) * inverse + _fill(ops, mask)
                return found + ops.static("identity", (examples,)) * _NEVER
            return _matrix(ops, first, x[examples:], angles) * inverse + _fill(ops, mask[examples:])

        def divergence(ops, own, taught, batch, mask, examples):
            if scored is None:
                theirs = scores(ops, taught, mask, examples)
            else:
                second, third = scored(ops, taught, batch, examples)
                theirs = two(ops, second, third)
            target, log_target = ops.softmax(theirs), ops.log_softmax(theirs)
            found = target * (log_target - ops.log_softmax(scores(ops, own, mask, examples)))
            return ops.sum(ops.sum(found, axis=1) * mask[:examples]) * square

        return divergence


class Contrastive(SentenceTerm):
    """Cross-entropy of finding a pair's second text among the second ones, and the third ones of triplets, of the whole batch
    (InfoNCE)."""

    loss: Literal["contrastive"]
    scale: float = Field(20.0, gt=0, allow_inf_nan=False)
    """What the cosines are multiplied by: one over the temperature."""

    needs: ClassVar[tuple[int, ...]] = (2, 3)
    formula: ClassVar[str] = (
        "mean over pairs of -log softmax_j(scale cos(u_i, v_j))_i   (van den Oord et al. 2018; MultipleNegativesRankingLoss)"
    )

    @property
    def scope(self):
        return "vectors"

    def problems(self, context):
        found = super().problems(context)
        if not found and context.scored:  # a pair that is not alike is no pair that belongs together
            what = f"{self.loss} takes all pairs as alike, but task.embeddings.examples gives pairs with scores"
            found = [("loss", f"{what}; expected pairs or triplets")]
        return found

    def compare(self, context):
        scale = self.scale

        def cross_entropy(ops, own, taught, batch, mask, examples):
            first, others = own[:examples], own[examples:]
            scores = _matrix(ops, first, others, True) * scale + _fill(ops, mask[examples:])
            right = cosine(ops, first, own[examples : 2 * examples]) * scale
            # The logarithm of the sum is any score less its logarithm of the softmax; the first column is never a filling
            # one, unless all are.
            total = scores[:, 0] - ops.log_softmax(scores)[:, 0]
            return ops.sum((total - right) * mask[:examples])

        return cross_entropy


def _dot(ops, x, y):
    return ops.sum(x * y, axis=1)


def _matrix(ops, x, y, angles):
    """(rows of x, rows of y): the similarity of each with each."""
    if angles:
        x, y = to_length_one(ops, x), to_length_one(ops, y)
    rows, width = ops.shape(x)
    others = ops.shape(y)[0]
    product = ops.matmul_transposed(ops.reshape(x, (1, rows, width)), ops.reshape(y, (1, others, width)))
    return ops.reshape(ops.float32(product), (rows, others))


def _fill(ops, mask):
    """(1, rows): what is added to the scores of rows that only fill the batch."""
    return ops.reshape((1.0 - ops.above(mask, 0.0)) * _NEVER, (1, -1))
