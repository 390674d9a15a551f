"""Losses on attention scores: Q K^T / sqrt(head), before the mask and the softmax.

With S the student's and T the teacher's scores of a pair of layers (B, A, L, L), A heads, m the mask of real tokens (B, L),
softmax over the real keys, and the sums over a batch divided by the unit named:
  attention_mse        sum_bij m_bi m_bj mean_a (S - T)^2_baij, over token pairs
  attention_mse_sum    sum_bij m_bi m_bj (sum_a S_baij - sum_a T_baij)^2, over token pairs
  attention_ce         -sum_bi m_bi mean_a sum_j softmax(T_bai)_j log softmax(S_bai)_j, over tokens
  attention_ce_mean    the same of the mean over the heads: mean_a S_bai, mean_a T_bai
  attention_score_mse  attention_mse with the switches of TinyBERT's published code
The first four are TextBrewer's; the last is equation 7 of TinyBERT (Jiao et al. 2020).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from ..models.components import MASKED_SCORE, attention_bias
from .base import pair_mask, token_mask
from .matching import AttentionMatch

# TinyBERT's code sets every score up to this to 0, meaning those of padding.
TINYBERT_LIMIT = -100.0


class AttentionMeanSquaredError(AttentionMatch):
    """Squared difference of the scores, averaged over the heads and the pairs of real tokens."""

    loss: Literal["attention_mse"]

    formula: ClassVar[str] = "mean over token pairs and heads of (A_S - A_T)^2   (TextBrewer's attention_mse)"

    @property
    def unit(self):
        return "token_pairs"

    def compare(self, context):
        def squared_difference(ops, student, teacher, batch):
            difference = student - teacher
            per_pair = ops.sum(difference * difference, axis=1)  # (B, L, L)
            return ops.sum(per_pair * pair_mask(ops, batch)) / ops.shape(teacher)[1]

        return squared_difference


class AttentionScoreMeanSquaredError(AttentionMatch):
    """TinyBERT's loss on the scores, averaged over the heads. By default padding does not count at all, which is
    `attention_mse`. Its published code differs in two ways:

    `mask_padding: false` averages over all pairs of places of the padded batch. Keys that are padding count as equal, but
    queries that are padding are compared like real ones: the value depends on how long the batch is padded.
    `clamp: true` sets every score that is -100 or less to 0, on each side by itself. The code finds padding by that, after
    -10000 was added there; a real score of that size, which is rare, is lost with it.
    """

    loss: Literal["attention_score_mse"]
    mask_padding: bool = True
    """Average over pairs of real tokens only."""
    clamp: bool = False
    """Set scores that are -100 or less to 0, as the published code does."""

    formula: ClassVar[str] = "mean over token pairs and heads of (A_S - A_T)^2   (TinyBERT, equation 7)"

    @property
    def unit(self):
        return "token_pairs" if self.mask_padding else "position_pairs"

    @property
    def counts_padding(self):
        return not self.mask_padding

    def compare(self, context):
        mask_padding, clamp = self.mask_padding, self.clamp

        def clamped(ops, scores):
            return scores * ops.above(scores, TINYBERT_LIMIT) if clamp else scores

        def squared_difference(ops, student, teacher, batch):
            difference = clamped(ops, student) - clamped(ops, teacher)
            per_pair = ops.sum(difference * difference, axis=1)  # (B, L, L)
            heads = ops.shape(teacher)[1]
            if mask_padding:
                return ops.sum(per_pair * pair_mask(ops, batch)) / heads
            # Summed over the queries first, so that only keys are masked; the mask leaves out padding rows too.
            return ops.sum(ops.sum(per_pair, axis=1) * token_mask(ops, batch)) / heads

        return squared_difference


class AttentionSumMeanSquaredError(AttentionMatch):
    """Squared difference of the scores summed over the heads: the numbers of heads may differ. Of layers that see only the tokens
    near by, the others count as equal."""

    loss: Literal["attention_mse_sum"]

    formula: ClassVar[str] = (
        "mean over token pairs of (sum over heads of A_S - sum over heads of A_T)^2   (TextBrewer's attention_mse_sum)"
    )

    @property
    def unit(self):
        return "token_pairs"

    @property
    def needs_equal_heads(self):
        return False

    def compare(self, context):
        is_near = any(not context.student.sees_all(own - 1) for _, own in self.pairs(context))

        def summed(ops, scores):
            # What a token does not see has the same score in each head, and other sums where the numbers of heads differ.
            seen = scores * ops.above(scores, MASKED_SCORE / 2) if is_near else scores
            return ops.sum(seen, axis=1)

        def squared_difference(ops, student, teacher, batch):
            difference = summed(ops, student) - summed(ops, teacher)  # (B, L, L)
            return ops.sum(difference * difference * pair_mask(ops, batch))

        return squared_difference


class AttentionCrossEntropy(AttentionMatch):
    """Cross-entropy of the attention probabilities, averaged over the heads and the real queries."""

    loss: Literal["attention_ce"]

    formula: ClassVar[str] = (
        "mean over tokens and heads of -sum over keys of softmax(A_T) log softmax(A_S)   (TextBrewer's attention_ce)"
    )

    def compare(self, context):
        def cross_entropy(ops, student, teacher, batch):
            bias = attention_bias(ops, batch["attention_mask"])  # (B, 1, 1, L)
            products = ops.softmax(teacher + bias) * ops.log_softmax(student + bias)  # (B, A, L, L)
            per_query = ops.sum(ops.sum(products, axis=3), axis=1)  # (B, L)
            return ops.sum(per_query * token_mask(ops, batch)) * (-1.0 / ops.shape(teacher)[1])

        return cross_entropy


class AttentionMeanCrossEntropy(AttentionMatch):
    """Cross-entropy of the attention probabilities that belong to the scores averaged over the heads: the numbers of heads
    may differ."""

    loss: Literal["attention_ce_mean"]

    formula: ClassVar[str] = (
        "mean over tokens of -sum over keys of softmax(mean A_T) log softmax(mean A_S), the means over heads   "
        "(TextBrewer's attention_ce_mean)"
    )

    @property
    def needs_equal_heads(self):
        return False

    def compare(self, context):
        def mean_over_heads(ops, scores):
            return ops.sum(scores, axis=1) * (1.0 / ops.shape(scores)[1])  # (B, L, L)

        def cross_entropy(ops, student, teacher, batch):
            batch_size, length = ops.shape(batch["attention_mask"])
            bias = ops.reshape(attention_bias(ops, batch["attention_mask"]), (batch_size, 1, length))
            targets = ops.softmax(mean_over_heads(ops, teacher) + bias)
            log_probabilities = ops.log_softmax(mean_over_heads(ops, student) + bias)
            return -ops.sum(ops.sum(targets * log_probabilities, axis=2) * token_mask(ops, batch))

        return cross_entropy
