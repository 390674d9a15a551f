"""Attention with dropout on a CPU, for which PyTorch has no fused kernel: its general path makes a dozen passes over the
probabilities and several copies of them.

With P = softmax(s Q K' + bias), M the mask (0 or 1), c the scale of dropout, O = c (M * P) V and G the gradient by O:
    dV = c (M * P)' G,   with T = (M * P) * (c G V'):   dS = T - P rowsum(T),   dQ = s dS K,   dK = s dS' Q,   dbias = dS
so that the mask itself is not needed again.
"""

from __future__ import annotations

import torch

from ...core.dropout_masks import scale


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, key, value, bias, kept, factor):
        shape = query.shape
        rows = shape[0] * shape[1], shape[2], shape[3]
        query, key, value = (part.reshape(rows) for part in (query, key, value))  # (B A, L, D)
        ctx.shape, ctx.sharpness, ctx.factor, ctx.bias_shape = shape, shape[3] ** -0.5, factor, bias.shape
        scores = torch.bmm(query, key.transpose(1, 2))  # (B A, L, L)
        places = scores.view(shape[0], shape[1], shape[2], -1)
        torch.add(bias, places, alpha=ctx.sharpness, out=places)
        probabilities = torch.softmax(scores, -1)
        left = torch.where(kept.view(probabilities.shape), probabilities, 0.0)
        ctx.save_for_backward(query, key, value, probabilities, left)
        return _product(left, value, factor).view(shape)

    @staticmethod
    def backward(ctx, gradient):
        query, key, value, probabilities, left = ctx.saved_tensors
        gradient = gradient.reshape(query.shape)
        by_value = _product(left.transpose(1, 2), gradient, ctx.factor)
        terms = _product(gradient, value.transpose(1, 2), ctx.factor).mul_(left)
        by_scores = terms.addcmul_(probabilities, terms.sum(-1, keepdim=True), value=-1.0)
        by_query = _product(by_scores, key, ctx.sharpness)
        by_key = _product(by_scores.transpose(1, 2), query, ctx.sharpness)
        by_bias = None
        if ctx.needs_input_grad[3]:
            by_bias = by_scores.view(*ctx.shape[:3], -1).sum_to_size(ctx.bias_shape)
        return *(part.view(ctx.shape) for part in (by_query, by_key, by_value)), by_bias, None, None


def _product(a, b, factor):
    """a @ b * factor, batched."""
    return torch.baddbmm(a.new_empty(()), a, b, beta=0.0, alpha=factor)


def dropped_attention(query, key, value, bias, masks, rate):
    """softmax(query @ key.T / sqrt(head) + bias) @ value with dropout of the probabilities, from own `masks`.

    `query`, `key`, `value` (batch, heads, length, head); `bias` (batch, 1, 1, length), or (batch, heads, length,
    length) of families that learn a part of it.
    """
    kept = masks.kept((*query.shape[:3], key.shape[2]), rate)
    return _DroppedAttention.apply(query, key, value, bias, kept, scale(rate))
