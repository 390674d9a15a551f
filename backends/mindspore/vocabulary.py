"""Losses over a vocabulary, a chunk of rows at a time, so that the logits (rows, words) never exist as a whole.

Each is one number, the sum over the rows, so the gradient by the logits of a chunk is known as soon as its logits are: it is
multiplied into the gradients by the states, the weight and the bias at once, and the backward pass only scales those. Where
no gradient is asked for, the graph compiler leaves out what nobody reads. The chunks are unrolled; each waits for the loss
of the one before, because MindSpore would else begin with all their matrix products.

No (rows, 1) is broadcast over (rows, words), and nothing large is transposed (see ops.py): a row's weight multiplies
(rows, width), and the label's word is gathered instead of compared with. The logarithm of the softmax's denominator is
max z - log(max p), where p is the softmax and max p is no less than 1 / words.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import nn
from mindspore import ops as P

CHUNK = 2**23
"""Logits of a chunk: 32 MiB in float32, 397 rows of 21128 words."""


def _logits(states, weight, bias):
    """states @ weight.T + bias in float32, (rows, words); the product is in the type of the weight."""
    product = P.MatMul(False, True)(P.Cast()(states, weight.dtype), weight)
    return P.BiasAdd()(P.Cast()(product, ms.float32), P.Cast()(bias, ms.float32))


def _log_normaliser(logits, probabilities):
    return P.ReduceMax()(logits, -1) - P.Log()(P.ReduceMax()(probabilities, -1))


def _weighted(rows, factors):
    """`rows` (rows, width), each times its factor (rows,), in float32."""
    return P.Cast()(rows, ms.float32) * P.BroadcastTo(rows.shape)(P.Reshape()(factors, (-1, 1)))


def _by_rows(gradient, weight, factors):
    """The gradient by the states: (rows, width) float32."""
    return _weighted(P.MatMul()(P.Cast()(gradient, weight.dtype), weight), factors)


def _by_weight(gradient, states, weight, factors):
    """The gradient by the weight: (words, width) float32."""
    states = P.Cast()(_weighted(states, factors), weight.dtype)
    return P.Cast()(P.MatMul(True, False)(P.Cast()(gradient, weight.dtype), states), ms.float32)


def _by_bias(gradient, factors):
    """The gradient by the bias: (1, words) float32."""
    return P.MatMul()(P.Reshape()(factors, (1, -1)), gradient)


def _chunk_ends(rows, words):
    """The first row of each chunk, and the number of rows."""
    size = max(1, CHUNK // words)
    return tuple(range(0, rows, size)) + (rows,)


class WordCrossEntropy(nn.Cell):
    """(loss, gradients by states, weight and bias); only the loss has a gradient."""

    def __init__(self, compute_type):
        super().__init__()
        self.compute_type = compute_type

    def construct(self, states, weight, bias, labels, row_weights):
        working = P.Cast()(weight, self.compute_type)
        ends = _chunk_ends(states.shape[0], weight.shape[0])
        loss = 0.0
        by_states, by_weight, by_bias = [], 0.0, 0.0
        for index in range(len(ends) - 1):
            own = states[ends[index] : ends[index + 1]]
            factors = row_weights[ends[index] : ends[index + 1]]
            if index > 0:
                own = P.Depend()(own, loss)
            logits = _logits(own, working, bias)
            probabilities = P.Softmax(-1)(logits)
            places = P.Reshape()(labels[ends[index] : ends[index + 1]], (-1, 1))
            chosen = P.Reshape()(P.GatherD()(logits, 1, places), (-1,))
            loss = loss + P.ReduceSum()((_log_normaliser(logits, probabilities) - chosen) * factors)
            by_states.append(_by_rows(probabilities, working, factors))
            by_weight = by_weight + _by_weight(probabilities, own, working, factors)
            by_bias = by_bias + _by_bias(probabilities, factors)
        # Of the gradient by the logits, softmax - one-hot, the second part.
        words = weight.shape[0]
        by_states = P.Concat(0)(by_states) - _weighted(P.Gather()(weight, labels, 0), row_weights)
        by_weight = by_weight - P.UnsortedSegmentSum()(_weighted(states, row_weights), labels, words)
        by_bias = P.Reshape()(by_bias, (-1,)) - P.UnsortedSegmentSum()(row_weights, labels, words)
        return loss, by_states, by_weight, by_bias

    def bprop(self, states, weight, bias, labels, row_weights, output, gradient):
        by_states, by_weight, by_bias = _scaled(output, gradient[0], states)
        return by_states, by_weight, by_bias, P.ZerosLike()(labels), P.ZerosLike()(row_weights)


def _scaled(output, gradient, states):
    return P.Cast()(output[1] * gradient, states.dtype), output[2] * gradient, output[3] * gradient


def _divergence(logits, target_logits):
    """The divergence of each row, (rows,), and its gradient by the logits, (rows, words)."""
    probabilities, targets = P.Softmax(-1)(logits), P.Softmax(-1)(target_logits)
    losses = P.ReduceSum()(targets * (target_logits - logits), -1) + _log_normaliser(logits, probabilities)
    return losses - _log_normaliser(target_logits, targets), probabilities - targets


def _squared_error(logits, target_logits):
    """The squared error of each row, (rows,), and half its gradient by the logits, (rows, words)."""
    difference = logits - target_logits
    return P.ReduceSum()(difference * difference, -1), difference


class WordDistance(nn.Cell):
    """(loss, gradients by states, weight and bias); only the loss has a gradient. The divergence, or the squared error."""

    def __init__(self, compute_type, squared):
        super().__init__()
        self.compute_type, self.squared = compute_type, squared

    def construct(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights):
        working = P.Cast()(weight, self.compute_type)
        teacher_working = P.Cast()(teacher_weight, self.compute_type)
        ends = _chunk_ends(states.shape[0], weight.shape[0])
        loss = 0.0
        by_states, by_weight, by_bias = [], 0.0, 0.0
        for index in range(len(ends) - 1):
            own = states[ends[index] : ends[index + 1]]
            target = teacher_states[ends[index] : ends[index + 1]]
            factors = row_weights[ends[index] : ends[index + 1]]
            if index > 0:
                own, target = P.Depend()(own, loss), P.Depend()(target, loss)
            logits, target_logits = _logits(own, working, bias), _logits(target, teacher_working, teacher_bias)
            if self.squared:
                losses, by_logits = _squared_error(logits, target_logits)
            else:
                losses, by_logits = _divergence(logits, target_logits)
            loss = loss + P.ReduceSum()(losses * factors)
            if self.squared:
                factors = factors * 2.0
            by_states.append(_by_rows(by_logits, working, factors))
            by_weight = by_weight + _by_weight(by_logits, own, working, factors)
            by_bias = by_bias + _by_bias(by_logits, factors)
        return loss, P.Concat(0)(by_states), by_weight, P.Reshape()(by_bias, (-1,))

    def bprop(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights, output, gradient):
        by_states, by_weight, by_bias = _scaled(output, gradient[0], states)
        by_teacher_states, by_teacher_weight = P.ZerosLike()(teacher_states), P.ZerosLike()(teacher_weight)
        by_teacher_bias, by_row_weights = P.ZerosLike()(teacher_bias), P.ZerosLike()(row_weights)
        return by_states, by_weight, by_bias, by_teacher_states, by_teacher_weight, by_teacher_bias, by_row_weights
