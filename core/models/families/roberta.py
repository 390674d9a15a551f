"""RoBERTa (Liu et al. 2019), XLM-R (Conneau et al. 2020) and CamemBERT (Martin et al. 2020): BERT whose positions start behind
the padding token's number, and whose classifier has a hidden layer of its own."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from ..parts import DENSE, UNUSED, Family, Part, classifier_parts, embedding_parts, layer_parts, words_parts
from .bert import BertKeys

_EMBEDDINGS = embedding_parts("roberta.", "hidden_size")


OWN_HEADS = {"choices": classifier_parts("{root}pooler.dense")}
"""The score of a choice has the pooler of the encoder before it."""


def head_parts(root: str, words: str) -> tuple[Part, ...]:
    """A RoBERTa's classifier, its head that predicts words with the table `words`, and the pooler that encoders' files hold."""
    return (
        *classifier_parts("classifier.dense", "classifier.out_proj"),
        *words_parts(
            "mlm",
            "hidden_size",
            words,
            transform="lm_head.dense",
            norm="lm_head.layer_norm",
            bias="lm_head.bias",
            decoder="lm_head.decoder",
        ),
        Part("encoder_pooler", f"{root}pooler.dense", DENSE, ("hidden_size", "hidden_size"), UNUSED),
    )


ROBERTA = Family(
    "roberta",
    "Roberta",
    "roberta.",
    (
        *_EMBEDDINGS,
        *layer_parts(),
        *head_parts("roberta.", _EMBEDDINGS[0].name),
    ),
    layer="roberta.encoder.layer.{layer}.",
    pooler_in_encoder=False,
    pooler_dropout=True,
    words_activation="gelu",
    classes={("mlm",): "ForMaskedLM"},
    in_googles_code=False,
    classifies_tokens=True,
    own_heads=OWN_HEADS,
)


class RobertaConfig(BertKeys):
    """A RoBERTa encoder with a classification or regression head."""

    family = ROBERTA

    vocab_size: int = Field(50265, ge=1)
    max_position_embeddings: int = Field(512, ge=1)
    """Rows of the table: the first ones, up to that of the padding token, belong to no token of a text."""
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
