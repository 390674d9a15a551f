"""ALBERT (Lan et al. 2020): BERT with narrow embeddings and shared layers."""

from __future__ import annotations

from pydantic import Field, model_validator

from ..parts import (
    DENSE,
    EMBEDDINGS,
    Block,
    Family,
    Part,
    classifier_parts,
    embedding_parts,
    layer_parts,
    pairs_part,
    words_parts,
)
from ..spec import Activation, EncoderConfig

_EMBEDDINGS = embedding_parts("albert.", "embedding_size")
_GOOGLES_LAYER = "bert.encoder.transformer.group.{}.inner_group.{}."

ALBERT = Family(
    "albert",
    "Albert",
    "albert.",
    (
        *_EMBEDDINGS,
        Part(
            "projection", "albert.encoder.embedding_hidden_mapping_in", DENSE, ("hidden_size", "embedding_size"), EMBEDDINGS
        ),
        *layer_parts(
            query="attention.query",
            key="attention.key",
            value="attention.value",
            attention_output="attention.dense",
            attention_norm="attention.LayerNorm",
            intermediate="ffn",
            output="ffn_output",
            output_norm="full_layer_layer_norm",
        ),
        *classifier_parts("albert.pooler"),
        *words_parts(
            "mlm",
            "embedding_size",
            _EMBEDDINGS[0].name,
            transform="predictions.dense",
            norm="predictions.LayerNorm",
            bias="predictions.bias",
            decoder="predictions.decoder",
        ),
        pairs_part("sop", "sop_classifier.classifier"),
    ),
    layer="albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
    block=Block(output_dropout=False),  # transformers' code has the layer and does not use it
    classes={("mlm", "sop"): "ForPreTraining", ("mlm",): "ForMaskedLM"},
    google={
        **{part.role: part.name.replace("albert.", "bert.") for part in _EMBEDDINGS},
        "projection": "bert.encoder.embedding_hidden_mapping_in",
        "query": f"{_GOOGLES_LAYER}attention_1.self.query",
        "key": f"{_GOOGLES_LAYER}attention_1.self.key",
        "value": f"{_GOOGLES_LAYER}attention_1.self.value",
        "attention_output": f"{_GOOGLES_LAYER}attention_1.output.dense",
        "attention_norm": f"{_GOOGLES_LAYER}LayerNorm",
        "intermediate": f"{_GOOGLES_LAYER}ffn_1.intermediate.dense",
        "output": f"{_GOOGLES_LAYER}ffn_1.intermediate.output.dense",
        "output_norm": f"{_GOOGLES_LAYER}LayerNorm_1",
        "pooler": "bert.pooler.dense",
        "words.transform": "cls.predictions.transform.dense",
        "words.norm": "cls.predictions.transform.LayerNorm",
        "words.bias": "cls.predictions.bias",
        "pairs.last": "cls.seq_relationship",
    },
    classifies_tokens=True,
)


class AlbertConfig(EncoderConfig):
    """An ALBERT with a classification or regression head: `num_hidden_layers` passes over `num_hidden_groups` groups, each
    of `inner_group_num` layers. What is one layer elsewhere is one pass over a group here."""

    family = ALBERT
    common = {"classifier_dropout_prob": "head_dropout"}
    ignored_keys = frozenset({"down_scale_factor", "gap_size", "layers_to_keep", "net_structure_type", "num_memory_blocks"})

    vocab_size: int = Field(30000, ge=1)
    embedding_size: int = Field(128, ge=1)
    hidden_size: int = Field(4096, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_hidden_groups: int = Field(1, ge=1)
    num_attention_heads: int = Field(64, ge=1)
    intermediate_size: int = Field(16384, ge=1)
    inner_group_num: int = Field(1, ge=1)
    hidden_act: Activation = "gelu_new"
    hidden_dropout_prob: float = Field(0.0, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.0, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = Field(2, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    classifier_dropout_prob: float = Field(0.1, ge=0, lt=1)
    pad_token_id: int | None = 0

    @model_validator(mode="after")
    def _every_group_has_a_layer(self) -> AlbertConfig:
        if self.num_hidden_groups > self.num_hidden_layers:
            raise ValueError(
                f"num_hidden_groups {self.num_hidden_groups} is more than num_hidden_layers {self.num_hidden_layers}"
            )
        return self

    @property
    def projects(self) -> bool:
        """Whether a linear map leads from the embeddings to the hidden states: also where the two widths are equal."""
        return True

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the classifier."""
        return self.classifier_dropout_prob

    def with_dropout(self, rate: float) -> AlbertConfig:
        """The same model with every dropout rate set to `rate`."""
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
        return self.model_copy(update=dict.fromkeys(rates, rate))

    def layer_prefixes(self, layer: int) -> tuple[str, ...]:
        """Where the tensors of pass `layer` (from 0) live."""
        # Passes per group as a float and rounded down, as transformers has it: both need not be multiples.
        group = int(layer / (self.num_hidden_layers / self.num_hidden_groups))
        return tuple(self.family.layer.format(group=group, inner=inner) for inner in range(self.inner_group_num))
