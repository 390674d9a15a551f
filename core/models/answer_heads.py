"""The heads that a model can answer with, in one table for whoever asks: the output that each gives, what Hugging Face calls a
model that has it, and how others' classes of the kind are known. Kinds of tasks (`core.kinds`) say which one they need, a
conversion keeps any of them.

    nothing     the encoder alone
    sentences   logits (batch, outputs) of the pooled first token
    choices     logits (batch, 1) as of a sentence: the score of a text and one choice
    tokens      logits (batch, length, outputs) of each token's state
    spans       logits (batch, length, 2) of each token's state: start and end of the answer
    embeddings  a vector of each text (`core.models.pooling`), which needs no tensor
    words       what the head that predicts words makes of each masked place
    next words  the same of a model whose tokens see only those before them, of each place that another token follows

What a family's parts of each are is in `core.models.tree.head_parts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .outputs import EMBEDDING, LOGITS, MASKED_WORDS


@dataclass(frozen=True)
class AnswerHead:
    """A head that a model can answer with."""

    name: str
    output: str | None
    """The name of its answers among the outputs of a forward pass; None where it gives none."""
    ending: str
    """How the class of transformers ends that has it."""
    also: tuple[str, ...] = field(default=(), kw_only=True)
    """How other classes of it end that have it, or, of the one that is none, no classifier either."""
    pipeline: str = ""
    """What the Hugging Face hub calls what such a model does."""
    recipe: str = ""
    """The recipe that trains an encoder with it."""
    token_map: str = ""
    """What its last map is called, where it answers for each token's state; empty where it answers for a text as a whole."""
    what: str = ""
    """A model that has it, in words."""
    alike: str = ""
    """What the names of others' classes of the kind hold, as a regular expression."""
    exported: tuple[str, ...] = (LOGITS,)
    """What others' exported graphs of the kind call their outputs, those that are the answer first."""

    @property
    def class_name(self) -> str:
        """The class of transformers that loads a model of any family with this head."""
        if self.ending == "LMHeadModel":
            return "AutoModelForCausalLM"
        return f"Auto{'ModelFor' if self.ending.startswith('For') else ''}{self.ending.removeprefix('For')}"


NO_HEAD = AnswerHead("nothing", None, "Model", "feature-extraction", also=("ForNextSentencePrediction",))
SENTENCES = AnswerHead(
    "sentences", LOGITS, "ForSequenceClassification", "text-classification", "finetune", what="a classifier of sentences"
)
CHOICES = AnswerHead("choices", LOGITS, "ForMultipleChoice", what="a multiple-choice model", alike="MultipleChoice|SWAG|Swag")
TOKENS = AnswerHead(
    "tokens", LOGITS, "ForTokenClassification", "token-classification", "ner",
    token_map="classifier", what="a token classifier", alike="Token|N[Ee][Rr]|C[Rr][Ff]|Tagg|Span|BiLSTM",
)  # fmt: skip
SPANS = AnswerHead(
    "spans", LOGITS, "ForQuestionAnswering", "question-answering", "qa",
    token_map="qa_outputs", what="a question answering model", alike="Question|QA|SQuAD|Squad",
    exported=("start_logits", "end_logits"),
)  # fmt: skip
EMBEDDINGS = AnswerHead(
    "embeddings", EMBEDDING, "Model", "sentence-similarity", "embedding", what="a model that embeds texts",
    exported=("sentence_embedding", "token_embeddings"),
)  # fmt: skip
WORDS = AnswerHead("words", MASKED_WORDS, "ForMaskedLM", "fill-mask", "mlm", also=("ForPreTraining",))
NEXT_WORDS = AnswerHead(
    "next words", MASKED_WORDS, "LMHeadModel", "text-generation", "clm", also=("ForCausalLM", "DoubleHeadsModel")
)
OF_WORDS = (WORDS, NEXT_WORDS)

OTHERS = (TOKENS, CHOICES, SPANS)
"""Those whose tensors may have the names and shapes of a classifier of sentences; of a class that is like several, the first."""
CLASSIFIERS = (SENTENCES, *OTHERS)
WITHOUT_CLASSIFIER = tuple(ending for head in (NO_HEAD, *OF_WORDS) for ending in (head.ending, *head.also))
"""How the classes end that have none."""


def head_of(outputs: int | None, words: bool, classifier: AnswerHead = SENTENCES, causal: bool = False) -> AnswerHead:
    """The head that a model answers with: the one that predicts words where it has it, else its `classifier` where it has
    logits, or embeds texts, which takes none. Words are the next ones of a `causal` model."""
    if words:
        return NEXT_WORDS if causal else WORDS
    return NO_HEAD if outputs is None and classifier != EMBEDDINGS else classifier
