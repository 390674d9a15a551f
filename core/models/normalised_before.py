"""Layers whose two parts, attention and feed-forward, each normalise what goes into them and are added to it as it was
(Xiong et al. 2020). ModernBERT (Warner et al. 2024) has rotary positions, a gated feed-forward part, and layers that see only the
tokens near by; in GPT-2 (Radford et al. 2019) a token sees those before it; MegatronBERT (Shoeybi et al. 2019) is a BERT but for
the order.

The hidden states between the layers are the sums as they are; the last layer's are normalised once more. The sums stay in full
precision whatever the maps compute in: what a layer adds to them may be small.
"""

from __future__ import annotations

from .attention_maps import make_projections
from .components import MASKED_SCORE, activate, attention_bias, dense, normalise, turned_dense
from .outputs import attention_kinds, output_name
from .parts import CONV1D, LAYER
from .spec import ACTIVATIONS, EncoderConfig
from .tree import has_bias, present


def make_bias(config: EncoderConfig):
    """`bias(ops, params, batch) -> (padding, near, outside)`: what is added to the scores of layers that see all tokens
    (batch, 1, 1, length), of those that see some (batch, 1, length, length) or (length, length), and 1.0 at each pair of tokens
    of which the first does not see the second (length, length)."""
    if config.family.block.causal:
        return _make_causal_bias(config)
    # One place more than a text has: torch.export makes another program where a slice is the whole.
    positions, windows = config.positions + 1, {config.window(layer) for layer in range(config.num_hidden_layers)} - {None}
    window = windows.pop() if windows else None

    def bias(ops, params, batch):
        padding = attention_bias(ops, batch["attention_mask"])
        if window is None:
            return padding, None, None
        batch_size, length = ops.shape(batch["input_ids"])
        places = ops.static("places", (positions,))[:length]
        distance = ops.reshape(places, (length, 1)) - ops.reshape(places, (1, length))
        outside = ops.above(distance * distance, window * window + 0.5)
        # Padding sees all tokens: with none near by, what it sees would hang on the rounding of scores of the masked size.
        queries = ops.reshape(batch["attention_mask"], (batch_size, 1, length, 1))
        return padding, padding + queries * outside * MASKED_SCORE, outside

    return bias


def _make_causal_bias(config: EncoderConfig):
    """The same of tokens that see those before them alone: padding, which is behind all tokens, needs no bias of its own."""
    positions = config.positions + 1

    def bias(ops, params, batch):
        length = ops.shape(batch["input_ids"])[1]
        behind = ops.static("tokens_behind", (positions,))[:length, :length]
        added = behind * MASKED_SCORE
        return added, added, behind

    return bias


def make_layer(
    config: EncoderConfig, prefix: str, number: int, wanted: frozenset[str] = frozenset(), partial: bool = False
):
    """As `core.models.encoder.make_layer`. Queries and keys are shown as they meet, rotated or not; scores of tokens that a layer
    does not see are the same number in every model."""
    head_size, epsilon = config.head_size, config.layer_norm_eps
    inner_size, activation = config.intermediate_size, ACTIVATIONS[config.hidden_act]
    attention_dropout, output_dropout = config.attention_probs_dropout_prob, config.attention_output_dropout
    block, inner_dropout, added_dropout = config.family.block, config.inner_dropout, config.output_dropout
    is_near = not config.sees_all(number - 1)
    gated = block.gated
    apply = turned_dense if config.family.by_role["output"].kind == CONV1D else dense
    named = {part.role: prefix + part.name for part in present(config, LAYER, number - 1)}
    biased = {role: has_bias(config, role) for role in named}
    project, _, some = make_projections(config, named, biased, number, apply)
    attention_output, intermediate, output = (
        (named[role], biased[role]) for role in ("attention_output", "intermediate", "output")
    )
    attention_norm, output_norm = named.get("attention_norm"), named["output_norm"]
    first_biased, second_biased = biased.get("attention_norm", False), biased["output_norm"]
    root = prefix.removesuffix(config.layer_prefixes(number - 1)[0])
    final_norm, is_last = root + config.family.name("final_norm"), number == config.num_hidden_layers
    final_biased = has_bias(config, "final_norm")
    kinds = attention_kinds(wanted, number)
    scores_name, wants_scores = output_name("scores", number), "scores" in kinds
    parts = [kind for kind in ("queries", "keys", "values") if kind in kinds]
    part_names = [output_name(kind, number) for kind in parts]
    for_attention = (*parts, "queries", "keys") if wants_scores else tuple(parts)

    def attended(ops, params, x):
        return x if attention_norm is None else normalise(ops, params, attention_norm, x, epsilon, first_biased)

    def show(ops, tensors, scores, outside):
        taken = {}
        if wants_scores:
            shown = ops.float32(scores)
            taken[scores_name] = shown * (1.0 - outside) + outside * MASKED_SCORE if is_near else shown
        for index in range(len(parts)):
            taken[part_names[index]] = ops.float32(tensors[parts[index]])
        return taken

    def scaled_scores(ops, query, key):
        return ops.matmul_transposed(query * (head_size**-0.5), key) if wants_scores else None  # (B, A, L, L)

    def finish(ops, params, x, context):
        merged = ops.reshape(ops.transpose(context, (0, 2, 1, 3)), ops.shape(x))  # (B, L, H)
        x = x + ops.dropout(apply(ops, params, attention_output[0], merged, attention_output[1]), output_dropout)
        near = normalise(ops, params, output_norm, x, epsilon, second_biased)
        inner = apply(ops, params, intermediate[0], near, intermediate[1])  # (B, L, I), or 2 I where it is gated
        if gated:
            inner = activate(ops, inner[:, :, :inner_size], activation) * inner[:, :, inner_size:]
        else:
            inner = activate(ops, inner, activation)
        outer = apply(ops, params, output[0], ops.dropout(inner, inner_dropout), output[1])
        x = x + ops.dropout(outer, added_dropout)
        return normalise(ops, params, final_norm, x, epsilon, final_biased) if is_last else x

    def whole(ops, params, x, bias, batch):
        x = ops.float32(x)
        query, key, value = project(ops, params, attended(ops, params, x))
        added, scores = bias[1] if is_near else bias[0], scaled_scores(ops, query, key)
        if wants_scores:
            context = ops.matmul(ops.dropout(ops.softmax(scores + added), attention_dropout), value)
        else:
            context = ops.attention(query, key, value, added, attention_dropout)  # (B, A, L, D)
        tensors = {"queries": query, "keys": key, "values": value}
        return finish(ops, params, x, context), show(ops, tensors, scores, bias[2])

    def only_attention(ops, params, x, bias, batch):
        tensors = some(ops, params, attended(ops, params, ops.float32(x)), for_attention)
        scores = scaled_scores(ops, tensors["queries"], tensors["keys"]) if wants_scores else None
        return x, show(ops, tensors, scores, bias[2])

    return only_attention if partial else whole
