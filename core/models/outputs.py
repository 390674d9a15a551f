"""The names of what a forward pass can return. Losses ask for outputs by name, forward passes compute what was asked for,
and the teacher cache stores arrays under the same names.

    logits       (batch, outputs)              the head's; of a classifier of tokens (batch, length, outputs)
    pooled       (batch, hidden)               the first token's, after the pooler
    embedding    (batch, hidden)               of a whole text, as `core.models.pooling` makes it of its tokens' states
    hidden/l     (batch, length, hidden)       after layer l, counted from 1; 0 is the embedding output
    first/l      (batch, hidden)               of these the first token's
    scores/l     (batch, heads, length, length) attention scores of layer l: Q K^T / sqrt(head), before mask and softmax; with
                                               the terms of distances where a family has them
    queries/l, keys/l, values/l  (batch, heads, length, head)  of layer l
    words        (batch * length, embedding)   what the head that predicts words makes of each place, before its decoder
    masked_words (masked, embedding)           the same of the batch's `masked_rows` only
    decoder.weight (vocabulary, embedding), decoder.bias (vocabulary,)  the decoder itself, for losses that never make the
                                               logits of all places at once
"""

from __future__ import annotations

LOGITS, POOLED, EMBEDDING = "logits", "pooled", "embedding"
WORDS, MASKED_WORDS = "words", "masked_words"
DECODER_WEIGHT, DECODER_BIAS = "decoder.weight", "decoder.bias"
DISTANCE_MAPS = ("distance_query", "distance_key")
"""Roles of the maps of a table of distances."""
# Kind of output -> the linear maps of self-attention that it needs, as far as a family has them.
ATTENTION_KINDS = {
    "scores": ("query", "key", *DISTANCE_MAPS),
    "queries": ("query",),
    "keys": ("key",),
    "values": ("value",),
}


def output_name(kind: str, layer: int) -> str:
    """The name of an output of a layer."""
    return f"{kind}/{layer}"


def split_name(name: str) -> tuple[str, int | None]:
    """(kind, layer) of a name; the layer is None for what follows the encoder."""
    kind, _, layer = name.partition("/")
    return kind, int(layer) if layer else None


def attention_kinds(wanted: frozenset[str], layer: int) -> frozenset[str]:
    """What is wanted of the attention of a layer."""
    return frozenset(kind for kind in ATTENTION_KINDS if output_name(kind, layer) in wanted)


def shows_layer(wanted: frozenset[str], layer: int) -> bool:
    """Whether the states of a layer, or what its attention is made of, are wanted themselves."""
    return output_name("hidden", layer) in wanted or bool(attention_kinds(wanted, layer))


def depth(wanted: frozenset[str], layers: int) -> int:
    """How many encoder layers must be run in full for the wanted outputs; one more may be needed up to its attention."""
    if wanted & {LOGITS, POOLED, EMBEDDING, WORDS, MASKED_WORDS}:
        return layers
    needed = 0
    for kind, layer in map(split_name, wanted):
        if layer is not None:
            needed = max(needed, layer if kind in ("hidden", "first") else layer - 1)
    return needed
