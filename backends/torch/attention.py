"""Attention on a CPU where PyTorch has no kernel for it or a slow one: with dropout its general path makes a dozen passes over
the probabilities and several copies of them, in bf16 its fused kernel loses to batched products on short texts.

With P = softmax(s Q K' + bias), M the mask (0 or 1), c the scale of dropout, O = c (M * P) V and G the gradient by O:
    dV = c (M * P)' G,   with T = (M * P) * (c G V'):   dS = T - P rowsum(T),   dQ = s dS K,   dK = s dS' Q,   dbias = dS
so that the mask itself is not needed again.

Passes over probabilities are in float32 in bf16 too: PyTorch's kernels for bf16 take 32 elements at a time, and what is left of a
short row one by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...core.dropout_masks import scale

_LANES = 16
"""Places from which PyTorch's softmax in float32 is fast. Below, it takes ten times as long as its parts. This and what follows
was measured on an AMD EPYC of family 26."""
_SHORT = {torch.float32: 16, torch.bfloat16: 64}
"""Places up to which batched products are faster than the fused kernel: in bf16 1.5 to 3 times, 0.8 times at 128 places."""


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, bias, kept, factor):
        shape, ctx.shapes = query.shape, (query.shape, key.shape, value.shape)
        query, key, value = _rows(query, key, value)
        ctx.sharpness, ctx.factor = shape[3] ** -0.5, factor
        ctx.bias_shape = None if bias is None else bias.shape
        probabilities = _probabilities(query, key, bias, shape)
        left = probabilities.to(query.dtype) * kept.view(probabilities.shape)
        ctx.save_for_backward(query, key, value, probabilities, left)
        return _product(left, value, factor).view(shape)

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, probabilities, left = ctx.saved_tensors
        gradient, working = gradient.reshape(query.shape), query.dtype
        by_value = _product(left.transpose(1, 2), gradient, ctx.factor)
        terms = _wide(_product(gradient, value.transpose(1, 2), ctx.factor)).mul_(_wide(left))
        by_scores = terms.addcmul_(_wide(probabilities), terms.sum(-1, keepdim=True), value=-1.0).to(working)
        by_query = _product(by_scores, key, ctx.sharpness)
        by_key = _product(by_scores.transpose(1, 2), query, ctx.sharpness)
        by_bias = None
        if ctx.needs_input_grad[3]:
            by_bias = by_scores.view(*ctx.shapes[0][:3], -1).sum_to_size(ctx.bias_shape)
        parts = (by_query, by_key, by_value)
        return *(part.view(shape) for part, shape in zip(parts, ctx.shapes)), by_bias, None, None


def _rows(*parts):
    """(batch * heads, length, head) of each."""
    return [part.reshape(part.shape[0] * part.shape[1], part.shape[2], part.shape[3]) for part in parts]


def _product(a, b, factor):
    """a @ b * factor, batched."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0.0, alpha=factor)


def _wide(x):
    return x.float() if x.dtype is torch.bfloat16 else x


def _probabilities(query, key, bias, shape):
    """softmax(query @ key.T / sqrt(head) + bias): (batch * heads, queries, keys), not in bf16; `shape` is (batch, heads, queries,
    head)."""
    sharpness = shape[3] ** -0.5
    if bias is None:
        return _softmax(_wide(_product(query, key.transpose(1, 2), sharpness)))
    scores = _wide(torch.bmm(query, key.transpose(1, 2)))
    places = scores.view(shape[0], shape[1], shape[2], -1)
    torch.add(bias.to(scores.dtype), places, alpha=sharpness, out=places)
    return _softmax(scores)


def _softmax(scores):
    """Over the last axis; in place on short rows."""
    if scores.shape[-1] >= _LANES:
        return torch.softmax(scores, -1)
    scores = scores.sub_(scores.amax(-1, keepdim=True)).exp_()
    return scores.mul_(scores.sum(-1, keepdim=True).reciprocal_())


def dropped_attention(query, key, value, bias, masks, rate):
    """softmax(query @ key.T / sqrt(head) + bias) @ value with dropout of the probabilities, from own `masks`.

    `query` (batch, heads, queries, head), `key`, `value` (batch, heads, length, head); `bias` (batch, 1, 1, length), or (batch,
    heads, queries, length) of families that learn a part of it, or None.
    """
    kept = masks.factors((*query.shape[:3], key.shape[2]), rate, query.dtype)
    return _DroppedAttention.apply(query, key, value, bias, kept, scale(rate))


def plain_attention(query, key, value, bias):
    """The same without dropout."""
    learns = torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (query, key, value, bias))
    if learns or key.shape[2] > _SHORT.get(query.dtype, 0):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=None if bias is None else bias.to(query.dtype))
    shape, (query, key, value) = query.shape, _rows(query, key, value)
    return torch.bmm(_probabilities(query, key, bias, shape).to(query.dtype), value).view(shape)


def without_padding(bias):
    """That bias of the scores, or None where it adds nothing: to texts of one length. It spares passes over the scores, and costs
    microseconds on a CPU to see."""
    only_padding = bias.dim() == 4 and bias.shape[1] == bias.shape[2] == 1 and not bias.requires_grad
    return None if only_padding and not bias.any() else bias
