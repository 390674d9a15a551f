"""RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020) and CamemBERT (Martin et al. 2020): BERT whose positions start behind
the padding token's number, and whose classifier has a hidden layer of its own."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from ..parts import DENSE, UNUSED, Family, Part, classifier_parts, embedding_parts, layer_parts, words_parts
from ..spec import Activation, EncoderConfig

_EMBEDDINGS = embedding_parts("roberta.", "hidden_size")

ROBERTA = Family(
    "roberta",
    "Roberta",
    "roberta.",
    (
        *_EMBEDDINGS,
        *layer_parts(),
        *classifier_parts("classifier.dense", "classifier.out_proj"),
        *words_parts(
            "mlm",
            "hidden_size",
            _EMBEDDINGS[0].name,
            transform="lm_head.dense",
            norm="lm_head.layer_norm",
            bias="lm_head.bias",
            decoder="lm_head.decoder",
        ),
        Part("encoder_pooler", "roberta.pooler.dense", DENSE, ("hidden_size", "hidden_size"), UNUSED),
    ),
    layer="roberta.encoder.layer.{layer}.",
    pooler_in_encoder=False,
    pooler_dropout=True,
    words_activation="gelu",
    classes={("mlm",): "ForMaskedLM"},
    in_googles_code=False,
)


class RobertaConfig(EncoderConfig):
    """A RoBERTa encoder with a classification or regression head."""

    family = ROBERTA

    vocab_size: int = Field(50265, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    """Rows of the table: the first ones, up to that of the padding token, belong to no token of a text."""
    type_vocab_size: int = Field(2, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    pad_token_id: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _a_text_has_a_position(self) -> RobertaConfig:
        if self.positions < 1:
            raise ValueError(
                f"max_position_embeddings {self.max_position_embeddings} leaves none behind those up to pad_token_id "
                f"{self.pad_token_id}, where RoBERTa's positions start"
            )
        return self

    @property
    def embedding_size(self) -> int:
        """Width of the embeddings."""
        return self.hidden_size

    @property
    def first_position(self) -> int:
        """The row of the positions' table that a text's first token takes."""
        return self.pad_token_id + 1


class CamembertConfig(RobertaConfig):
    """CamemBERT: RoBERTa's network and names; classes and defaults are its own."""

    family = replace(ROBERTA, model_type="camembert", title="Camembert")

    vocab_size: int = Field(30522, ge=1)


class XlmRobertaConfig(RobertaConfig):
    """XLM-R: RoBERTa's network and names; classes and defaults are its own."""

    family = replace(ROBERTA, model_type="xlm-roberta", title="XLMRoberta")

    vocab_size: int = Field(30522, ge=1)
