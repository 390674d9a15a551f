"""BERT (Devlin et al. 2018)."""

from __future__ import annotations

from pydantic import Field

from ..parts import Family, Part, classifier_parts, embedding_parts, layer_parts, pairs_part, words_parts
from ..spec import Activation, OneWidthConfig


def parts_of(root: str) -> tuple[Part, ...]:
    """The parts of a BERT whose encoder's names start with `root`."""
    embeddings = embedding_parts(root, "hidden_size")
    return (*embeddings, *layer_parts(), *head_parts(root, embeddings[0].name))


def head_parts(root: str, words: str) -> tuple[Part, ...]:
    """BERT's classifier, its head that predicts words with the table `words`, and the one that tells of a pair of texts."""
    return (
        *classifier_parts(f"{root}pooler.dense"),
        *words_parts(
            "mlm",
            "hidden_size",
            words,
            transform="cls.predictions.transform.dense",
            norm="cls.predictions.transform.LayerNorm",
            bias="cls.predictions.bias",
            decoder="cls.predictions.decoder",
        ),
        pairs_part("nsp", "cls.seq_relationship"),
    )


BERT = Family(
    "bert",
    "Bert",
    "bert.",
    parts_of("bert."),
    layer="bert.encoder.layer.{layer}.",
    classes={("mlm", "nsp"): "ForPreTraining", ("mlm",): "ForMaskedLM", ("nsp",): "ForNextSentencePrediction"},
    entries={"position_embedding_type": "absolute"},
    classifies_tokens=True,
)


class BertKeys(OneWidthConfig):
    """The keys of BERT's config.json, which families with BERT's layers took over."""

    vocab_size: int = Field(30522, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = Field(2, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    pad_token_id: int | None = 0
    """transformers' models start with zeros in its row; what is computed is masked wherever it is."""


class BertConfig(BertKeys):
    """A BERT encoder with a classification or regression head."""

    family = BERT

    classifier_relu: bool = False
    """TinyBERT's published code puts a ReLU between pooler and classifier. No key of Hugging Face, whose model differs."""

    @property
    def relu_before_classifier(self) -> bool:
        """Whether there is a ReLU between pooler and classifier."""
        return self.classifier_relu
