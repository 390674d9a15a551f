"""DeBERTa-v2 and -v3 (He et al. 2021; He, Gao and Chen 2021): BERT whose scores have terms of one token's content and its
distance to the other, and as a rule no positions in its embeddings.

A score is (q k' + q K[d]' + k Q[d]') / sqrt(n head): d is the bucket of the two tokens' distance, K and Q are a table of
distances, one for all layers, after each layer's maps of keys and queries or after maps of its own, and n counts the terms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ...shown import shown
from ..parts import (
    DENSE,
    ENCODER,
    LAYER,
    NORM,
    TABLE,
    UNUSED,
    Family,
    Part,
    classifier_parts,
    embedding_parts,
    layer_parts,
    words_parts,
)
from ..spec import Activation, OneWidthConfig

_ROLES = {"c2p": "distance_key", "p2c": "distance_query"}
"""Term of `pos_att_type`, content to position or the other way -> what maps the distance."""
_WHEN = {"positions": "position_biased_input", "types": "type_vocab_size"}
_EMBEDDINGS = tuple(replace(part, when=_WHEN.get(part.role)) for part in embedding_parts("deberta.", "hidden_size"))
_WORDS = _EMBEDDINGS[0].name
_WIDTH = "hidden_size"


def _only_when(condition: str, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    return tuple(replace(part, when=condition) for part in parts)


DEBERTA_V2 = Family(
    "deberta-v2",
    "DebertaV2",
    "deberta.",
    (
        *_EMBEDDINGS,
        *layer_parts(
            query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj"
        ),
        Part("distance_key", "attention.self.pos_key_proj", DENSE, (_WIDTH, _WIDTH), LAYER, when="maps_distance_keys"),
        Part("distance_query", "attention.self.pos_query_proj", DENSE, (_WIDTH, _WIDTH), LAYER, when="maps_distance_queries"),
        Part(
            "relative_positions", "deberta.encoder.rel_embeddings", TABLE, ("distance_rows", _WIDTH), ENCODER,
            when="relative_attention",
        ),
        Part("relative_norm", "deberta.encoder.LayerNorm", NORM, (_WIDTH,), ENCODER, when="normalises_distances"),
        *classifier_parts("pooler.dense"),
        *_only_when(
            "legacy",
            words_parts(
                "mlm",
                _WIDTH,
                _WORDS,
                transform="cls.predictions.transform.dense",
                norm="cls.predictions.transform.LayerNorm",
                bias="cls.predictions.bias",
                decoder="cls.predictions.decoder",
            ),
        ),
        # Of those that Microsoft published; transformers computes with it where `legacy` is false.
        *_only_when(
            "published_head",
            words_parts(
                "lm",
                _WIDTH,
                _WORDS,
                transform="lm_predictions.lm_head.dense",
                norm="lm_predictions.lm_head.LayerNorm",
                bias="lm_predictions.lm_head.bias",
            ),
        ),
        # Of the third version's discriminators. No code of transformers computes with it.
        Part("replaced_transform", "mask_predictions.dense", DENSE, (_WIDTH, _WIDTH), UNUSED),
        Part("replaced_norm", "mask_predictions.LayerNorm", NORM, (_WIDTH,), UNUSED),
        Part("replaced_last", "mask_predictions.classifier", DENSE, (1, _WIDTH), UNUSED),
    ),
    layer="deberta.encoder.layer.{layer}.",
    pooler_in_encoder=False,
    pooler_activation="gelu",
    pooler_dropout=True,
    classes={("mlm",): "ForMaskedLM", ("lm",): "ForMaskedLM"},
    head_keys={"mlm": {"legacy": True}, "lm": {"legacy": False}},
    in_googles_code=False,
    classifies_tokens=True,
)


class DebertaV2Config(OneWidthConfig):
    """A DeBERTa-v2 or -v3 encoder with a classification or regression head."""

    family = DEBERTA_V2
    ignored_keys = frozenset({"pooler_hidden_size", "attention_head_size", "conv_act", "conv_groups", "z_steps"})

    vocab_size: int = Field(128100, ge=1)
    hidden_size: int = Field(1536, ge=1)
    num_hidden_layers: int = Field(24, ge=1)
    num_attention_heads: int = Field(24, ge=1)
    intermediate_size: int = Field(6144, ge=1)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=2)
    type_vocab_size: int = Field(0, ge=0)
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-7, gt=0)
    relative_attention: bool = False
    max_relative_positions: int = Field(-1, ge=-1)
    """The farthest distance with a row or bucket of its own; below 1 `max_position_embeddings`."""
    position_buckets: int = Field(-1, ge=-1)
    """Below 1 each distance has a row of its own."""
    pos_att_type: str | None = None
    """`c2p`, `p2c`, or both with a | between: the terms of distances. A list of them is taken too."""
    share_att_key: bool = False
    """Whether distances are mapped by the maps of the layer's keys and queries."""
    norm_rel_ebd: Literal["none", "layer_norm"] = "none"
    position_biased_input: bool = True
    pad_token_id: int | None = 0
    pooler_dropout: float = Field(0.0, ge=0, lt=1)
    pooler_hidden_act: Activation | Literal["tanh"] = "gelu"
    cls_dropout: float | None = Field(None, ge=0, lt=1)
    legacy: bool = True
    """Which of two heads predicts words: transformers' first one, or that of the published files."""

    @field_validator("pos_att_type", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and all(isinstance(term, str) for term in value):
            value = "|".join(value)
        if isinstance(value, str) and not {term.strip() for term in value.lower().split("|")} - {""} <= _ROLES.keys():
            raise ValueError(f"got {shown(value)}, expected c2p, p2c, or both with a | between")
        return value or None

    @model_validator(mode="after")
    def _distances_belong_together(self) -> DebertaV2Config:
        if self.relative_attention and not self.distance_terms:
            raise ValueError("relative_attention is true, and pos_att_type names no term; expected c2p, p2c, or both")
        if self.norm_rel_ebd != "none" and not self.relative_attention:
            raise ValueError(f"norm_rel_ebd is {self.norm_rel_ebd}, and relative_attention, which it belongs to, is false")
        if self.position_buckets == 1:
            raise ValueError("position_buckets is 1: a half of it is for each direction, so at least 2")
        return self

    @property
    def _named_terms(self) -> frozenset[str]:
        named = {term.strip() for term in (self.pos_att_type or "").lower().split("|")}
        return frozenset(role for term, role in _ROLES.items() if term in named)

    @property
    def distance_terms(self) -> frozenset[str]:
        """The terms of distances that the scores have, by the role of what maps the distance."""
        return self._named_terms if self.relative_attention else frozenset()

    @property
    def score_terms(self) -> int:
        """By how many terms the scores are scaled: also where `relative_attention` is false, as transformers has it."""
        return 1 + len(self._named_terms)

    @property
    def farthest(self) -> int:
        """The farthest distance with a row or bucket of its own."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def buckets(self) -> int:
        """How many buckets distances are put in; 0: each has a row of its own."""
        return max(self.position_buckets, 0)

    @property
    def distance_rows(self) -> int:
        """Rows of the table of distances, one half for what lies behind."""
        return 2 * (self.buckets or self.farthest)

    @property
    def maps_distance_keys(self) -> bool:
        """Whether a layer has a map of its own for distances in place of keys."""
        return "distance_key" in self.distance_terms and not self.share_att_key

    @property
    def maps_distance_queries(self) -> bool:
        """Whether a layer has a map of its own for distances in place of queries."""
        return "distance_query" in self.distance_terms and not self.share_att_key

    @property
    def normalises_distances(self) -> bool:
        """Whether the table of distances goes through a normalisation."""
        return self.norm_rel_ebd == "layer_norm"

    @property
    def published_head(self) -> bool:
        """Whether words are predicted by the head of the published files."""
        return not self.legacy

    @property
    def pooler_activation(self) -> str:
        """What the pooler ends with."""
        return self.pooler_hidden_act

    @property
    def before_pooler_dropout(self) -> float:
        """Dropout rate before the pooler."""
        return self.pooler_dropout

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the classifier."""
        return self.hidden_dropout_prob if self.cls_dropout is None else self.cls_dropout

    def with_dropout(self, rate: float) -> DebertaV2Config:
        """The same model with every dropout rate set to `rate`."""
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout")
        return self.model_copy(update={**dict.fromkeys(rates, rate), "cls_dropout": None})
