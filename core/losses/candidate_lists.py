"""Losses that compare the scores of a query's candidates with each other. In brackets, the loss of sentence-transformers'
CrossEncoder that each is.

With s, t, T and p as in `candidate_scores`:
  ranking_margin_mse  mean over pairs of ((s_i - s_j) - (t_i - t_j))^2                                  (MarginMSELoss)
  ranknet             mean over pairs of -(q log p((s_i - s_j)/T) + (1 - q) log p((s_j - s_i)/T)), times T^2; by labels the
                      pairs with y_i > y_j, q = 1 and T = 1; else all pairs, q = p((t_i - t_j)/T)           (RankNetLoss)
  lambdarank          the same by labels, each pair weighted with what its exchange would change of nDCG
                                                                                   (LambdaLoss with LambdaRankScheme)
  listnet             mean over queries of -sum_i softmax(t/T)_i log softmax(s/T)_i, times T^2; by labels T = 1   (ListNetLoss)
Rows that fill a list count nothing. Means are over the whole effective batch.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ..models.outputs import LOGITS
from .base import TermContext
from .candidate_scores import RankingTerm
from .logits import pairs_of

_NEVER = -1e9
"""The score of a candidate that only fills a list."""


class ListTerm(RankingTerm):
    """Base of those over lists (lists, m)."""

    def function(self, context: TermContext, label: str):
        targets, compare, members = self.make_targets(), self.compare(), context.members

        def matched(ops, params, student, teacher, batch):
            own = _lists(ops, ops.float32(student[LOGITS]), members)
            taught, real = _lists(ops, targets(ops, teacher, batch), members), _lists(ops, batch["example_mask"], members)
            labels = _lists(ops, batch["labels"], members)
            return compare(ops, own, taught, labels, real)

        return matched

    def compare(self):
        """`f(ops, own, targets, labels, real) -> scalar`, the sum over the micro-batch; all are (lists, m), `real` is 0 of what
        only fills."""
        raise NotImplementedError


class PairTerm(ListTerm):
    """Base of the means over pairs of a query's candidates."""

    @property
    def of_labels(self) -> bool:
        """Whether a pair is a candidate and one with a lower label; else it is any two."""
        return self.by == "labels"

    def problems(self, context):
        found = super().problems(context)
        if not found and self.of_labels and context.target_range is not None:
            lowest, highest = context.target_range["labels"]
            if lowest == highest:
                told = f"compares candidates of different labels, but all of train have {lowest:g}; there is nothing to learn"
                found = [("loss", f"{self.loss} {told}")]
        return found

    def counter(self, context: TermContext):
        members, of_labels = context.members, self.of_labels

        def pairs(batch):
            real = batch["example_mask"].reshape(members, -1).T > 0
            both = real[:, :, None] & real[:, None, :]
            if not of_labels:
                return float((both.sum() - real.sum()) / 2)
            labels = batch["labels"].reshape(members, -1).T
            return float((both & (labels[:, :, None] > labels[:, None, :])).sum())

        return pairs

    def mean_over(self, context: TermContext) -> str:
        """What its value is the mean over, in words."""
        return "pairs"

    def of_pairs(self, ops, labels, real):
        """(lists, m, m): how much the pair (i, j) counts: 1 where i has the higher label; of any two candidates a half in both
        orders."""
        both = _column(ops, real) * _row(ops, real)
        if self.of_labels:
            return both * ops.above(_column(ops, labels) - _row(ops, labels), 0.0)
        return both * (0.5 - 0.5 * ops.static("identity", (ops.shape(real)[1],)))


class RankingMargin(PairTerm):
    """Squared difference of the margins by which student and teacher put a relevant candidate before another one."""

    loss: Literal["ranking_margin_mse"]
    by: Literal["labels", "teacher", "scores"] = "teacher"
    pairs: Literal["relevant", "all"] = "relevant"
    """Which margins: of a candidate and each with a lower label, or of all two candidates, which needs no labels."""

    formula: ClassVar[str] = "mean over pairs of ((s_i - s_j) - (t_i - t_j))^2   (Hofstätter et al. 2020; MarginMSELoss)"

    @property
    def of_labels(self):
        return self.pairs == "relevant"

    @property
    def needs_labels(self):
        return "pairs" if self.of_labels else super().needs_labels

    def compare(self):
        of_pairs = self.of_pairs

        def squared_difference(ops, own, taught, labels, real):
            error = (own - taught) * real
            margins = _column(ops, error) - _row(ops, error)
            return ops.sum(margins * margins * of_pairs(ops, labels, real))

        return squared_difference


class RankNet(PairTerm):
    """Cross-entropy of which of two candidates is the better one."""

    loss: Literal["ranknet"]
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """What the scores of both are divided by, of a teacher's."""

    formula: ClassVar[str] = "mean over pairs of the cross-entropy of sigmoid(s_i - s_j)   (Burges et al. 2005; RankNetLoss)"

    def problems(self, context):
        return super().problems(context) or _of_labels(self)

    def compare(self):
        of_pairs, inverse, square, hard = self.of_pairs, 1.0 / self.temperature, self.temperature**2, self.by == "labels"

        def cross_entropy(ops, own, taught, labels, real):
            shape = (*ops.shape(real), ops.shape(real)[1])
            both = ops.log_softmax(_sides(ops, own * real * inverse))  # (pairs, 2): log p, log (1 - p)
            if hard:
                found = both[:, 0]
            else:
                wanted = ops.softmax(_sides(ops, taught * real * inverse))
                found = ops.sum(wanted * both, axis=1)
            return -ops.sum(ops.reshape(found, shape) * of_pairs(ops, labels, real)) * square

        return cross_entropy

    def entropy(self, context):
        return None if self.by == "labels" else _with_itself(self, context)


class LambdaRank(PairTerm):
    """RankNet by labels, each pair weighted with what its exchange would change of nDCG, as the student orders the list now."""

    loss: Literal["lambdarank"]
    by: Literal["labels"] = "labels"

    formula: ClassVar[str] = (
        "mean over pairs of -|change of nDCG| log sigmoid(s_i - s_j)   (Burges 2010; LambdaLoss, LambdaRankScheme)"
    )

    def problems(self, context):
        found = super().problems(context)
        lowest, highest = (context.target_range or {}).get("labels", (0.0, 1.0))
        if not found and (lowest < 0 or highest > 30):
            told = f"gains are 2^label - 1, but the labels of train go from {lowest:g} to {highest:g}; expected 0 to 30"
            found = [("loss", told)]
        return found

    def compare(self):
        of_pairs = self.of_pairs

        def cross_entropy(ops, own, taught, labels, real):
            shape, members = (*ops.shape(real), ops.shape(real)[1]), ops.shape(real)[1]
            before = ops.constant(np.tril(np.ones((members, members), np.float32), -1))
            gains = (ops.exp(labels * math.log(2.0)) - 1.0) * real
            discounts = _discounts(ops, own, real, before)
            best = ops.sum(gains * _discounts(ops, labels, real, before), axis=1)  # (lists,)
            scale = 1.0 / (best + (1.0 - ops.above(best, 0.0)))  # a list without gains has no pair
            gains = gains * ops.reshape(scale, (-1, 1))
            change = (_column(ops, gains) - _row(ops, gains)) * (_column(ops, discounts) - _row(ops, discounts))
            change = ops.stop_gradient(change * (2.0 * ops.above(change, 0.0) - 1.0))
            losses = ops.reshape(ops.log_softmax(_sides(ops, own * real))[:, 0], shape)
            return -ops.sum(losses * change * of_pairs(ops, labels, real))

        return cross_entropy


class ListNet(ListTerm):
    """Cross-entropy of the student's distribution over a query's candidates with that of the labels, or of a teacher."""

    loss: Literal["listnet"]
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """What the scores of both are divided by, of a teacher's."""

    formula: ClassVar[str] = (
        "T^2 times mean over queries of -sum over candidates of softmax(t/T) log softmax(s/T)   (Cao et al. 2007; ListNetLoss)"
    )

    def problems(self, context):
        return super().problems(context) or _of_labels(self)

    def counter(self, context: TermContext):
        members = context.members

        def lists(batch):
            return float((batch["example_mask"].reshape(members, -1)[0] > 0).sum())

        return lists

    def mean_over(self, context: TermContext) -> str:
        """What its value is the mean over, in words."""
        return "queries"

    def compare(self):
        inverse, square = 1.0 / self.temperature, self.temperature**2

        def cross_entropy(ops, own, taught, labels, real):
            never = (1.0 - real) * _NEVER
            wanted = ops.softmax(taught * real * inverse + never)
            found = ops.sum(wanted * ops.log_softmax(own * real * inverse + never), axis=1)
            return -ops.sum(found * real[:, 0]) * square

        return cross_entropy

    def entropy(self, context):
        return None if self.by == "labels" else _with_itself(self, context)


def _of_labels(term) -> list[tuple[str, str]]:
    if term.by != "labels" or term.temperature == 1.0:
        return []
    return [("temperature", "is for a teacher's scores, but by is labels")]


def _with_itself(term: ListTerm, context: TermContext):
    """The term's function where a teacher takes the student's place too."""
    targets, compare, members = term.make_targets(), term.compare(), context.members

    def entropy(ops, params, student, teacher, batch):
        taught, real = _lists(ops, targets(ops, teacher, batch), members), _lists(ops, batch["example_mask"], members)
        return compare(ops, taught, taught, real, real)

    return entropy


def _lists(ops, x, members):
    """(m lists,) or (m lists, 1) to (lists, m)."""
    return ops.transpose(ops.reshape(x, (members, -1)), (1, 0))


def _column(ops, x):
    """(lists, m) to (lists, m, 1)."""
    return ops.reshape(x, (*ops.shape(x), 1))


def _row(ops, x):
    """(lists, m) to (lists, 1, m)."""
    lists, members = ops.shape(x)
    return ops.reshape(x, (lists, 1, members))


def _sides(ops, x):
    """(lists, m) to (lists m m, 2): x_i - x_j and 0, of which the softmax is the sigmoid of the one and of the other order."""
    return pairs_of(ops, _column(ops, x) - _row(ops, x))


def _discounts(ops, x, real, before):
    """(lists, m): 1 / log2(1 + place) of each candidate in the order of x, the first of equal ones first, without a gradient."""
    x = ops.stop_gradient(x * real + (1.0 - real) * _NEVER)
    difference = _row(ops, x) - _column(ops, x)  # (lists, i, j): x_j - x_i
    better, worse = ops.above(difference, 0.0), ops.above(-difference, 0.0)
    places = 1.0 + ops.sum(better + (1.0 - better - worse) * before, axis=2)
    return math.log(2.0) / ops.log(1.0 + places)
