"""Disentangled attention (He et al. 2021, section 3.1): terms of the scores that are of one place's content and the distance to
the other. The content's part is a layer's query or key; the distance's is a row of one table, after a map of the layer."""

from __future__ import annotations

from collections.abc import Mapping

from ..ops import Ops, Tensor
from .parts import ENCODER
from .spec import EncoderConfig
from .tree import present


def make_distances(config: EncoderConfig, root: str):
    """`distances(ops, params, length) -> (rows, index)` for texts of that many places: rows of the table (rows, hidden), and
    which of them each pair of places has, (length, length)."""
    names = {part.role: root + part.name for part in present(config, ENCODER)}
    table, norm, epsilon = f"{names['relative_positions']}.weight", names.get("relative_norm"), config.layer_norm_eps
    span, normalises = config.distance_rows // 2, norm is not None
    # One place more than a text has: torch.export makes another program where a slice is the whole.
    arguments = (config.positions + 1, config.buckets, config.farthest, span)
    # Up to this length each distance has a row of its own.
    exact = config.buckets // 2 + 1 if config.buckets else span

    def distances(ops, params, length):
        rows, index = params[table], ops.static("distance_rows", arguments)[:length, :length]
        if ops.is_known(length) and length <= exact:
            # A short text has no use for the others, whose products with all places would be the most of the work.
            rows, index = rows[span - length + 1 : span + length], index - (span - length + 1)
        if normalises:
            rows = ops.layer_norm(rows, params[norm + ".weight"], params[norm + ".bias"], epsilon)
        return rows, index

    return distances


def make_position_scores(config: EncoderConfig, named: Mapping[str, str], scale: float):
    """`scores(ops, params, query, key, distances) -> (batch, heads, length, length)`: the terms of a layer whose maps are `named`
    by role, times `scale`. Distances are dropped out in each layer anew, as transformers has it."""
    heads, head_size, rate = config.num_attention_heads, config.head_size, config.hidden_dropout_prob
    by_keys, by_queries = "distance_key" in config.distance_terms, "distance_query" in config.distance_terms
    key_map = named.get("distance_key", named.get("key"))
    query_map = named.get("distance_query", named.get("query"))

    def mapped(ops: Ops, params, name: str, rows: Tensor):
        split = ops.reshape(ops.linear(rows, params[name + ".weight"], params[name + ".bias"]), (-1, heads, head_size))
        return ops.transpose(split, (1, 0, 2)) * scale  # (A, R, D)

    def scores(ops, params, query, key, distances):
        rows, index = ops.dropout(distances[0], rate), distances[1]
        terms = []
        if by_keys:
            terms = terms + [ops.relative_scores(query, mapped(ops, params, key_map, rows), index)]
        if by_queries:
            turned = ops.relative_scores(key, mapped(ops, params, query_map, rows), ops.transpose(index, (1, 0)))
            terms = terms + [ops.transpose(turned, (0, 1, 3, 2))]
        return terms[0] + terms[1] if len(terms) > 1 else terms[0]

    return scores
