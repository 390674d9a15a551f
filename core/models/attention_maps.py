"""Queries, keys and values of a layer, each from a map of its own or all from one, rotated where that is so."""

from __future__ import annotations

from collections.abc import Mapping

from .components import dense, rotated, sharpened, split_heads
from .parts import ATTENTION_INPUT
from .spec import EncoderConfig


def make_projections(config: EncoderConfig, named: Mapping[str, str], biased: Mapping[str, bool], number: int, apply=dense):
    """`(project, project_first, some)` of layer `number` (from 1), whose parts of each role are `named` so in full, and `biased`
    or not: `project(ops, params, x) -> (query, key, value)`, (batch, heads, length, head) each, of the states (batch, length,
    hidden); `attend_first(ops, params, x, first, bias, dropout)`, the attention (batch, heads, 1, head) of the first places
    `first` (batch, 1, hidden) to all, with what is added to their scores; and `some(ops, params, x, kinds)`, a dict of those of
    "queries", "keys" and "values" that are among `kinds`. Maps are computed by `apply`."""
    heads, head_size, base = config.num_attention_heads, config.head_size, config.rotary_base(number - 1)
    query_map, key_map, value_map, together_map = map(named.get, ("query", "key", "value", ATTENTION_INPUT))
    query_biased, key_biased, value_biased, together_biased = map(biased.get, ("query", "key", "value", ATTENTION_INPUT))
    terms = config.score_terms
    # One place more than a text has: torch.export makes another program where a slice is the whole.
    table = (config.positions + 1, head_size, base)

    def turned(ops, x):
        return x if base is None else rotated(ops, x, table)

    def make_query(ops, params, x):
        return turned(ops, split_heads(ops, apply(ops, params, query_map, x, query_biased), heads, head_size))

    def make_key(ops, params, x):
        return turned(ops, split_heads(ops, apply(ops, params, key_map, x, key_biased), heads, head_size))

    def make_value(ops, params, x):
        return split_heads(ops, apply(ops, params, value_map, x, value_biased), heads, head_size)

    def project(ops, params, x):
        if together_map is None:
            return make_query(ops, params, x), make_key(ops, params, x), make_value(ops, params, x)
        together = split_heads(ops, apply(ops, params, together_map, x, together_biased), 3 * heads, head_size)
        return turned(ops, together[:, :heads]), turned(ops, together[:, heads : 2 * heads]), together[:, 2 * heads :]

    def attend_first(ops, params, x, first, bias, dropout):
        if together_map is not None:
            query, key, value = project(ops, params, x)
            return ops.attention(sharpened(query[:, :, :1], terms), key, value, bias, dropout)
        query = sharpened(make_query(ops, params, first), terms)
        if base is not None:
            return ops.attention(query, make_key(ops, params, x), make_value(ops, params, x), bias, dropout)
        key_weight, value_weight = params[key_map + ".weight"], params[value_map + ".weight"]
        key_bias = params[key_map + ".bias"] if key_biased else None
        value_bias = params[value_map + ".bias"] if value_biased else None
        return ops.attention_to_states(query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout)

    def some(ops, params, x, kinds):
        tensors = {}
        if together_map is not None:
            query, key, value = project(ops, params, x)
            return {"queries": query, "keys": key, "values": value}
        if "queries" in kinds:
            tensors["queries"] = make_query(ops, params, x)
        if "keys" in kinds:
            tensors["keys"] = make_key(ops, params, x)
        if "values" in kinds:
            tensors["values"] = make_value(ops, params, x)
        return tensors

    return project, attend_first, some
