"""Losses over the vocabulary: of a masked language model, and of a student that learns what its teacher would say in each
place.

With z = W h + b the logits of a place, h what the head makes of its state, W the word embeddings, T the temperature:
  causal_lm   mean over the tokens but a text's first of -log softmax(z_S)[y]           (GPT-2, Radford et al. 2019)
  masked_lm   mean over the masked tokens of -log softmax(z_S)[y]                       (BERT, Devlin et al. 2018, section 3.1)
  word_kl     mean over the tokens of KL(softmax(z_T / T) || softmax(z_S / T)), times T^2     (DistilBERT, Sanh et al. 2019)
  word_mse    mean over the tokens of sum_v (z_S - z_T)^2                               (DistilBERT's published code, alpha_mse)
Logits of all places at once would be the largest thing in memory by far: they are made a few rows at a time, together with
their gradient, and never kept (`Ops.word_cross_entropy` and its neighbours).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..models.answer_heads import NEXT_WORDS, OF_WORDS, AnswerHead
from ..models.answer_heads import WORDS as WORDS_HEAD
from ..models.outputs import DECODER_BIAS, DECODER_WEIGHT, MASKED_WORDS, WORDS
from .base import LossTerm, TermContext, token_mask


class WordTerm(LossTerm):
    """Base of the terms over the vocabulary."""

    needs_words: ClassVar[bool] = True
    heads: ClassVar[tuple[AnswerHead, ...]] = OF_WORDS
    """Those that a model may have."""

    def problems(self, context: TermContext):
        if context.kind.head not in self.heads:
            kinds = " or ".join(f"'{head.recipe}'" for head in self.heads)
            needs = "masked texts" if self.heads == (WORDS_HEAD,) else "texts whose words are guessed"
            return [("loss", f"{self.loss} needs {needs}, but task.kind is not {kinds}")]
        for who, config in (("student", context.student), *context.teachers.items()):
            if config is not None and not hasattr(config, "num_attention_heads"):
                return [("loss", f"{self.loss} needs models that predict words, but the {who} is none")]
        return []


class MaskedLanguageModel(WordTerm):
    """Cross-entropy of the masked words."""

    loss: Literal["masked_lm"]

    heads: ClassVar[tuple[AnswerHead, ...]] = (WORDS_HEAD,)
    formula: ClassVar[str] = "mean over masked tokens of -log softmax(z_S)[word]   (BERT, Devlin et al. 2018, section 3.1)"

    @property
    def unit(self):
        return "masked"

    def student_outputs(self, context):
        return frozenset({MASKED_WORDS, DECODER_WEIGHT, DECODER_BIAS})

    def function(self, context, label):
        def cross_entropy(ops, params, student, teacher, batch):
            labels, weights = batch["masked_labels"], batch["masked_weights"]
            states, weight, bias = student[MASKED_WORDS], student[DECODER_WEIGHT], student[DECODER_BIAS]
            return ops.word_cross_entropy(states, weight, bias, labels, weights)

        return cross_entropy


class CausalLanguageModel(MaskedLanguageModel):
    """Cross-entropy of each next token, of a model whose tokens see only those before them. The first token of a text has
    nothing before it, and padding is none."""

    loss: Literal["causal_lm"]

    heads: ClassVar[tuple[AnswerHead, ...]] = (NEXT_WORDS,)
    formula: ClassVar[str] = "mean over tokens but a text's first of -log softmax(z_S)[token]   (GPT-2, Radford et al. 2019)"

    @property
    def unit(self):
        return "next_tokens"


class WordMatch(WordTerm):
    """Base of the terms that compare with a teacher what both would say in each place.

    `tokens: all` compares at every token, [CLS] and [SEP] included, as DistilBERT's published code does; `masked` at the
    masked ones only (its `--restrict_ce_to_mask`). Of a causal language model `masked` leaves out the last token of each text.
    """

    teacher: str | None = None
    """Which teacher, where there are several; the first where it is not given."""
    tokens: Literal["all", "masked"] = "all"
    """At all tokens, or at the masked ones."""

    needs_teacher: ClassVar[bool] = True

    @property
    def unit(self):
        return "tokens" if self.tokens == "all" else "masked"

    @property
    def output(self) -> str:
        """Which states are compared."""
        return WORDS if self.tokens == "all" else MASKED_WORDS

    def problems(self, context):
        if self.teacher is not None and self.teacher not in context.teachers:
            known = ", ".join(context.teachers)
            return [("teacher", f"'{self.teacher}' is not one of the teachers: {known}")]
        found = super().problems(context)
        sizes = [context.student, context.teachers.get(context.teacher(self.teacher))]
        if not found and None not in sizes and sizes[0].vocab_size != sizes[1].vocab_size:
            counts = f"student {sizes[0].vocab_size}, teacher {sizes[1].vocab_size}"
            return [("loss", f"{self.loss} compares word by word, but the vocabularies differ ({counts} words)")]
        return found

    def student_outputs(self, context):
        return frozenset({self.output, DECODER_WEIGHT, DECODER_BIAS})

    def teacher_outputs(self, context):
        return {context.teacher(self.teacher): self.student_outputs(context)}

    def function(self, context, label):
        teacher_name, output, everywhere = context.teacher(self.teacher), self.output, self.tokens == "all"
        taught = [f"{teacher_name}/{name}" for name in (output, DECODER_WEIGHT, DECODER_BIAS)]
        compare = self.compare()

        def matched(ops, params, student, teacher, batch):
            weights = ops.reshape(token_mask(ops, batch), (-1,)) if everywhere else batch["masked_weights"]
            own = (student[output], student[DECODER_WEIGHT], student[DECODER_BIAS])
            return compare(ops, own, (teacher[taught[0]], teacher[taught[1]], teacher[taught[2]]), weights)

        return matched

    def compare(self):
        """`f(ops, student, teacher, weights) -> scalar`, each of the two being states (R, E), weight (V, E) and bias (V,)."""
        raise NotImplementedError


class WordDivergence(WordMatch):
    """Kullback-Leibler divergence of the student's from the teacher's distribution over the vocabulary, both softened."""

    loss: Literal["word_kl"]
    temperature: float = Field(2.0, gt=0, allow_inf_nan=False)
    """What the logits of both are divided by."""
    temperature_squared: bool = True
    """Multiply by the temperature's square."""

    formula: ClassVar[str] = (
        "T^2 times mean over tokens of KL(softmax(z_T/T) || softmax(z_S/T)) over the vocabulary   (DistilBERT, Sanh et al. 2019)"
    )

    def compare(self):
        temperature, scale = self.temperature, self.temperature**2 if self.temperature_squared else 1.0

        def divergence(ops, own, taught, weights):
            value = ops.word_divergence(own[0], own[1], own[2], taught[0], taught[1], taught[2], weights, temperature)
            return value * scale

        return divergence


class WordMeanSquaredError(WordMatch):
    """Squared difference of the logits, summed over the vocabulary and averaged over the tokens."""

    loss: Literal["word_mse"]

    formula: ClassVar[str] = "mean over tokens of sum over words of (z_S - z_T)^2   (DistilBERT's published code, alpha_mse)"

    def compare(self):
        def squared_error(ops, own, taught, weights):
            return ops.word_squared_error(own[0], own[1], own[2], taught[0], taught[1], taught[2], weights)

        return squared_error
