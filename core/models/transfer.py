"""Weights of one family taken over by a model of another: a BERT becomes the start of a DistilBERT student.

DistilBERT's layers are BERT's under other names. It has no token types and no pooler: the row of type 0 is added to each
position's, so that the embeddings of a single text stay exactly the teacher's (the published extraction script drops it, and
with it what the first layer expects), and a classifier's hidden map starts anew.
"""

from __future__ import annotations

import numpy as np

from .parts import EMBEDDINGS, LAYER
from .spec import EncoderConfig, ModelConfig
from .tree import words_place


def can_transfer(source: ModelConfig, target: ModelConfig) -> bool:
    """Whether `transferred` knows the way."""
    return source.family.model_type in target.family.starts_from


def transferred(
    source: EncoderConfig, parameters: dict[str, np.ndarray], target: EncoderConfig, layers: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """The tensors that `target` can take from a model of `source`, under its own names; its layer i is layer `layers[i]`."""
    theirs, ours, renamed = source.family, target.family, {}
    for part in ours.at(EMBEDDINGS, words_place(target)):
        if part.tied is None:
            renamed |= dict(zip(part.tensors(), theirs.by_role[part.role].tensors(), strict=True))
    for own, taken in enumerate(layers):
        own_prefix, prefix = target.layer_prefixes(own)[0], source.layer_prefixes(taken)[0]
        for part in ours.at(LAYER):
            names = zip(part.tensors(), theirs.by_role[part.role].tensors(), strict=True)
            renamed |= {own_prefix + name: prefix + other for name, other in names}
    found = {own: parameters[taken] for own, taken in renamed.items() if taken in parameters}
    positions, types = (f"{theirs.name(role)}.weight" for role in ("positions", "types"))
    found[f"{ours.name('positions')}.weight"] = parameters[positions] + parameters[types][0]
    return found
