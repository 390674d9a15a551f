"""GELU for OneFlow's CPU kernels, in which erf costs 10 ns an element and tanh 15, an in-place `+` or `*` 0.15.

After a matrix product the exp kernel is three times slower until an out-of-place `*` or `+` has run (see optimizer.py):
here one always comes first.
"""

from __future__ import annotations

import math

import oneflow as flow

# erf(x) = x P(x^2) / Q(x^2), with the coefficients of the float32 erf in XLA (ErfImpl32), highest power first. Beyond the
# limit erf is 1 within rounding, and at it these operations give exactly 1: far from zero GELU is exactly 0 or x.
_ERF_NUMERATOR = (0.00022905065861350646, 0.0034082910107109506, 0.050955695062380861, 0.18520832239976145,
                  1.128379143519084)  # fmt: skip
_ERF_DENOMINATOR = (-1.1791602954361697e-7, 0.000023547966471313185, 0.0010179625278914885, 0.014070470171167667,
                    0.11098505178285362, 0.49746925110067538, 1.0)  # fmt: skip
_ERF_LIMIT = 3.87


def _polynomial(coefficients, x):
    result = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        result.add_(coefficient)
        result.mul_(x)
    result.add_(coefficients[-1])
    return result


def _normal_cdf(x):
    """Phi(x) = (1 + erf(x / sqrt 2)) / 2."""
    argument = flow.clamp(x * math.sqrt(0.5), -_ERF_LIMIT, _ERF_LIMIT)
    square = argument * argument
    result = _polynomial(_ERF_NUMERATOR, square)
    result.mul_(argument)
    result = result / _polynomial(_ERF_DENOMINATOR, square)
    result.add_(1.0)
    result.mul_(0.5)
    return result


# The tanh approximation is x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3), since 1 + tanh(u) = 2 sigmoid(2u).
_SLOPE = 2.0 * math.sqrt(2.0 / math.pi)
_CUBE = 0.044715


def _sigmoid_of_cubic(x):
    negative = x * x
    negative.mul_(-_SLOPE * _CUBE)
    negative.add_(-_SLOPE)
    negative.mul_(x)
    result = flow.exp(negative)
    result.add_(1.0)
    return flow.reciprocal(result)


class _Gelu(flow.autograd.Function):
    """Keeps only the derivative, Phi(x) + x phi(x)."""

    @staticmethod
    def forward(ctx, x):
        cdf = _normal_cdf(x)
        result = x * cdf
        slope = x * x
        slope.mul_(-0.5)
        slope = flow.exp(slope)
        slope.mul_(1.0 / math.sqrt(2.0 * math.pi))
        slope.mul_(x)
        slope.add_(cdf)
        ctx.save_for_backward(slope)
        return result

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


class _TanhGelu(flow.autograd.Function):
    """Keeps only the derivative, s + x s (1 - s) 2u'."""

    @staticmethod
    def forward(ctx, x):
        sigmoid = _sigmoid_of_cubic(x)
        result = x * sigmoid
        slope = x * x
        slope.mul_(3.0 * _CUBE * _SLOPE)
        slope.add_(_SLOPE)
        slope.mul_(result)
        slope.mul_(1.0 - sigmoid)
        slope.add_(sigmoid)
        ctx.save_for_backward(slope)
        return result

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0]


def gelu(x, approximate: bool):
    """x Phi(x), or its tanh approximation, and its derivative."""
    if flow.is_grad_enabled() and x.requires_grad:
        return (_TanhGelu if approximate else _Gelu).apply(x)
    return x * (_sigmoid_of_cubic(x) if approximate else _normal_cdf(x))
