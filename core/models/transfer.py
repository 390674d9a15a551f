"""Weights of one family taken over by a model of another: a BERT becomes the start of a DistilBERT student.

DistilBERT's layers are BERT's under other names. It has no token types and no pooler: the row of type 0 is added to each
position's, so that the embeddings of a single text stay exactly the teacher's (the published extraction script drops it, and
with it what the first layer expects), and a classifier's hidden map starts anew.
"""

from __future__ import annotations

import numpy as np

from .families import DistilBertConfig
from .heads import words_head
from .spec import BertConfig, EncoderConfig

_LAYER_PARTS = ("query", "key", "value", "attention_output", "attention_norm", "intermediate", "output", "output_norm")


def can_transfer(source: EncoderConfig, target: EncoderConfig) -> bool:
    """Whether `transferred` knows the way."""
    return isinstance(source, BertConfig) and isinstance(target, DistilBertConfig)


def transferred(
    source: EncoderConfig, parameters: dict[str, np.ndarray], target: EncoderConfig, layers: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """The tensors that `target` can take from a model of `source`, under its own names; its layer i is layer `layers[i]`."""
    theirs, ours = source.names, target.names
    renamed = {f"{ours.embeddings}{part}": f"{theirs.embeddings}{part}" for part in ("word_embeddings", "LayerNorm")}
    for own, taken in enumerate(layers):
        prefixes = target.layer_prefixes(own)[0], source.layer_prefixes(taken)[0]
        renamed |= {prefixes[0] + getattr(ours, part): prefixes[1] + getattr(theirs, part) for part in _LAYER_PARTS}
    own_head, their_head = words_head(target), words_head(source)
    renamed |= {own_head.transform: their_head.transform, own_head.norm: their_head.norm}
    names = {f"{own}.{kind}": f"{taken}.{kind}" for own, taken in renamed.items() for kind in ("weight", "bias")}
    names[own_head.last_bias] = their_head.last_bias
    found = {own: parameters[taken] for own, taken in names.items() if taken in parameters}
    positions, types = (f"{theirs.embeddings}{kind}_embeddings.weight" for kind in ("position", "token_type"))
    found[f"{ours.embeddings}position_embeddings.weight"] = parameters[positions] + parameters[types][0]
    return found
