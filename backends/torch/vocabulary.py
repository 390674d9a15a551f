"""Losses over a vocabulary, a chunk of rows at a time, so that the logits (rows, words) never exist as a whole.

Each is one number, the sum over the rows, so the gradient by the logits of a chunk is known as soon as its logits are: it
is computed at once, multiplied into the gradients by the states, the weight and the bias, and forgotten. The backward
pass only scales those. That is two matrix products forward and two backward, as if the logits had been kept.

Matrix products are in the working precision `dtype`, everything else is in float32. A row's weight multiplies the small
tensors (rows, width) and not the large ones (rows, words); in float16 it should not be much smaller than 1.
"""

from __future__ import annotations

import torch

from .linear import add_transposed_product, product

CHUNK = 2**23
"""Logits of a chunk: 32 MiB in float32, 397 rows of 21128 words. In halves, matrix products are slower by a tenth."""


class _Logits:
    """The logits of the rows that are asked for, multiplied by `scale`."""

    def __init__(self, states, weight, bias, dtype, scale=1.0):
        self.states, self.weight, self.bias = states, weight.to(dtype), bias.to(dtype) * scale
        self.scale = scale

    def of(self, rows):
        """Those of a slice of the rows: (rows, words) float32."""
        return product(self.states[rows].to(self.weight.dtype) * self.scale, self.weight, self.bias).float()


class _Student(_Logits):
    """The student's logits, and the gradients that are wanted by its states, weight and bias."""

    def __init__(self, states, weight, bias, dtype, scale, wanted):
        super().__init__(states, weight, bias, dtype, scale)
        makers = zip(wanted, (torch.empty, torch.zeros, torch.zeros), (states, weight, bias))
        self.gradients = [make(tensor.shape, device=tensor.device) if needed else None for needed, make, tensor in makers]
        self.learns = any(wanted)

    def add(self, rows, gradient, factors):
        """Take in the gradient (rows, words) by what `of` returned, whose rows are still to be multiplied by `factors`."""
        factors = factors * self.scale
        working = gradient.to(self.weight.dtype)
        by_states, by_weight, by_bias = self.gradients
        if by_states is not None:
            by_states[rows] = product(working, self.weight.t()) * factors.unsqueeze(1)
        if by_weight is not None:
            add_transposed_product(by_weight, working, (self.states[rows] * factors.unsqueeze(1)).to(working.dtype))
        if by_bias is not None:
            by_bias += torch.mv(gradient.t(), factors)


def _log_normaliser(logits, probabilities):
    """log(sum(exp(logits))) of each row, without another pass of exponentials: the largest probability is that of the
    largest logit, and no less than 1 / words."""
    return logits.amax(1) - probabilities.amax(1).log()


def _cross_entropy(student, rows, labels, row_weights):
    """The losses of a slice of the rows, (rows,); the gradient goes to the student."""
    logits, labels = student.of(rows), labels[rows].long().unsqueeze(1)
    probabilities = logits.softmax(1)
    losses = _log_normaliser(logits, probabilities) - logits.gather(1, labels).squeeze(1)
    if student.learns:
        probabilities.scatter_add_(1, labels, probabilities.new_full((1, 1), -1.0).expand_as(labels))
        student.add(rows, probabilities, row_weights[rows])
    return losses


def _divergence(student, rows, teacher, row_weights):
    """The losses of a slice of the rows, (rows,); the gradient goes to the student."""
    logits, target_logits = student.of(rows), teacher.of(rows)
    probabilities, targets = logits.softmax(1), target_logits.softmax(1)
    losses = _log_normaliser(logits, probabilities) - _log_normaliser(target_logits, targets)
    losses += target_logits.sub_(logits).mul_(targets).sum(1)
    if student.learns:
        student.add(rows, probabilities.sub_(targets), row_weights[rows])
    return losses


def _squared_error(student, rows, teacher, row_weights):
    """The losses of a slice of the rows, (rows,); the gradient goes to the student."""
    difference = student.of(rows).sub_(teacher.of(rows))
    losses = difference.square().sum(1)
    if student.learns:
        student.add(rows, difference, row_weights[rows] * 2.0)
    return losses


_LOSSES = {"cross_entropy": _cross_entropy, "divergence": _divergence, "squared_error": _squared_error}


def _compute(loss, states, weight, bias, target, row_weights, dtype, scale, wanted):
    """The weighted sum over all rows, and its gradients by states, weight and bias; what is not wanted is empty."""
    student = _Student(states, weight, bias, dtype, scale, wanted)
    target = target[0] if loss == "cross_entropy" else _Logits(*target, dtype, scale)
    size = max(1, CHUNK // weight.shape[0])
    starts = range(0, states.shape[0], size)
    losses = [_LOSSES[loss](student, slice(start, start + size), target, row_weights) for start in starts]
    total = (torch.cat(losses) * row_weights).sum()
    return total, *(row_weights.new_empty(0) if by is None else by for by in student.gradients)


def _describe(loss, states, weight, bias, target, row_weights, dtype, scale, wanted):
    """What a compiler needs to know: the shapes of the results."""
    shapes = [tensor.shape if needed else (0,) for needed, tensor in zip(wanted, (states, weight, bias))]
    return tuple(row_weights.new_empty(shape) for shape in [(), *shapes])


def _keep(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])
    ctx.wanted, ctx.targets = inputs[-1], len(inputs[4])


def _scale(ctx, gradient, *_):
    by = [saved * gradient if needed else None for needed, saved in zip(ctx.wanted, ctx.saved_tensors)]
    return None, *by, [None] * ctx.targets, None, None, None, None


# An operator of its own and not an autograd.Function: to `torch.compile` it is one node, where the chunks of a Function would
# all be traced and compiled.
_LIBRARY = torch.library.Library("crossdistil", "DEF")
_LIBRARY.define(
    "word_loss(str loss, Tensor states, Tensor weight, Tensor bias, Tensor[] target, Tensor row_weights, ScalarType dtype,"
    " float scale, bool[] wanted) -> (Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.impl("word_loss", _compute, "CompositeExplicitAutograd")
torch.library.register_fake("crossdistil::word_loss", _describe, lib=_LIBRARY)
torch.library.register_autograd("crossdistil::word_loss", _scale, setup_context=_keep, lib=_LIBRARY)


def word_loss(loss, student, target, row_weights, dtype, scale=1.0):
    """The sum of a loss over the rows, a float32 scalar, with matrix products in `dtype`.

    `loss` is a method of `core.ops.Ops` without its `word_`, `student` (states, weight, bias), `target` [labels] or the
    teacher's [states, weight, bias]; `scale` multiplies all logits.
    """
    training = torch.is_grad_enabled()
    wanted = [training and tensor.requires_grad for tensor in student]
    target = [tensor.detach() for tensor in target]
    return torch.ops.crossdistil.word_loss(loss, *student, target, row_weights.detach(), dtype, scale, wanted)[0]
