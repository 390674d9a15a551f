"""Layers whose two parts, attention and feed-forward, are each added to what goes into them, and the sum normalised: BERT's
(Devlin et al. 2018), and what the parts, the configuration and the `Block` of a family say otherwise: rotary positions, one map
for queries, keys and values, a gate, terms of distances, maps without biases.
"""

from __future__ import annotations

from .attention_maps import make_projections
from .components import activate, dense, normalise, sharpened
from .disentangled import make_position_scores
from .outputs import attention_kinds, output_name
from .parts import ENCODER, LAYER
from .spec import ACTIVATIONS, EncoderConfig
from .tree import has_bias, present


def is_relative(config: EncoderConfig) -> bool:
    """Whether the scores depend on the distance of two places."""
    return any(part.role == "relative_positions" for part in present(config, ENCODER))


def make_layer(
    config: EncoderConfig,
    prefix: str,
    number: int,
    wanted: frozenset[str] = frozenset(),
    partial: bool = False,
    first_only: bool = False,
):
    """As `core.models.encoder.make_layer`. Queries and keys are shown as they meet, rotated where they are."""
    head_size, epsilon = config.head_size, config.layer_norm_eps
    hidden_dropout, attention_dropout = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    activation, block = ACTIVATIONS[config.hidden_act], config.family.block
    output_dropout, relative = hidden_dropout if block.output_dropout else 0.0, is_relative(config)
    scale, terms = (head_size * config.score_terms) ** -0.5, config.score_terms
    named = {part.role: prefix + part.name for part in present(config, LAYER)}
    biased = {role: has_bias(config, role) for role in named}
    attention_output, attention_norm, gate = named["attention_output"], named["attention_norm"], named.get("gate")
    intermediate, output, output_norm = named["intermediate"], named["output"], named["output_norm"]
    attention_biased, inner_biased, output_biased = map(biased.get, ("attention_output", "intermediate", "output"))
    gate_biased = biased.get("gate")
    project, attend_first, some = make_projections(config, named, biased, number)
    position_scores, disentangled = make_position_scores(config, named, scale), bool(config.distance_terms)
    kinds = attention_kinds(wanted, number)
    scores_name, wants_scores = output_name("scores", number), "scores" in kinds
    parts = [kind for kind in ("queries", "keys", "values") if kind in kinds]
    part_names = [output_name(kind, number) for kind in parts]
    for_attention = (*parts, "queries", "keys") if wants_scores else tuple(parts)

    def scaled_scores(ops, query, key):
        return ops.matmul_transposed(query * scale, key)  # (B, A, L, L)

    def show(ops, scores, shown):
        return ops.float32(scores + shown) if relative else ops.float32(scores)

    def completed(ops, params, query, key, bias):
        # (what is added to the scores, what of it they show)
        if disentangled:
            shown = position_scores(ops, params, query, key, bias[1])  # (B, A, L, L)
            return bias[0] + shown, shown
        return bias

    def finish(ops, params, x, context):
        merged = ops.reshape(ops.transpose(context, (0, 2, 1, 3)), ops.shape(x))  # (B, L, H), or as many places as `x` has
        attended = ops.dropout(dense(ops, params, attention_output, merged, attention_biased), hidden_dropout)
        x = normalise(ops, params, attention_norm, x + attended, epsilon)
        inner = dense(ops, params, intermediate, x, inner_biased)  # (B, L, I)
        if gate is None:
            inner = activate(ops, inner, activation)
        else:
            inner = activate(ops, dense(ops, params, gate, x, gate_biased), activation) * inner
        outer = ops.dropout(dense(ops, params, output, inner, output_biased), output_dropout)
        return normalise(ops, params, output_norm, x + outer, epsilon)

    def whole(ops, params, x, bias, batch):
        query, key, value = project(ops, params, x)
        taken, (added, shown) = {}, completed(ops, params, query, key, bias)
        if wants_scores:
            scores = scaled_scores(ops, query, key)
            taken[scores_name] = show(ops, scores, shown)
            context = ops.matmul(ops.dropout(ops.softmax(scores + added), attention_dropout), value)
        else:
            context = ops.attention(sharpened(query, terms), key, value, added, attention_dropout)  # (B, A, L, D)
        tensors = {"queries": query, "keys": key, "values": value}
        for index in range(len(parts)):
            taken[part_names[index]] = ops.float32(tensors[parts[index]])
        return finish(ops, params, x, context), taken

    def first_token(ops, params, x, bias, batch):
        # All places are attended to, and the first one alone has a query and what follows.
        first = x[:, :1]  # (B, 1, H)
        added = bias[0][:, :, :1] if relative else bias[0]  # (B, 1 or A, 1, L)
        return finish(ops, params, first, attend_first(ops, params, x, first, added, attention_dropout)), {}

    def only_attention(ops, params, x, bias, batch):
        taken, tensors = {}, some(ops, params, x, for_attention)
        if wants_scores:
            query, key = tensors["queries"], tensors["keys"]
            taken[scores_name] = show(ops, scaled_scores(ops, query, key), completed(ops, params, query, key, bias)[1])
        for index in range(len(parts)):
            taken[part_names[index]] = ops.float32(tensors[parts[index]])
        return x, taken

    if partial:
        return only_attention
    return first_token if first_only else whole
