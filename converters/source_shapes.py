"""What the arrays of a file are reshaped to before they are a canonical tensor: some code keeps the heads of attention apart, and
the legacy folders of OneFlow have no shapes at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from ..core.models.spec import is_norm
from .names_canonical import is_embedding
from .rules import Match

_PROJECTED = re.compile(r"(query|key|value|[qkv]_lin)\.(weight|bias)$")
_MERGED = re.compile(r"(attention\.output\.dense|attention\.dense|out_lin)\.weight$")

_TURNED = re.compile(r"\.(c_attn|c_fc|c_proj)\.weight$")
"""GPT-2's maps, whose weights are (in, out)."""
_AS_WIDE_AS = {f"{name}.weight": "transformer.ln_f.bias" for name in ("transformer.wte", "transformer.wpe", "score")}
"""GPT-2's tables, behind which there is no normalisation, and its classifier, which has no bias -> what is as wide."""


def reshaped(
    name: str, matches: Mapping[str, Match], shapes: Mapping[str, tuple[int, ...]], flat: bool
) -> tuple[int, ...] | None:
    """What the source of a canonical tensor is to be reshaped to; None is as it is. `flat`: files without shapes."""
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
    if flat and len(shape) == 1 and name.endswith(".weight") and not is_norm(name):
        return _unflattened(name, matches, shapes)
    return None


def _unflattened(
    name: str, matches: Mapping[str, Match], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """The shape that a weight of a file without shapes must have by its bias, an embedding by the normalisation behind it."""
    embedding = is_embedding(name) or name in _AS_WIDE_AS
    partner = re.sub(r"[a-z_]+\.weight$", "LayerNorm.bias", name) if embedding else re.sub("weight$", "bias", name)
    partner = _AS_WIDE_AS.get(name, partner)
    if partner not in matches:
        return None
    elements, (width, *_) = prod(shapes[matches[name].source]), (*shapes[matches[partner].source], 0)
    if not width or elements % width:
        return None
    turned = matches[name].transpose
    if name in _AS_WIDE_AS:
        by_bias_first = turned
    else:
        by_bias_first = not (embedding or turned or _TURNED.search(name))
    return (width, elements // width) if by_bias_first else (elements // width, width)
