"""Word embeddings that a converter wrote the wrong way round, (hidden, vocabulary) for (vocabulary, hidden).

Converters that decide by shape whether to transpose do this when the configuration's vocabulary is not the checkpoint's.
Here, too, only a shape can tell, so that the sizes must be known from elsewhere: the configuration, the LayerNorm of the
embeddings, the output bias of the masked language model. Where they decide nothing the tensor is left as it is, and where
they contradict one another it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..core.errors import CheckpointError

_NORM = re.compile(r"embedding.*(layer_?norm|layer_normalization(_[0-9]+)?)[./-](weight|bias|gamma|beta)$", re.IGNORECASE)
_OUTPUT_BIAS = re.compile(
    r"((^|[./-])predictions[./-](output_|decoder\.)?bias|vocab_projector\.bias|generator_lm_head[./]bias"
    r"|generator_predictions[./-]output_bias|lm_head[./-](decoder[./-])?bias|cls1\.output_bias)$"
)


def flipped_word_embeddings(
    shape: tuple[int, ...],
    name: str,
    config: Mapping[str, Any] | None,
    other_shapes: Mapping[str, tuple[int, ...]],
) -> bool:
    """Whether word embeddings of this shape are (hidden, vocabulary). `other_shapes` are those of the other tensors, by
    any names. Raises CheckpointError where no orientation fits what is known, or what is known contradicts itself."""
    if len(shape) != 2:
        raise CheckpointError(f"{name}: word embeddings of shape {shape}, expected (vocabulary, hidden)")
    if shape[0] == shape[1]:
        return False
    widths, vocabularies = _known_sizes(config or {}, other_shapes)
    flipped = shape[0] in widths or shape[1] in vocabularies
    upright = shape[1] in widths or shape[0] in vocabularies
    if flipped == upright and (widths or vocabularies):
        what = "both ways round" if flipped else "neither way round"
        raise CheckpointError(
            f"{name}: word embeddings of shape {shape} fit {what}: the configuration and the other tensors say"
            f" {_listed(vocabularies)} words of width {_listed(widths)}"
        )
    return flipped


def repair_message(shape: tuple[int, ...]) -> str:
    """What a report says of word embeddings of this shape that were transposed."""
    return f"word embeddings were {shape}, the wrong way round; transposed"


def _known_sizes(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> tuple[set[int], set[int]]:
    """(widths of an embedding, sizes of the vocabulary) that anything tells."""
    width = next((config[key] for key in ("embedding_size", "dim", "hidden_size") if config.get(key) is not None), None)
    widths = {width} if isinstance(width, int) else set()
    vocabulary = config.get("vocab_size")
    vocabularies = {vocabulary} if isinstance(vocabulary, int) else set()
    for name, shape in shapes.items():
        if len(shape) == 1 and _NORM.search(name):
            widths.add(shape[0])
        elif len(shape) == 1 and _OUTPUT_BIAS.search(name):
            vocabularies.add(shape[0])
    return widths, vocabularies


def _listed(sizes: set[int]) -> str:
    return " or ".join(map(str, sorted(sizes))) or "?"
