"""The heads that a model can answer with: the output that each gives, and what Hugging Face calls a model that has it. Kinds of
tasks (`core.kinds`) say which one they need.

    nothing     the encoder alone
    sentences   logits (batch, outputs) of the pooled first token
    tokens      logits (batch, length, outputs) of each token's state
    words       what the head that predicts words makes of each masked place
"""

from __future__ import annotations

from dataclasses import dataclass

from .outputs import LOGITS, MASKED_WORDS


@dataclass(frozen=True)
class AnswerHead:
    """A head that a model can answer with."""

    name: str
    output: str | None
    """The name of its answers among the outputs of a forward pass; None where it gives none."""
    ending: str
    """How the class of transformers ends that has it."""
    pipeline: str
    """What the Hugging Face hub calls what such a model does."""
    recipe: str = ""
    """The recipe that trains an encoder with it."""

    @property
    def class_name(self) -> str:
        """The class of transformers that loads a model of any family with this head."""
        return f"Auto{'ModelFor' if self.ending.startswith('For') else ''}{self.ending.removeprefix('For')}"


NO_HEAD = AnswerHead("nothing", None, "Model", "feature-extraction")
SENTENCES = AnswerHead("sentences", LOGITS, "ForSequenceClassification", "text-classification", "finetune")
TOKENS = AnswerHead("tokens", LOGITS, "ForTokenClassification", "token-classification", "ner")
WORDS = AnswerHead("words", MASKED_WORDS, "ForMaskedLM", "fill-mask", "mlm")


def head_of(outputs: int | None, words: bool, classifier: AnswerHead = SENTENCES) -> AnswerHead:
    """The head that a model answers with: the one that predicts words where it has it, else its `classifier` where it has
    logits."""
    return WORDS if words else NO_HEAD if outputs is None else classifier
