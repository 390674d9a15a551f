"""RoBERTa-PreLayerNorm (`--encoder-normalize-before` of fairseq, Ott et al. 2019): RoBERTa whose layers are normalised before
their parts and once more behind all."""

from __future__ import annotations

from dataclasses import replace

from ..parts import ENCODER, NORM, Block, Part, embedding_parts, layer_parts
from .roberta import ROBERTA, RobertaConfig, head_parts

_ROOT = "roberta_prelayernorm."
_EMBEDDINGS = embedding_parts(_ROOT, "hidden_size")

ROBERTA_PRELAYERNORM = replace(
    ROBERTA,
    model_type="roberta-prelayernorm",
    title="RobertaPreLayerNorm",
    root=_ROOT,
    parts=(
        *_EMBEDDINGS,
        *layer_parts(attention_norm="attention.LayerNorm", output_norm="intermediate.LayerNorm"),
        Part("final_norm", f"{_ROOT}LayerNorm", NORM, ("hidden_size",), ENCODER),
        *head_parts(_ROOT, _EMBEDDINGS[0].name),
    ),
    layer=f"{_ROOT}encoder.layer.{{layer}}.",
    block=Block(normalised_before=True),
)


class RobertaPreLayerNormConfig(RobertaConfig):
    """A RoBERTa-PreLayerNorm encoder with a classification or regression head."""

    family = ROBERTA_PRELAYERNORM
