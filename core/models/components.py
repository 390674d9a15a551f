"""Small functions over `Ops` that all layers and heads are made of."""

from __future__ import annotations

from ..ops import Ops, Tensor

# Added to the scores of padding. exp() of it is exactly 0 in float32 and float16; -inf would give NaN on rows without
# any real token.
MASKED_SCORE = -10000.0


def attention_bias(ops: Ops, mask: Tensor) -> Tensor:
    """What is added to the scores so that padding gets no attention: (batch, 1, 1, length) from the mask (batch, length)."""
    batch_size, length = ops.shape(mask)
    return ops.reshape((1.0 - mask) * MASKED_SCORE, (batch_size, 1, 1, length))


def dense(ops, params, name, x, biased=True):
    """The linear map `name`."""
    return ops.linear(x, params[name + ".weight"], params[name + ".bias"] if biased else None)


def normalise(ops, params, name, x, epsilon, biased=True):
    """The layer normalisation `name`."""
    return ops.layer_norm(x, params[name + ".weight"], params[name + ".bias"] if biased else None, epsilon)


def activate(ops, x, activation):
    """One of the functions of `core.models.spec.ACTIVATIONS`."""
    if activation in ("relu", "silu"):
        return ops.relu(x) if activation == "relu" else ops.silu(x)
    return ops.gelu(x, activation == "tanh")


def rotated(ops, x, table):
    """Queries or keys (batch, heads, length, head) at their places, by `table`: places, head and base of the rotary positions."""
    length = ops.shape(x)[2]
    return ops.rotate(x, ops.static("rotary_cosines", table)[:length], ops.static("rotary_sines", table)[:length])


def turned_dense(ops, params, name, x, biased=True):
    """The linear map `name`, whose weight is (in, out)."""
    return ops.linear(x, ops.transpose(params[name + ".weight"], (1, 0)), params[name + ".bias"] if biased else None)


def split_heads(ops, x, heads, head_size):
    """(batch, heads, length, head) of the states (batch, length, heads * head)."""
    batch_size, length, _ = ops.shape(x)
    return ops.transpose(ops.reshape(x, (batch_size, length, heads, head_size)), (0, 2, 1, 3))


def sharpened(query, terms):
    """Queries of scores that are scaled by so many `terms` (`EncoderConfig.score_terms`)."""
    return query if terms == 1 else query * terms**-0.5


def attention_by_maps(ops, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout):
    """`Ops.attention_to_states` by its definition."""
    _, heads, _, head_size = ops.shape(query)
    key = split_heads(ops, ops.linear(x, key_weight, key_bias), heads, head_size)
    value = split_heads(ops, ops.linear(x, value_weight, value_bias), heads, head_size)
    return ops.attention(query, key, value, bias, dropout)


def mean_of_tokens(ops, x, mask):
    """(batch, width): the mean of the states (batch, length, width) of the tokens that are none of padding; 0 without any."""
    batch_size, length, width = ops.shape(x)
    total = ops.matmul(ops.reshape(mask, (batch_size, 1, length)), ops.float32(x))  # (B, 1, H)
    count = ops.reshape(ops.sum(mask, 1), (batch_size, 1))
    return ops.reshape(total, (batch_size, width)) / (count + ops.above(-count, -0.5))


def last_token(ops, x, mask, positions):
    """(batch, width): of each row of the states (batch, length, width) that of the last token that is none of padding, which
    is behind it; 0 without any. A model has so many `positions`."""
    batch_size, length, width = ops.shape(x)
    # One place more than a text has: torch.export makes another program where a slice is the whole.
    places = ops.static("places", (positions + 1,))[:length]
    distance = places + (1.0 - ops.reshape(ops.sum(mask, 1), (batch_size, 1)))  # (B, L), 0 at the last token
    chosen = ops.reshape(ops.above(0.5 - distance * distance, 0.0), (batch_size, 1, length))
    return ops.reshape(ops.matmul(chosen, ops.float32(x)), (batch_size, width))
