"""The bidirectional LSTM of `MindSporeOps`: MindSpore has a kernel for CPUs that takes no lengths, and none for Ascend that
computes in float32. Both functions are compiled from their source, and tested on a CPU.

The directions' weights are stacked on the first axis: (2, 4 hidden, width), (2, 4 hidden, hidden), the bias
(2, 4 hidden). Result: (batch, 2 hidden), as `core.ops.Ops.lstm` says.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import ops as P

# Added to a gate before its sigmoid, which is then 0.
CLOSED = -10000.0


def fused_lstm(x, mask, input_weight, hidden_weight, bias):
    """One kernel a direction, which compiles in a second whatever the length is.

    A column of x that is 1 at padding shuts the input gate there: the backward direction, which meets the padding first,
    comes out of it with a state of zero. The forward direction is read off at the last real place.
    """
    hidden = hidden_weight.shape[-1]
    rows, length, width = x.shape
    padding = P.Reshape()(1.0 - mask, (rows, length, 1))
    steps = P.Stack(0)(P.Unstack(1)(P.Concat(2)([x, padding])))  # (L, B, D + 1)
    shut = P.Concat(0)([P.Fill()(ms.float32, (hidden, 1), CLOSED), P.Zeros()((3 * hidden, 1), ms.float32)])
    state = P.Zeros()((1, rows, hidden), ms.float32)
    kernel = P.LSTM(width + 1, hidden, 1, True, False, 0.0)
    forward = kernel(steps, state, state, packed(input_weight[0], shut, hidden_weight[0], bias[0]))
    backward = kernel(
        P.ReverseV2([0])(steps), state, state, packed(input_weight[1], shut, hidden_weight[1], bias[1])
    )
    # 1 at the last real place: the mask less itself moved one place to the left.
    moved = P.Concat(1)([mask[:, 1:], P.Zeros()((rows, 1), ms.float32)])
    last = P.Reshape()(mask - moved, (rows, 1, length))
    states = P.Stack(1)(P.Unstack(0)(forward[0]))  # (B, L, H)
    end = P.Reshape()(P.BatchMatMul()(last, states), (rows, hidden))
    return P.Concat(1)([end, P.Reshape()(backward[1], (rows, hidden))])


def packed(input_weight, shut, hidden_weight, bias):
    """A direction's weights as the kernel takes them: one column."""
    return P.Concat(0)([
        P.Reshape()(P.Concat(1)([input_weight, shut]), (-1, 1, 1)),
        P.Reshape()(hidden_weight, (-1, 1, 1)),
        P.Reshape()(bias, (-1, 1, 1)),
    ])  # fmt: skip


def unrolled_lstm(x, mask, input_weight, hidden_weight, bias):
    """A loop over the places, both directions in one matrix product; every place is compiled."""
    hidden = hidden_weight.shape[-1]
    rows, length, width = x.shape
    places = P.Unstack(1)(x)
    both = P.Stack(0)([P.Stack(0)(places), P.Stack(0)(places[::-1])])  # (2, L, B, D)
    inputs = P.BatchMatMul(False, True)(P.Reshape()(both, (2, length * rows, width)), input_weight)
    steps = P.Unstack(1)(P.Reshape()(inputs, (2, length, rows, 4 * hidden)))  # L of (2, B, 4 H)
    bias = P.BroadcastTo((2, rows, 4 * hidden))(P.Reshape()(bias, (2, 1, 4 * hidden)))
    real = P.Unstack(1)(mask)  # L of (B,)
    state = P.Zeros()((2, rows, hidden), ms.float32)
    cell = P.Zeros()((2, rows, hidden), ms.float32)
    for place in range(length):
        recurrent = P.BatchMatMul(False, True)(P.Cast()(state, x.dtype), hidden_weight)
        gates = P.Split(2, 4)(P.Cast()(steps[place] + recurrent, ms.float32) + bias)
        kept = P.Reshape()(P.Stack(0)([real[place], real[length - 1 - place]]), (2, rows, 1))
        kept = P.BroadcastTo((2, rows, hidden))(kept)
        moved = P.Sigmoid()(gates[1]) * cell + P.Sigmoid()(gates[0]) * (2.0 * P.Sigmoid()(2.0 * gates[2]) - 1.0)
        cell = cell + kept * (moved - cell)
        state = state + kept * (P.Sigmoid()(gates[3]) * (2.0 * P.Sigmoid()(2.0 * moved) - 1.0) - state)
    return P.Concat(1)([state[0], state[1]])
