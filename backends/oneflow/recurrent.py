"""The bidirectional LSTM of `OneFlowOps`. OneFlow's own is a loop over places in Python, one direction after the other,
and does not know lengths; on a CPU it takes five times as long as what stands here.

The directions' weights are stacked on the first axis: (2, 4 hidden, width), (2, 4 hidden, hidden), the bias
(2, 4 hidden). Result: (batch, 2 hidden), as `core.ops.Ops.lstm` says.
"""

from __future__ import annotations

import numpy as np
import oneflow as flow

# Added to a gate before its sigmoid, which is then 0.
CLOSED = -10000.0


def device_lstm(x, mask, input_weight, hidden_weight, bias):
    """In OneFlow's operators, for devices where their speed is that of the device.

    The input gate is shut at padding: the backward direction, which meets the padding first, comes out of it with a
    state of zero. The forward direction is read off at the last real place.
    """
    (rows, length, width), hidden = x.shape, hidden_weight.shape[-1]
    shut = flow.zeros(4 * hidden, device=x.device)
    shut[:hidden] = CLOSED
    places = x.permute(1, 0, 2).reshape(1, length * rows, width)
    closed = (1.0 - mask).permute(1, 0).reshape(1, length * rows, 1) * shut
    inputs = flow._C.matmul(flow.cat([places, places]), input_weight, False, True) + bias.unsqueeze(1) + closed
    inputs = inputs.reshape(2, length, rows, 4 * hidden)
    state = cell = flow.zeros(2, rows, hidden, device=x.device)
    states = []
    for place in range(length):
        step = flow.stack([inputs[0, place], inputs[1, length - 1 - place]])  # (2, B, 4 H)
        gates = step + flow._C.matmul(state, hidden_weight, False, True)
        enter, forget, new, leave = (gates[:, :, part * hidden : (part + 1) * hidden] for part in range(4))
        cell = flow.sigmoid(forget) * cell + flow.sigmoid(enter) * flow.tanh(new)
        state = flow.sigmoid(leave) * flow.tanh(cell)
        states.append(state[0])
    # 1 at the last real place: the mask less itself moved one place to the left.
    last = mask - flow.cat([mask[:, 1:], flow.zeros(rows, 1, device=x.device)], dim=1)
    end = flow.matmul(last.unsqueeze(1), flow.stack(states, dim=1)).squeeze(1)  # (B, H)
    return flow.cat([end, state[1]], dim=1)


class _NumpyLstm(flow.autograd.Function):
    """In NumPy, which shares a CPU tensor's memory and whose tanh is vectorised.

    Sequences stay padded on the right for both directions, because the backward one reads each row's own places in
    reverse. So the state after `length` steps is the result, and what later steps compute is never looked at.
    """

    @staticmethod
    def forward(ctx, x, mask, input_weight, hidden_weight, bias):
        arrays = [tensor.numpy() for tensor in (x, mask, input_weight, hidden_weight, bias)]
        result, kept = _run(*arrays)
        ctx.save_for_backward(input_weight, hidden_weight, *map(flow.from_numpy, kept))
        return flow.from_numpy(result)

    @staticmethod
    def backward(ctx, gradient):
        gradients = _run_back(gradient.numpy(), *(tensor.numpy() for tensor in ctx.saved_tensors))
        by_x, by_input_weight, by_hidden_weight, by_bias = map(flow.from_numpy, gradients)
        return by_x, None, by_input_weight, by_hidden_weight, by_bias


def numpy_lstm(x, mask, input_weight, hidden_weight, bias):
    """On the CPU."""
    return _NumpyLstm.apply(x, mask, input_weight, hidden_weight, bias)


def _reading_order(lengths, length):
    """(2, length, batch): which place each direction reads at each step. Twice applied, it is the identity."""
    steps = np.repeat(np.arange(length)[:, None], len(lengths), axis=1)
    return np.stack([steps, np.where(steps < lengths, lengths - 1 - steps, steps)])


def _run(x, mask, input_weight, hidden_weight, bias):
    (rows, length, width), hidden = x.shape, hidden_weight.shape[-1]
    lengths = mask.sum(axis=1).astype(np.int64)
    order = _reading_order(lengths, length)
    read = x[np.arange(rows), order]  # (2, L, B, D)
    # sigmoid(v) = (1 + tanh(v / 2)) / 2: one tanh serves all gates, and halving is exact.
    half = np.full(4 * hidden, 0.5, np.float32)
    half[2 * hidden : 3 * hidden] = 1.0
    gates = read.reshape(2, length * rows, width) @ (input_weight * half[:, None]).transpose(0, 2, 1)
    gates += (bias * half)[:, None]
    gates = gates.reshape(2, length, rows, 4 * hidden)
    recurrent = (hidden_weight * half[:, None]).transpose(0, 2, 1)
    states = np.zeros((2, length + 1, rows, hidden), np.float32)
    cells = np.zeros_like(states)
    for step in range(length):
        gate = gates[:, step]
        gate += states[:, step] @ recurrent
        np.tanh(gate, out=gate)
        for part in (slice(0, 2 * hidden), slice(3 * hidden, None)):
            gate[..., part] *= 0.5
            gate[..., part] += 0.5
        enter, forget, new, leave = np.split(gate, 4, axis=-1)
        cell = np.multiply(forget, cells[:, step], out=cells[:, step + 1])
        cell += enter * new
        np.multiply(leave, np.tanh(cell), out=states[:, step + 1])
    ends = states[:, lengths, np.arange(rows)]  # (2, B, H)
    return np.concatenate([ends[0], ends[1]], axis=1), (lengths, read, gates, states, cells)


def _run_back(gradient, input_weight, hidden_weight, lengths, read, gates, states, cells):
    """Back-propagation through time: by x, both weights and the bias."""
    _, length, rows, width = read.shape
    hidden = hidden_weight.shape[-1]
    by_gates = np.empty_like(gates)
    by_ends = np.stack([gradient[:, :hidden], gradient[:, hidden:]])  # (2, B, H)
    by_state = np.zeros((2, rows, hidden), np.float32)
    by_cell = np.zeros_like(by_state)
    for step in reversed(range(length)):
        by_state += by_ends * (lengths == step + 1)[:, None]
        enter, forget, new, leave = np.split(gates[:, step], 4, axis=-1)
        by_enter, by_forget, by_new, by_leave = np.split(by_gates[:, step], 4, axis=-1)
        moved = np.tanh(cells[:, step + 1])
        np.multiply(by_state * moved, leave - leave * leave, out=by_leave)
        by_cell += by_state * leave * (1.0 - moved * moved)
        np.multiply(by_cell * new, enter - enter * enter, out=by_enter)
        np.multiply(by_cell * enter, 1.0 - new * new, out=by_new)
        np.multiply(by_cell * cells[:, step], forget - forget * forget, out=by_forget)
        by_cell *= forget
        by_state = by_gates[:, step] @ hidden_weight
    flat = by_gates.reshape(2, length * rows, -1)
    transposed = flat.transpose(0, 2, 1)
    by_input_weight = transposed @ read.reshape(2, length * rows, width)
    by_hidden_weight = transposed @ np.ascontiguousarray(states[:, :-1]).reshape(2, length * rows, hidden)
    by_read = (flat @ input_weight).reshape(2, length, rows, width)
    by_x = by_read[0]
    by_x += by_read[1][_reading_order(lengths, length)[1], np.arange(rows)]
    return np.ascontiguousarray(by_x.transpose(1, 0, 2)), by_input_weight, by_hidden_weight, flat.sum(axis=1)
