"""MegatronBERT (Shoeybi et al. 2019), of which Erlangshen's models are: BERT whose layers are normalised before their parts and
once more behind all, and whose embeddings are not normalised.

The names are those of transformers, which start as BERT's do.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ..parts import ENCODER, NORM, Block, Family, Part, embedding_parts, layer_parts
from .bert import BERT, BertKeys, head_parts

_EMBEDDINGS = embedding_parts(BERT.root, "hidden_size", normalised=False)

MEGATRON_BERT = Family(
    "megatron-bert",
    "MegatronBert",
    BERT.root,
    (
        *_EMBEDDINGS,
        *layer_parts(attention_norm="attention.ln", output_norm="ln"),
        Part("final_norm", f"{BERT.root}encoder.ln", NORM, ("hidden_size",), ENCODER),
        *head_parts(BERT.root, _EMBEDDINGS[0].name),
    ),
    layer=BERT.layer,
    block=Block(normalised_before=True),
    classes=BERT.classes,
    classifies_tokens=True,
    in_googles_code=False,
)


class MegatronBertConfig(BertKeys):
    """A MegatronBERT encoder with a classification or regression head."""

    family = MEGATRON_BERT
    classifier_dropout: ClassVar[None] = None
    """No key of this family, whose classifier has the hidden rate."""

    vocab_size: int = Field(29056, ge=1)
    hidden_size: int = Field(1024, ge=1)
    num_hidden_layers: int = Field(24, ge=1)
    num_attention_heads: int = Field(16, ge=1)
    intermediate_size: int = Field(4096, ge=1)
