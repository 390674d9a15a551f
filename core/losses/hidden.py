"""Losses on hidden states.

With S the student's (projected) and T the teacher's hidden states of a pair of layers (B, L, D), m the mask of real
tokens (B, L), and the sums over a batch divided by the unit named:
  hidden_mse     sum_bl m_bl mean_d (S - T)^2, over tokens           (TinyBERT, Jiao et al. 2020, equation 8)
  embedding_mse  the same for the embedding outputs                  (TinyBERT, equation 9)
  hidden_cosine  sum_bl m_bl (1 - cos(S_bl, T_bl)), over tokens      (DistilBERT, Sanh et al. 2019)
  pkd            sum_bd (S_b0 / |S_b0| - T_b0 / |T_b0|)^2, over examples    (PKD, Sun et al. 2019, section 3.2)
  mmd            sum_bij m_bi m_bj (S0 S1^T / D_S - T0 T1^T / D_T)^2_bij, over token pairs    (NST, Huang and Wang 2017)
  fsp            sum_b mean_dd (S0^T S1 / len_b - T0^T T1 / len_b)^2, over examples           (FSP, Yim et al. 2017)
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from ..models.outputs import output_name
from .base import is_real, pair_mask, sum_rows, token_mask
from .layers import RULES, Pairs
from .matching import HiddenMatch

# Inside square roots of sums of squares: the gradient of a norm is finite at 0, and a state of usual size (norm 1 to 30)
# does not notice. PyTorch's cosine_embedding_loss has the same number.
EPSILON = 1e-12


class HiddenMeanSquaredError(HiddenMatch):
    """Squared difference, averaged over the width and the tokens.

    `mask_padding: false` averages over padded positions too, as TinyBERT's published code does: its value then depends on
    how long the batch is padded.
    """

    loss: Literal["hidden_mse"]
    mask_padding: bool = True
    """Average over real tokens only."""

    formula: ClassVar[str] = "mean over tokens and width of (W H_S - H_T)^2   (TinyBERT, equation 8)"

    @property
    def unit(self):
        return "tokens" if self.mask_padding else "positions"

    @property
    def counts_padding(self):
        return not self.mask_padding

    def compare(self, context):
        mask_padding = self.mask_padding

        def squared_difference(ops, student, _student, teacher, _teacher, batch):
            difference = student - teacher
            per_token = ops.sum(difference * difference, axis=2)  # (B, L)
            width = ops.shape(teacher)[2]
            if mask_padding:
                return ops.sum(per_token * token_mask(ops, batch)) / width
            return ops.sum(ops.sum(per_token, axis=1) * batch["example_mask"]) / width

        return squared_difference


class EmbeddingMeanSquaredError(HiddenMeanSquaredError):
    """`hidden_mse` of the embedding outputs, layer 0 to layer 0; the options are the same but for the layers."""

    loss: Literal["embedding_mse"]

    # No options of a recipe here.
    layers: ClassVar[Pairs] = ((0, 0),)
    embeddings: ClassVar[bool] = False
    layer_reduction: ClassVar[str] = "sum"
    formula: ClassVar[str] = "mean over tokens and width of (W E_S - E_T)^2   (TinyBERT, equation 9)"


class HiddenCosine(HiddenMatch):
    """One minus the cosine of the angle between the states of a token, averaged over the tokens. Lengths do not matter."""

    loss: Literal["hidden_cosine"]

    formula: ClassVar[str] = "mean over tokens of 1 - cos(W H_S, H_T)   (DistilBERT, Sanh et al. 2019, section 2)"

    @property
    def unit(self):
        return "tokens"

    def compare(self, context):
        def one_minus_cosine(ops, student, _student, teacher, _teacher, batch):
            squared = (ops.sum(student * student, axis=2) + EPSILON) * (ops.sum(teacher * teacher, axis=2) + EPSILON)
            cosine = ops.sum(student * teacher, axis=2) / ops.sqrt(squared)  # (B, L)
            return ops.sum((1.0 - cosine) * token_mask(ops, batch))

        return one_minus_cosine


class PatientKnowledgeDistillation(HiddenMatch):
    """Squared distance of the first token's states, each scaled to length 1.

    `reduction: sum` is the paper's formula, summed over the layers and the width. `mean` is the published code's
    `mse_loss`, averaged over both: for 5 layers of 768 the same weight then counts 3840 times less. The published code
    searches `normalize` as a hyperparameter: `false` leaves the states as they are. The layers are the paper's PKD-Skip
    unless others are given.
    """

    loss: Literal["pkd"]
    layers: Literal[RULES] | Pairs = "skip"  # type: ignore[valid-type]
    """PKD's own choice of layers, another rule, or [teacher, student] pairs."""
    normalize: bool = True
    """Scale the states to length 1."""
    reduction: Literal["sum", "mean"] = "sum"
    """`sum` over layers and width as the paper, or `mean` as its code."""

    formula: ClassVar[str] = (
        "mean over examples of sum over layers of |h_S/|h_S| - h_T/|h_T||^2, h the first token's   (PKD, section 3.2)"
    )

    @model_validator(mode="after")
    def _one_reduction(self):
        # A resolved recipe has every key, so what is as it would be without is as good as not given.
        if self.reduction == "mean" and self.layer_reduction != type(self).model_fields["layer_reduction"].default:
            raise ValueError("layer_reduction is for reduction: sum; reduction: mean averages over the layers as well")
        return self

    def taught_by(self, layer):
        # Nothing else of a teacher need be kept.
        return (output_name("first", layer),)

    def layer_scale(self, context):
        return 1.0 / len(self.pairs(context)) if self.reduction == "mean" else super().layer_scale(context)

    def compare(self, context):
        normalize, over_width = self.normalize, self.reduction == "mean"

        def scaled(ops, x):
            if not normalize:
                return x
            return x / ops.reshape(ops.sqrt(ops.sum(x * x, axis=1) + EPSILON), (-1, 1))

        def distance(ops, student, _student, teacher, _teacher, batch):
            difference = scaled(ops, student[:, 0]) - scaled(ops, teacher)  # (B, D)
            total = sum_rows(ops, ops.sum(difference * difference, axis=1), batch)
            return total / ops.shape(teacher)[1] if over_width else total

        return distance


class MaximumMeanDiscrepancy(HiddenMatch):
    """Squared difference of the tokens' similarity matrices: MMD with a linear kernel, in NST's form as TextBrewer has it
    (`mmd`, also called `nst`). The matrices are length by length, so the widths may differ without a projection.

    A pair is two layers, or two times two (`[[0, 3], [0, 1]]`: teacher layers 0 and 3 with student layers 0 and 1).
    `divide_by: length` divides the similarities of both models by the padded length instead of their own widths, as
    TextBrewer's code does where it has a mask: its value then depends on how long the batch is padded.
    """

    loss: Literal["mmd"]
    divide_by: Literal["width", "length"] = "width"
    """Each model's width, or the padded length."""

    any_width: ClassVar[bool] = True
    two_layers: ClassVar[bool] = True
    formula: ClassVar[str] = "mean over token pairs of (S0 S1^T / D_S - T0 T1^T / D_T)^2   (NST; TextBrewer's mmd)"

    @property
    def unit(self):
        return "token_pairs"

    @property
    def counts_padding(self):
        return self.divide_by == "length"

    def compare(self, context):
        size_axis = 2 if self.divide_by == "width" else 1

        def similarity(ops, first, second):
            products = ops.float32(ops.matmul_transposed(first, second))  # (B, L, L)
            return products * (1.0 / ops.shape(first)[size_axis])

        def squared_difference(ops, student, student_2, teacher, teacher_2, batch):
            difference = similarity(ops, student, student_2) - similarity(ops, teacher, teacher_2)
            return ops.sum(difference * difference * pair_mask(ops, batch))

        return squared_difference


class FlowOfSolutionProcedure(HiddenMatch):
    """Squared difference of the gram matrices, width by width, averaged over their entries and the examples (TextBrewer's
    `fsp`, also called `gram`). A pair is two layers, or two times two as for `mmd`."""

    loss: Literal["fsp"]

    two_layers: ClassVar[bool] = True
    formula: ClassVar[str] = (
        "mean over examples and entries of (S0^T S1 / length - T0^T T1 / length)^2   (FSP, Yim et al. 2017; TextBrewer's fsp)"
    )

    def compare(self, context):
        def gram(ops, first, second, mask):
            return ops.float32(ops.matmul(ops.transpose(first * mask, (0, 2, 1)), second))  # (B, D, D)

        def squared_difference(ops, student, student_2, teacher, teacher_2, batch):
            batch_size, length, width = ops.shape(teacher)
            mask = ops.reshape(batch["attention_mask"], (batch_size, length, 1))
            difference = gram(ops, student, student_2, mask) - gram(ops, teacher, teacher_2, mask)
            per_example = ops.sum(ops.sum(difference * difference, axis=2), axis=1) / (width * width)
            # A padding row may have no token at all.
            lengths = ops.sum(batch["attention_mask"], axis=1) + (1.0 - is_real(ops, batch))
            return sum_rows(ops, per_example / (lengths * lengths), batch)

        return squared_difference
