"""A model as MINDIR, MindSpore's own graph file, dynamic in batch and length: for `ms.load`, MindSpore Lite, Ascend's
converter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from .engine import set_up_cpu  # imports MindSpore as it must be

import mindspore as ms  # isort: skip
import numpy as np
from mindspore import nn
from mindspore import ops as P

from ...core.models.encoder import Forward
from .ops import MindSporeOps
from .recurrent import CLOSED, packed


@ms.jit_class
class DynamicOps(MindSporeOps):
    """The primitives where shapes are known only when the graph runs: what needs them as numbers is done otherwise."""

    def __init__(self):
        super().__init__()
        # The graph may run on any device, in half precision too, which a CPU's polynomial of gelu is not made for.
        self.on_cpu = False

    def is_known(self, size):
        return False

    def transpose(self, x, axes):
        return P.Transpose()(x, axes)

    def linear(self, x, weight, bias):
        product = P.matmul(x, P.Transpose()(weight, (1, 0)))
        return product if bias is None else product + bias

    def attention(self, query, key, value, bias, dropout):
        scores = P.BatchMatMul(False, True)(query * (query.shape[-1] ** -0.5), key) + bias
        return P.BatchMatMul()(P.Softmax(-1)(scores), value)

    def relative_scores(self, states, table, index):
        # Sums with zeros where a size would have to be given.
        each = P.ExpandDims()(table, 0) + states[:, :, :1, :1] * 0.0  # (B, A, R, D)
        by_row = P.BatchMatMul(False, True)(states, each)
        return P.GatherD()(by_row, 3, index + P.Cast()(by_row[:, :, :, :1] * 0.0, ms.int32))

    def rotate(self, x, cosines, sines):
        first, second = P.Split(3, 2)(x)
        return x * cosines + P.Concat(-1)((-second, first)) * sines

    def lstm(self, x, mask, input_weight, hidden_weight, input_bias, hidden_bias):
        """As `recurrent.fused_lstm`."""
        hidden, width = hidden_weight.shape[-1], input_weight.shape[-1]
        bias = input_bias + hidden_bias
        steps = P.Transpose()(P.Concat(2)((x, P.ExpandDims()(1.0 - mask, 2))), (1, 0, 2))  # (L, B, D + 1)
        shut = P.Concat(0)((P.Fill()(ms.float32, (hidden, 1), CLOSED), P.Zeros()((3 * hidden, 1), ms.float32)))
        nothing = P.ExpandDims()(mask[:, 0], 1) * 0.0  # (B, 1)
        state = P.ExpandDims()(P.MatMul()(nothing, P.Ones()((1, hidden), ms.float32)), 0)
        kernel = P.LSTM(width + 1, hidden, 1, True, False, 0.0)
        forward = kernel(steps, state, state, packed(input_weight[0], shut, hidden_weight[0], bias[0]))
        weights = packed(input_weight[1], shut, hidden_weight[1], bias[1])
        backward = kernel(P.ReverseV2([0])(steps), state, state, weights)
        last = mask - P.Concat(1)((mask[:, 1:], nothing))  # 1 at the last real place
        states = P.Transpose()(forward[0], (1, 0, 2))  # (B, L, H)
        end = P.Squeeze(1)(P.BatchMatMul()(P.ExpandDims()(last, 1), states))
        return P.Concat(1)((end, P.Squeeze(0)(backward[1])))


class _Network(nn.Cell):
    """A forward pass with its parameters, over inputs in the order of `names`."""

    def __init__(self, forward: Forward, parameters: Mapping[str, np.ndarray], names: Sequence[str]):
        super().__init__()
        self._forward, self._names, self._ops = forward, tuple(names), DynamicOps()
        self._params = {
            name: ms.Parameter(ms.Tensor(np.asarray(array, np.float32)), name=name, requires_grad=False)
            for name, array in parameters.items()
        }

    def construct(self, *inputs):
        batch = {}
        for index in range(len(self._names)):
            batch[self._names[index]] = inputs[index]
        return tuple(self._forward(self._ops, self._params, batch).values())


def write_mindir(
    forward: Forward, parameters: Mapping[str, np.ndarray], inputs: Mapping[str, tuple[np.dtype, Sequence[str]]], path: Path
) -> None:
    """Export `forward(ops, params, batch) -> {name: tensor}` over inputs of those types and named sizes, and write it to `path`.
    The graph takes the inputs in that order and gives the outputs in theirs."""
    set_up_cpu()
    network = _Network(forward, parameters, list(inputs))
    network.set_train(False)
    sizes: dict[str, ms.Symbol] = {}
    ports = []
    for dtype, names in inputs.values():
        shape = [sizes.setdefault(name, ms.Symbol(min=1)) for name in names]
        ports.append(ms.Tensor(shape=shape, dtype=ms.float32 if dtype is np.float32 else ms.int32))
    ms.export(network, *ports, file_name=str(path.with_suffix("")), file_format="MINDIR")
    path.chmod(0o644)  # MindSpore makes it read-only


def load_mindir(path: Path, names: Sequence[str]) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
    """`infer(batch) -> outputs` of a graph that `write_mindir` has written, whose inputs have these names."""
    set_up_cpu()
    network = nn.GraphCell(ms.load(str(path)))

    def infer(batch: dict[str, np.ndarray]) -> list[np.ndarray]:
        made = network(*(ms.Tensor(batch[name]) for name in names))
        return [output.asnumpy() for output in (made if isinstance(made, tuple) else (made,))]

    return infer
