"""Losses over a vocabulary, a chunk of rows at a time, so that the logits (rows, words) never exist as a whole.

Each is one number, the sum over the rows, so the gradient by the logits of a chunk is known as soon as its logits are: it
is multiplied into the gradients by the states, the weight and the bias at once, and the backward pass only scales those.

A row's weight multiplies (rows, width) and not (rows, words), and is spread over it by a matrix product (see rows.py). The
logarithm of the softmax's denominator is max z - log(max p), where p is the softmax and max p is no less than 1 / words.
"""

from __future__ import annotations

import functools

import oneflow as flow
import oneflow.nn.functional as F

CHUNK = 2**23
"""Logits of a chunk: 32 MiB in float32, 397 rows of 21128 words."""


def _logits(states, weight, bias):
    """states @ weight.T + bias, (rows, words)."""
    logits = flow._C.matmul(states, weight, False, True)
    return logits + bias


def _log_normaliser(logits, probabilities):
    return flow.amax(logits, dim=-1, keepdim=True) - flow.log(flow.amax(probabilities, dim=-1, keepdim=True))


def _cross_entropy(logits, labels):
    """The losses (rows, 1), and their gradient by the logits, (rows, words)."""
    probabilities = F.softmax(logits, dim=-1)
    places = labels.reshape(-1, 1)
    losses = _log_normaliser(logits, probabilities) - flow.gather(logits, 1, places)
    minus = flow.full(tuple(places.shape), -1.0, device=logits.device)
    return losses, flow.scatter_add(probabilities, 1, places, minus)


def _divergence(logits, target_logits):
    """The divergences (rows, 1), and their gradient by the logits, (rows, words)."""
    probabilities, targets = F.softmax(logits, dim=-1), F.softmax(target_logits, dim=-1)
    losses = _log_normaliser(logits, probabilities) - _log_normaliser(target_logits, targets)
    losses = losses + ((target_logits - logits) * targets).sum(dim=-1, keepdim=True)
    return losses, probabilities - targets


def _squared_error(logits, target_logits):
    """The squared errors (rows, 1), and their gradient by the logits, (rows, words)."""
    difference = logits - target_logits
    losses = (difference * difference).sum(dim=-1, keepdim=True)
    return losses, difference.mul_(2.0)


_LOSSES = {"cross_entropy": _cross_entropy, "divergence": _divergence, "squared_error": _squared_error}


def _compute(loss, wanted, states, weight, bias, *target, row_weights):
    """The weighted sum over all rows, and those gradients by states, weight and bias that are wanted."""
    size, rows = max(1, CHUNK // weight.shape[0]), states.shape[0]
    ones = flow.ones(1, states.shape[1], device=states.device)
    all_factors = row_weights.reshape(-1, 1)
    chunk_losses, by_states, by_weight, by_bias = [], [], None, None
    for start in range(0, rows, size):
        end = min(start + size, rows)
        own, factors = states[start:end], all_factors[start:end]
        logits = _logits(own, weight, bias)
        if loss == "cross_entropy":
            losses, by_logits = _LOSSES[loss](logits, target[0][start:end])
        else:
            losses, by_logits = _LOSSES[loss](logits, _logits(target[0][start:end], *target[1:]))
        chunk_losses.append(losses * factors)
        spread = flow._C.matmul(factors, ones)
        if wanted[0]:
            by_states.append(flow._C.matmul(by_logits, weight) * spread)
        if wanted[1]:
            product = flow._C.matmul(by_logits, own * spread, True, False)
            by_weight = product if by_weight is None else by_weight.add_(product)
        if wanted[2]:
            product = flow._C.matmul(factors, by_logits, True, False)
            by_bias = product if by_bias is None else by_bias.add_(product)
    total = flow.cat(chunk_losses, dim=0).sum()
    gradients = [flow.cat(by_states, dim=0)] if wanted[0] else []
    gradients += [by_weight] if wanted[1] else []
    gradients += [by_bias.reshape(-1)] if wanted[2] else []
    return total, gradients


@functools.cache
def _function(loss, wanted):
    """A `Function` takes tensors only, and does not know which of them need a gradient: there is one for each case."""

    class Loss(flow.autograd.Function):
        @staticmethod
        def forward(ctx, row_weights, *tensors):
            total, gradients = _compute(loss, wanted, *tensors, row_weights=row_weights)
            ctx.save_for_backward(*gradients)
            return total

        @staticmethod
        def backward(ctx, gradient):
            saved = iter(ctx.saved_tensors)
            by_student = [next(saved) * gradient if needed else None for needed in wanted]
            others = [None] * (1 if loss == "cross_entropy" else 3)
            return None, *by_student, *others

    return Loss


def word_loss(loss, student, target, row_weights):
    """The sum of a loss over the rows.

    `loss` is a method of `core.ops.Ops` without its `word_`, `student` (states, weight, bias), `target` (labels,) or the
    teacher's (states, weight, bias).
    """
    wanted = tuple(flow.is_grad_enabled() and tensor.requires_grad for tensor in student)
    target, row_weights = [tensor.detach() for tensor in target], row_weights.detach()
    if any(wanted):
        return _function(loss, wanted).apply(row_weights, *student, *target)
    return _compute(loss, wanted, *student, *target, row_weights=row_weights)[0]
