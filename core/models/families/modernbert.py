"""ModernBERT (Warner et al. 2024): rotary positions, layers that see all tokens in turn with layers that see those near by, gated
feed-forward parts, normalisation before them, and as a rule no biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from ..parts import (
    CLASSIFIER,
    DENSE,
    EMBEDDINGS,
    ENCODER,
    LAYER,
    NORM,
    OUTPUTS,
    POOLER,
    TABLE,
    Block,
    Family,
    Part,
    words_parts,
)
from ..spec import Activation, ModelConfig, OneWidthConfig

_WIDTH = "hidden_size"
_WORDS = "model.embeddings.tok_embeddings"

_CLASSIFIER = (
    Part("pooler", "head.dense", DENSE, (_WIDTH, _WIDTH), POOLER, biased="classifier_bias"),
    Part("pooler_norm", "head.norm", NORM, (_WIDTH,), POOLER, biased="norm_bias"),
    Part("classifier", "classifier", DENSE, (OUTPUTS, _WIDTH), CLASSIFIER),
)
"""The same of a text and of each token."""

MODERNBERT = Family(
    "modernbert",
    "ModernBert",
    "model.",
    (
        Part("words", _WORDS, TABLE, ("vocab_size", _WIDTH), EMBEDDINGS),
        Part("embeddings_norm", "model.embeddings.norm", NORM, (_WIDTH,), EMBEDDINGS, biased="norm_bias"),
        # The first layer sees embeddings that are normalised already.
        Part("attention_norm", "attn_norm", NORM, (_WIDTH,), LAYER, biased="norm_bias", from_layer=1),
        Part("attention_input", "attn.Wqkv", DENSE, ("three_widths", _WIDTH), LAYER, biased="attention_bias"),
        Part("attention_output", "attn.Wo", DENSE, (_WIDTH, _WIDTH), LAYER, biased="attention_bias"),
        Part("output_norm", "mlp_norm", NORM, (_WIDTH,), LAYER, biased="norm_bias"),
        Part("intermediate", "mlp.Wi", DENSE, ("two_inner_sizes", _WIDTH), LAYER, biased="mlp_bias"),
        Part("output", "mlp.Wo", DENSE, (_WIDTH, "intermediate_size"), LAYER, biased="mlp_bias"),
        Part("final_norm", "model.final_norm", NORM, (_WIDTH,), ENCODER, biased="norm_bias"),
        *_CLASSIFIER,
        *words_parts(
            "mlm",
            _WIDTH,
            _WORDS,
            transform="head.dense",
            norm="head.norm",
            bias="decoder.bias",
            decoder="decoder",
            biased="classifier_bias",
            norm_biased="norm_bias",
        ),
    ),
    layer="model.layers.{layer}.",
    block=Block(normalised_before=True, gated=True),
    pooler_in_encoder=False,
    pooler_activation="gelu",
    own_heads={"tokens": _CLASSIFIER, "spans": _CLASSIFIER},
    classifies_tokens=True,
    classes={("mlm",): "ForMaskedLM"},
    in_googles_code=False,
)
FULL, SLIDING = "full_attention", "sliding_attention"
_EVERY, _BASES = 3, {FULL: 160_000.0, SLIDING: 10_000.0}


class Rotation(BaseModel):
    """How queries and keys are rotated in one kind of layers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_theta: float = Field(gt=0, allow_inf_nan=False)
    rope_type: Literal["default"] = "default"


class Rotations(BaseModel):
    """The same for both kinds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    full_attention: Rotation = Rotation(rope_theta=_BASES[FULL])
    sliding_attention: Rotation = Rotation(rope_theta=_BASES[SLIDING])


class ModernBertConfig(OneWidthConfig):
    """A ModernBERT encoder with a classification or regression head."""

    family = MODERNBERT
    common = {
        "hidden_activation": "hidden_act",
        "norm_eps": "layer_norm_eps",
        "embedding_dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "classifier_dropout": "head_dropout",
    }
    ignored_keys = frozenset(
        # How transformers computes, and keys that earlier versions wrote and read under another name.
        "deterministic_flash_attn sparse_prediction sparse_pred_ignore_index reference_compile repad_logits_with_grad "
        "layer_norm_eps initializer_cutoff_factor cls_token_id "
        "global_attn_every_n_layers global_rope_theta local_rope_theta".split()
    )

    vocab_size: int = Field(50368, ge=1)
    hidden_size: int = Field(768, ge=1)
    intermediate_size: int = Field(1152, ge=1)
    num_hidden_layers: int = Field(22, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    hidden_activation: Activation = "gelu"
    max_position_embeddings: int = Field(8192, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    norm_eps: float = Field(1e-5, gt=0)
    norm_bias: bool = False
    attention_bias: bool = False
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    layer_types: tuple[Literal["full_attention", "sliding_attention"], ...] = ()
    """Of each layer; where nothing is said every third sees all tokens, from the first one on."""
    rope_parameters: Rotations = Rotations()
    local_attention: int = Field(128, ge=2)
    """How many tokens the others see: half of them on each side."""
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    mlp_bias: bool = False
    mlp_dropout: float = Field(0.0, ge=0, lt=1)
    decoder_bias: Literal[True] = True
    classifier_pooling: Literal["cls", "mean"] = "cls"
    classifier_dropout: float = Field(0.0, ge=0, lt=1)
    classifier_bias: bool = False
    classifier_activation: Activation = "gelu"
    pad_token_id: int | None = 50283

    @model_validator(mode="before")
    @classmethod
    def _every_layer_has_a_type(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and not given.get("layer_types"):
            count = given.get("num_hidden_layers", cls.model_fields["num_hidden_layers"].default)
            return {**given, "layer_types": layer_types(count, _EVERY) if type(count) is int and 0 < count <= 1000 else ()}
        return given

    @model_validator(mode="after")
    def _types_and_heads_fit(self) -> ModernBertConfig:
        if len(self.layer_types) != self.num_hidden_layers:
            raise ValueError(f"layer_types names {len(self.layer_types)} layers, num_hidden_layers is {self.num_hidden_layers}")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is none of the {self.vocab_size} tokens of vocab_size")
        if self.head_size % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} and num_attention_heads {self.num_attention_heads} make heads of "
                f"{self.head_size}; expected an even number, whose halves are rotated"
            )
        return self

    @field_serializer("layer_types")
    def _as_a_list(self, types: tuple[str, ...]) -> list[str]:
        return list(types)

    @classmethod
    def current_keys(cls, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Earlier versions said how many layers apart those are that see all tokens, and named the two bases."""
        keys = super().current_keys(raw)
        every, count = keys.pop("global_attn_every_n_layers", None), keys.get("num_hidden_layers")
        if not keys.get("layer_types") and type(every) is int and every > 0 and type(count) is int and 0 < count <= 1000:
            keys["layer_types"] = layer_types(count, every)
        bases = {FULL: keys.pop("global_rope_theta", None), SLIDING: keys.pop("local_rope_theta", None)}
        if keys.get("rope_parameters") is None:
            keys.pop("rope_parameters", None)
            if told := {kind: base for kind, base in bases.items() if base is not None}:
                keys["rope_parameters"] = {kind: {"rope_theta": base} for kind, base in told.items()}
        return keys

    @classmethod
    def keys_for_layers(cls, like: ModelConfig, depth: int, layers: tuple[int, ...] | None) -> dict[str, Any]:
        """A layer that is taken stays of its type."""
        if layers is None and depth == like.num_hidden_layers:
            layers = tuple(range(depth))
        taken = layers is not None and len(layers) == depth and all(0 <= layer < like.num_hidden_layers for layer in layers)
        return {"layer_types": [like.layer_types[layer] for layer in layers] if taken else []}

    @property
    def three_widths(self) -> int:
        """Queries, keys and values side by side."""
        return 3 * self.hidden_size

    @property
    def two_inner_sizes(self) -> int:
        """What is activated and what it is multiplied with, side by side."""
        return 2 * self.intermediate_size

    @property
    def hidden_act(self) -> Activation:
        """Activation of the feed-forward part."""
        return self.hidden_activation

    @property
    def words_act(self) -> Activation:
        """Activation of the head that predicts words."""
        return self.classifier_activation

    @property
    def pooler_activation(self) -> str:
        """Activation behind the classifier's hidden map."""
        return self.classifier_activation

    @property
    def averages_tokens(self) -> bool:
        """Whether the classifier sees the mean of the tokens."""
        return self.classifier_pooling == "mean"

    @property
    def layer_norm_eps(self) -> float:
        """Epsilon of the normalisations."""
        return self.norm_eps

    @property
    def hidden_dropout_prob(self) -> float:
        """Dropout rate of the embeddings."""
        return self.embedding_dropout

    @property
    def attention_probs_dropout_prob(self) -> float:
        """Dropout rate of the attention probabilities."""
        return self.attention_dropout

    @property
    def attention_output_dropout(self) -> float:
        """Dropout rate of what the attention adds."""
        return self.attention_dropout

    @property
    def output_dropout(self) -> float:
        """Dropout rate of what the feed-forward part adds."""
        return 0.0

    @property
    def inner_dropout(self) -> float:
        """Dropout rate inside of the feed-forward part."""
        return self.mlp_dropout

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the classifier."""
        return self.classifier_dropout

    @property
    def token_head_dropout(self) -> float:
        """That of every head."""
        return self.classifier_dropout

    @property
    def type_vocab_size(self) -> int:
        """There are no token types."""
        return 0

    def window(self, layer: int) -> int | None:
        """How many tokens layer `layer` (from 0) sees on each side; None: all."""
        return None if self.layer_types[layer] == FULL else self.local_attention // 2

    def rotary_base(self, layer: int) -> float:
        """The base of the angles by which queries and keys of layer `layer` (from 0) are rotated."""
        return getattr(self.rope_parameters, self.layer_types[layer]).rope_theta

    def with_dropout(self, rate: float) -> ModernBertConfig:
        """The same model with every dropout rate set to `rate`."""
        rates = ("embedding_dropout", "attention_dropout", "mlp_dropout", "classifier_dropout")
        return self.model_copy(update=dict.fromkeys(rates, rate))


def layer_types(count: int, every: int) -> list[str]:
    """The types of `count` layers of which every so many sees all tokens, from the first one on."""
    return [SLIDING if layer % every else FULL for layer in range(count)]
