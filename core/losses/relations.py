"""Losses that compare how tokens relate: distributions over the keys, one for each query, by their Kullback-Leibler
divergence from the teacher's, averaged over heads and real queries; keys that are padding take no part.

With R (B, A, L, L) the relations of A heads (the student's or the teacher's):
  attention_kl       R = Q K^T / sqrt(head)                 (MiniLM, Wang et al. 2020, section 3.1)
  value_relation_kl  R = V V^T / sqrt(head)                 (MiniLM, section 3.2)
  self_relation_kl   R = X X^T / sqrt(relation head), X the queries, keys or values of all heads, cut anew into
                     `relation_heads` parts                 (MiniLMv2, Wang et al. 2021, section 3)
and the loss sum_bi m_bi mean_a KL(softmax(R_T)_bai || softmax(R_S)_bai), over tokens. The papers match one pair of layers,
such as `layers: [[12, 6]]`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..models.components import attention_bias
from ..models.outputs import output_name
from .base import TermContext, token_mask
from .matching import AttentionMatch

_KINDS = {"query": "queries", "key": "keys", "value": "values"}


def divergence(ops, student, teacher, batch):
    """The sum over the real queries of the divergence averaged over the heads, from relations (B, A, L, L)."""
    bias = attention_bias(ops, batch["attention_mask"])  # (B, 1, 1, L)
    log_targets = ops.log_softmax(teacher + bias)
    products = ops.softmax(teacher + bias) * (log_targets - ops.log_softmax(student + bias))
    per_query = ops.sum(ops.sum(products, axis=3), axis=1)  # (B, L)
    return ops.sum(per_query * token_mask(ops, batch)) * (1.0 / ops.shape(teacher)[1])


def self_relation(ops, x):
    """Scaled products of `x` (B, A, L, D) with itself: (B, A, L, L)."""
    return ops.float32(ops.matmul_transposed(x * (ops.shape(x)[3] ** -0.5), x))


class AttentionDivergence(AttentionMatch):
    """Divergence of the attention probabilities."""

    loss: Literal["attention_kl"]

    formula: ClassVar[str] = "mean over tokens and heads of KL(softmax(A_T) || softmax(A_S))   (MiniLM, section 3.1)"

    def compare(self, context):
        return divergence


class ValueRelationDivergence(AttentionMatch):
    """Divergence of the values' relations. The sizes of the heads may differ, their number may not."""

    loss: Literal["value_relation_kl"]

    kind: ClassVar[str] = "values"
    formula: ClassVar[str] = (
        "mean over tokens and heads of KL(softmax(V_T V_T^T / sqrt d) || softmax(V_S V_S^T / sqrt d))   (MiniLM, section 3.2)"
    )

    def compare(self, context):
        def value_divergence(ops, student, teacher, batch):
            return divergence(ops, self_relation(ops, student), self_relation(ops, teacher), batch)

        return value_divergence


class SelfRelationDivergence(AttentionMatch):
    """Divergence of the relations among queries, among keys or among values, the vectors of all heads joined and cut into
    `relation_heads` parts: widths and numbers of heads may both differ. MiniLMv2 uses one term for each of the three, and
    48 relation heads for a teacher of 768. Without a number it is the teacher's number of heads.
    """

    loss: Literal["self_relation_kl"]
    relation: Literal["query", "key", "value"]
    """Among which vectors."""
    relation_heads: int | None = Field(None, ge=1)
    """Into how many parts they are cut; the teacher's number of heads where not given."""

    kind: ClassVar[str] = "values"
    formula: ClassVar[str] = (
        "mean over tokens and relation heads of KL(softmax(X_T X_T^T / sqrt d) || softmax(X_S X_S^T / sqrt d)), X = Q, K or V"
        "   (MiniLMv2, section 3)"
    )

    @property
    def needs_equal_heads(self):
        return False

    def outputs_of(self, layer):
        return (output_name(_KINDS[self.relation], layer),)

    def count(self, context: TermContext) -> int:
        """How many relation heads there are."""
        return self.relation_heads or context.teachers[context.teacher(self.teacher)].num_attention_heads

    def size_problems(self, context):
        count, found = self.count(context), []
        for who, config in (("student", context.student), ("teacher", context.teachers[context.teacher(self.teacher)])):
            if config.hidden_size % count:
                found.append(
                    ("relation_heads", f"the hidden size of the {who}, {config.hidden_size}, is not a multiple of {count}")
                )
        return found

    def compare(self, context):
        count = self.count(context)

        def relations(ops, x):
            batch_size, heads, length, size = ops.shape(x)
            joined = ops.transpose(x, (0, 2, 1, 3))  # (B, L, A, D)
            cut = ops.reshape(joined, (batch_size, length, count, heads * size // count))
            return self_relation(ops, ops.transpose(cut, (0, 2, 1, 3)))

        def relation_divergence(ops, student, teacher, batch):
            return divergence(ops, relations(ops, student), relations(ops, teacher), batch)

        return relation_divergence
