"""MPNet (Song et al. 2020): BERT without token types, whose positions start behind the padding token's number, and whose scores
have a learnt term of the distance of two tokens, one for all layers."""

from __future__ import annotations

from pydantic import Field

from ..parts import ENCODER, TABLE, Block, Family, Part, embedding_parts, layer_parts
from ..spec import Activation, OneWidthConfig
from .roberta import OWN_HEADS, head_parts

_EMBEDDINGS = embedding_parts("mpnet.", "hidden_size", types=False)
_BUCKETS = 32
"""transformers' code has this number, whatever the configuration says: that decides the table's rows alone."""

MPNET = Family(
    "mpnet",
    "MPNet",
    "mpnet.",
    (
        *_EMBEDDINGS,
        *layer_parts(
            query="attention.attn.q",
            key="attention.attn.k",
            value="attention.attn.v",
            attention_output="attention.attn.o",
            attention_norm="attention.LayerNorm",
        ),
        Part(
            "relative_positions",
            "mpnet.encoder.relative_attention_bias",
            TABLE,
            ("relative_attention_num_buckets", "num_attention_heads"),
            ENCODER,
        ),
        *head_parts("mpnet.", _EMBEDDINGS[0].name),
    ),
    layer="mpnet.encoder.layer.{layer}.",
    block=Block(relative_buckets=_BUCKETS),
    pooler_in_encoder=False,
    pooler_dropout=True,
    words_activation="gelu",
    classes={("mlm",): "ForMaskedLM"},
    in_googles_code=False,
    classifies_tokens=True,
    own_heads=OWN_HEADS,
)


class MPNetConfig(OneWidthConfig):
    """An MPNet encoder with a classification or regression head."""

    family = MPNET

    vocab_size: int = Field(30527, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=3)
    """Rows of the table: the first two belong to no token of a text."""
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    relative_attention_num_buckets: int = Field(_BUCKETS, ge=_BUCKETS)
    pad_token_id: int | None = 1

    @property
    def first_position(self) -> int:
        """The row of the positions' table that a text's first token takes: 2, whatever the padding token is."""
        return 2

    @property
    def type_vocab_size(self) -> int:
        """There are no token types."""
        return 0
