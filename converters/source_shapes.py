"""What the arrays of a file are reshaped to before they are a canonical tensor: some code keeps the heads of attention apart, and
the legacy folders of OneFlow have no shapes at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from ..core.models.known_families import is_norm, is_table
from ..core.models.parts import CLASSIFIER, CONV1D, EMBEDDINGS, FINAL_NORM, LAYER, NEVER, Family, Part
from .rules import Match

_PROJECTED = re.compile(r"(query|key|value|[qkv]_lin)\.(weight|bias)$")
_MERGED = re.compile(r"(attention\.output\.dense|attention\.dense|out_lin)\.weight$")


def reshaped(
    name: str, matches: Mapping[str, Match], shapes: Mapping[str, tuple[int, ...]], flat: Family | None
) -> tuple[int, ...] | None:
    """What the source of a canonical tensor is to be reshaped to; None is as it is. `flat` is the family of files without
    shapes."""
    match = matches[name]
    shape = shapes[match.source]
    if name.endswith("position_embeddings.weight") and len(shape) == 3 and shape[0] == 1:
        return shape[1:]
    if match.transpose and len(shape) == 3:
        if _PROJECTED.search(name):  # (hidden, heads, size of a head)
            return (shape[0], shape[1] * shape[2])
        if _MERGED.search(name):  # (heads, size of a head, hidden)
            return (shape[0] * shape[1], shape[2])
    if len(shape) == 2 and name.endswith(".bias") and _PROJECTED.search(name):
        return (shape[0] * shape[1],)
    if flat is not None and len(shape) == 1 and name.endswith(".weight") and not is_norm(name):
        return _unflattened(name, matches, shapes, flat)
    return None


def _unflattened(
    name: str, matches: Mapping[str, Match], shapes: Mapping[str, tuple[int, ...]], family: Family
) -> tuple[int, ...] | None:
    """The shape that a weight of a file without shapes must have by its bias, an embedding by the normalisation behind it.
    A table without one, and a classifier that never has a bias, are as wide as the normalisation of the last layer's result."""
    part, embedding, last = _part(name, family), is_table(name), family.by_role.get(FINAL_NORM)
    bare = part is not None and (
        part.place == EMBEDDINGS and "embeddings_norm" not in family.by_role
        or part.place == CLASSIFIER and part.biased == NEVER
    )  # fmt: skip
    by_last = bare and last is not None
    if by_last:
        partner = f"{last.name}.bias"
    else:
        partner = re.sub(r"[a-z_]+\.weight$", "LayerNorm.bias", name) if embedding else re.sub("weight$", "bias", name)
    if partner not in matches:
        return None
    elements, (width, *_) = prod(shapes[matches[name].source]), (*shapes[matches[partner].source], 0)
    if not width or elements % width:
        return None
    turned = matches[name].transpose
    if by_last:
        by_bias_first = turned
    else:
        by_bias_first = not (embedding or turned or part is not None and part.kind == CONV1D)
    return (width, elements // width) if by_bias_first else (elements // width, width)


def _part(name: str, family: Family) -> Part | None:
    """The part of the encoder or the classifier whose weight has this canonical name."""
    for part in family.parts:
        weight = f"{part.name}.weight"
        if name == weight or part.place == LAYER and name.endswith(f".{weight}"):
            return part
    return None
