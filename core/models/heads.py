"""The heads of pre-training: what their parts are called, and their shapes.

    mlm            bert, distilbert, albert   what a word in a gap could be
    nsp            bert                       whether the second text follows the first (0: it does)
    sop            albert                     whether the two texts are in their order (0: they are)
    generator      electra                    as mlm
    discriminator  electra                    whether a word was put in by the generator

Names and layouts are those of Hugging Face's *ForPreTraining and *ForMaskedLM.
"""

from __future__ import annotations

from dataclasses import dataclass

from .spec import EncoderConfig

WORDS, PAIRS, TOKENS = "words", "pairs", "tokens"


@dataclass(frozen=True)
class Head:
    """A head and what its parts are called."""

    kind: str
    """`words` predicts a word for each position, `tokens` one number, `pairs` tells of a pair of texts one of two classes."""
    last: str
    """The last linear map."""
    bias: str = ""
    """Its bias, where it is not the map's own."""
    transform: str = ""
    """The linear map before it."""
    norm: str = ""
    """The normalisation after the transform."""
    activation: str | None = None
    """That of the transform, where it is not the encoder's."""

    @property
    def last_bias(self) -> str:
        """Name of the bias of the last linear map."""
        return self.bias or self.last + ".bias"


HEADS: dict[str, dict[str, Head]] = {
    "bert": {
        "mlm": Head(
            WORDS,
            "cls.predictions.decoder",
            "cls.predictions.bias",
            "cls.predictions.transform.dense",
            "cls.predictions.transform.LayerNorm",
        ),
        "nsp": Head(PAIRS, "cls.seq_relationship"),
    },
    "distilbert": {"mlm": Head(WORDS, "vocab_projector", "", "vocab_transform", "vocab_layer_norm")},
    "albert": {
        "mlm": Head(WORDS, "predictions.decoder", "predictions.bias", "predictions.dense", "predictions.LayerNorm"),
        "sop": Head(PAIRS, "sop_classifier.classifier"),
    },
    "electra": {
        "discriminator": Head(TOKENS, "discriminator_predictions.dense_prediction", "", "discriminator_predictions.dense"),
        "generator": Head(
            WORDS, "generator_lm_head", "", "generator_predictions.dense", "generator_predictions.LayerNorm", "gelu"
        ),
    },
}


def decoders(config: EncoderConfig) -> dict[str, str]:
    """Head -> name of its decoder's weight (vocabulary, embedding), for the heads that predict words. As a rule it is tied
    to the word embeddings, and then no part of `head_shapes`."""
    heads = HEADS[config.names.model_type]
    return {name: head.last + ".weight" for name, head in heads.items() if head.kind == WORDS}


def head_shapes(config: EncoderConfig) -> dict[str, dict[str, tuple[int, ...]]]:
    """Head -> name -> shape of each of its tensors but the decoder's weight. A bias that many files hold under two names
    (`cls.predictions.bias`, `cls.predictions.decoder.bias`) is there once, under the first one."""
    return {name: _shapes(config, head) for name, head in HEADS[config.names.model_type].items()}


def _shapes(config: EncoderConfig, head: Head) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_size
    width = config.embedding_size if head.kind == WORDS else hidden
    shapes: dict[str, tuple[int, ...]] = {}
    if head.transform:
        shapes[head.transform + ".weight"], shapes[head.transform + ".bias"] = (width, hidden), (width,)
    if head.norm:
        shapes[head.norm + ".weight"] = shapes[head.norm + ".bias"] = (width,)
    rows = {WORDS: config.vocab_size, PAIRS: 2, TOKENS: 1}[head.kind]
    if head.kind != WORDS:
        shapes[head.last + ".weight"] = (rows, width)
    shapes[head.last_bias] = (rows,)
    return shapes


def words_head(config: EncoderConfig) -> Head:
    """The head that predicts words."""
    return next(head for head in HEADS[config.names.model_type].values() if head.kind == WORDS)


def word_embeddings(config: EncoderConfig) -> str:
    """Name of the table of words, which as a rule is the weight of that head's last map too."""
    return config.names.embeddings + "word_embeddings.weight"


def words_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors of the head that predicts words, without the decoder's weight."""
    return _shapes(config, words_head(config))
