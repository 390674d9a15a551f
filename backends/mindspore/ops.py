"""`core.ops.Ops` in MindSpore, in primitives that have both a CPU and an Ascend kernel.

MindSpore's graph compiler reads these methods' source, so they are plain statements over tensors and constants. On its
CPU backend `layer_norm`, `embedding`, fused attention and `einsum` do not exist, `tanh` is off by 1e-4, `LogSoftmax` by
3e-6, and `Dropout` can neither be reseeded nor resumed: what stands here instead was measured to be right and fast.

Memory decides the rest: a CPU kernel that broadcasts a tensor (not a scalar), transposes, or computes on integers keeps
buffers of two to four times its output for as long as its graph lives, and there is a graph for each batch shape.
`BroadcastTo`, `BiasAdd`, and `Unstack` with `Stack` do the same work and keep nothing.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import nn
from mindspore import ops as P

from ...core.models.components import attention_by_maps
from ...core.static_tables import static_table
from .recurrent import fused_lstm, unrolled_lstm
from .vocabulary import WordCrossEntropy, WordDistance

# Linear congruential generator modulo 2^32 (Numerical Recipes, "quick and dirty"); it only draws the few multipliers
# and offsets of each mask, from a state that the host has mixed well.
LCG_MULTIPLIER, LCG_INCREMENT = 1664525, 1013904223


ODD = (
    1.595769882918128,
    0.07266616915657695,
    -6.518995895503378e-05,
    -0.00011061238484085777,
    7.929488482327656e-06,
    -2.6452666002614654e-07,
    3.512341190999778e-09,
)
"""Of the polynomial in `NormalProbability`, by x, x^3, ..."""

# A prime just below 2^12: products of two numbers below it are exact in float32.
PRIME = 4093


@ms.constexpr
def random_words(count, stream):
    """`count` fixed random int32 numbers, a constant of the compiled graph."""
    words = np.random.default_rng([count, stream]).integers(0, 2**32, count, dtype=np.uint32)
    return ms.Tensor(words.view(np.int32))


@ms.constexpr
def permuted_residues(count):
    """`count` float32 numbers from 0 to PRIME - 1 in a fixed random order, distinct as far as there are enough."""
    residues = np.random.default_rng(count).permutation(PRIME).astype(np.float32)
    return ms.Tensor(np.resize(residues, count))


@ms.constexpr
def constant_table(name, arguments):
    """A table of `core.static_tables`, a constant of the compiled graph."""
    return ms.Tensor(static_table(name, arguments))


class RowSoftmax(nn.Cell):
    """Softmax over the last axis; MindSpore's own gradient of it broadcasts."""

    def construct(self, x):
        return P.Softmax(-1)(x)

    def bprop(self, x, output, gradient):
        dot = P.ReduceSum(True)(output * gradient, -1)
        return (output * (gradient - P.BroadcastTo(output.shape)(dot)),)


class BiasAdd(nn.Cell):
    """`x` (rows, width) and a bias (width,); the kernel that MindSpore's own gradient is takes ten times as long as a sum."""

    def construct(self, x, bias):
        return P.BiasAdd()(x, bias)

    def bprop(self, x, bias, output, gradient):
        return gradient, P.ReduceSum()(gradient, 0)


class NormalProbability(nn.Cell):
    """How probable a number below `x` is in the normal distribution, by a sigmoid of an odd polynomial, within 1.4e-7: on a CPU
    MindSpore's Erf takes twenty times as long as its Exp. The polynomial is 2 atanh(erf(x / sqrt 2)), fitted where the sigmoid's
    largest error is least."""

    def construct(self, x):
        square = x * x
        slope = ODD[6] * square + ODD[5]
        slope = slope * square + ODD[4]
        slope = slope * square + ODD[3]
        slope = slope * square + ODD[2]
        slope = slope * square + ODD[1]
        slope = slope * square + ODD[0]
        return P.Sigmoid()(x * slope)

    def bprop(self, x, output, gradient):
        return (gradient * (P.Exp()(x * x * -0.5) * 0.3989422804014327),)


@ms.jit_class
class MindSporeOps:
    """Primitives on one device; `compute_type` is what matrix products compute in."""

    def __init__(self, compute_type=ms.float32):
        self.compute_type = compute_type
        self.reduced = compute_type != ms.float32
        self.on_cpu = ms.get_context("device_target") == "CPU"
        self.row_softmax = RowSoftmax()
        self.add_bias = BiasAdd()
        self.normal_probability = NormalProbability()
        self.words_to_labels = WordCrossEntropy(compute_type)
        self.words_to_divergence = WordDistance(compute_type, squared=False)
        self.words_to_squares = WordDistance(compute_type, squared=True)
        self.random_state = ms.Parameter(ms.Tensor(0, ms.int32), name="dropout.random_state", requires_grad=False)

    def constant(self, array):
        return ms.Tensor(array)

    def static(self, name, arguments):
        return constant_table(name, arguments)

    def shape(self, x):
        return x.shape

    def is_known(self, size):
        return True

    def reshape(self, x, shape):
        return P.Reshape()(x, shape)

    def transpose(self, x, axes):
        if len(x.shape) > 2 and axes[:3] == (0, 2, 1) and axes[3:] == tuple(range(3, len(x.shape))):
            if x.shape[1] < x.shape[2]:
                return P.Stack(2)(P.Unstack(1)(x))
            return P.Stack(1)(P.Unstack(2)(x))
        return P.Transpose()(x, axes)

    def concat(self, tensors, axis):
        return P.Concat(axis)(tensors)

    def stack(self, tensors):
        return P.Stack()(tensors)

    def embedding(self, table, ids):
        return P.Gather()(table, ids, 0)

    def pick(self, x, index):
        return P.Reshape()(P.GatherD()(x, 1, P.Reshape()(index, (-1, 1))), (-1,))

    def linear(self, x, weight, bias):
        rows = P.Reshape()(self._working(x), (-1, x.shape[-1]))
        output = P.MatMul(False, True)(rows, self._working(weight))
        if bias is not None:
            output = self.add_bias(output, self._working(bias))
        return P.Reshape()(output, x.shape[:-1] + (weight.shape[0],))

    def matmul(self, a, b):
        return P.matmul(self._working(a), self._working(b))

    def matmul_transposed(self, a, b):
        return P.BatchMatMul(False, True)(self._working(a), self._working(b))

    def attention(self, query, key, value, bias, dropout):
        query, key, value = self._working(query), self._working(key), self._working(value)
        scores = P.BatchMatMul(False, True)(query * (query.shape[-1] ** -0.5), key)  # (B, A, L, L)
        bias = P.BroadcastTo(scores.shape)(P.Cast()(bias, scores.dtype))  # the same node for all layers of a model
        probabilities = self.dropout(self.row_softmax(scores + bias), dropout)
        return P.BatchMatMul()(probabilities, value)

    def attention_to_states(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout):
        return attention_by_maps(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout)

    def rotate(self, x, cosines, sines):
        first, second = P.Split(len(x.shape) - 1, 2)(x)
        turned = P.Concat(-1)((-second, first))
        return P.Cast()(x * P.BroadcastTo(x.shape)(cosines) + turned * P.BroadcastTo(x.shape)(sines), x.dtype)

    def relative_scores(self, states, table, index):
        rows, heads, length, _ = states.shape
        states, table = self._working(states), self._working(table)
        by_row = P.BatchMatMul(False, True)(states, P.BroadcastTo((rows,) + table.shape)(table))  # (B, A, L, R)
        return P.GatherD()(by_row, 3, P.BroadcastTo((rows, heads, length, length))(index))

    def word_cross_entropy(self, states, weight, bias, labels, row_weights):
        return self.words_to_labels(states, weight, bias, labels, row_weights)[0]

    def word_divergence(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights, temperature):
        own, own_bias = states * (1.0 / temperature), bias * (1.0 / temperature)
        target, target_bias = teacher_states * (1.0 / temperature), teacher_bias * (1.0 / temperature)
        return self.words_to_divergence(own, weight, own_bias, target, teacher_weight, target_bias, row_weights)[0]

    def word_squared_error(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights):
        result = self.words_to_squares(states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights)
        return result[0]

    def lstm(self, x, mask, input_weight, hidden_weight, input_bias, hidden_bias):
        bias = input_bias + hidden_bias
        if self.on_cpu:
            return fused_lstm(x, mask, input_weight, hidden_weight, bias)
        return unrolled_lstm(self._working(x), mask, self._working(input_weight), self._working(hidden_weight), bias)

    def layer_norm(self, x, weight, bias, epsilon):
        shift = P.ZerosLike()(weight) if bias is None else bias
        return P.LayerNorm(-1, -1, epsilon)(self.float32(x), weight, shift)[0]

    def dropout(self, x, rate):
        if rate == 0:
            return x
        # The mask is a hash of the position: frac(m[row] k[column] / PRIME + a[row]) >= rate, pairwise independent for
        # random m and a. One thin matrix product makes it; MindSpore's own Dropout is slower, and its generator is
        # hidden in the kernel.
        columns = x.shape[-1]
        rows = x.size // columns
        order = P.Floor()(self._uniform(self._draw()) * (PRIME - 1)) + 1.0
        column = self._fraction(permuted_residues(columns) * (order / PRIME))
        multiplier = P.Floor()(self._uniform(random_words(rows, 0) * self._draw() + self._draw()) * (PRIME - 1)) + 1.0
        offset = self._uniform(random_words(rows, 1) * self._draw() + self._draw())
        left = P.Stack(1)([multiplier, offset])  # (rows, 2)
        right = P.Stack(0)([column, P.OnesLike()(column)])  # (2, columns)
        uniform = self._fraction(P.MatMul()(left, right))
        kept = P.Cast()(P.GreaterEqual()(uniform, rate), x.dtype) * (1.0 / (1.0 - rate))
        return x * P.stop_gradient(P.Reshape()(kept, x.shape))

    def gelu(self, x, approximate):
        if approximate:
            # 0.5 (1 + tanh(y)) = sigmoid(2 y), exact and four times faster than MindSpore's kernel.
            return x * P.Sigmoid()(1.5957691216057308 * (x + 0.044715 * (x * x * x)))
        if self.on_cpu:
            return x * self.normal_probability(x)
        return x * (0.5 * (P.Erf()(x * 0.7071067811865476) + 1.0))

    def relu(self, x):
        return P.ReLU()(x)

    def silu(self, x):
        return x * P.Sigmoid()(x)

    def tanh(self, x):
        return 2.0 * P.Sigmoid()(2.0 * x) - 1.0

    def exp(self, x):
        return P.Exp()(x)

    def log(self, x):
        return P.Log()(x)

    def sqrt(self, x):
        return P.Sqrt()(x)

    def softmax(self, x):
        return self.row_softmax(x)

    def log_softmax(self, x):
        shifted = x - P.stop_gradient(P.ReduceMax(True)(x, -1))
        return shifted - P.Log()(P.ReduceSum(True)(P.Exp()(shifted), -1))

    def sum(self, x, axis=None):
        return P.ReduceSum()(x) if axis is None else P.ReduceSum()(x, axis)

    def argmax(self, x):
        return P.Argmax(-1)(x)

    def one_hot(self, index, depth):
        return P.OneHot()(index, depth, ms.Tensor(1.0, ms.float32), ms.Tensor(0.0, ms.float32))

    def above(self, x, limit):
        return P.Cast()(P.Greater()(x, limit), ms.float32)

    def choose(self, gate, one, zero, x):
        if gate > 0.5:
            return one(x)
        return zero(x)

    def float32(self, x):
        return P.Cast()(x, ms.float32)

    def stop_gradient(self, x):
        return P.stop_gradient(x)

    def _working(self, x):
        return P.Cast()(x, self.compute_type) if self.reduced else x

    def _draw(self):
        """The next number of the generator: an effect, which the compiler keeps in order."""
        state = self.random_state * LCG_MULTIPLIER + LCG_INCREMENT
        P.Assign()(self.random_state, state)
        return state

    def _uniform(self, words):
        """Float32 numbers in [0, 1) from int32 numbers, by their highest 24 bits."""
        return self._fraction(P.Floor()(P.Cast()(words, ms.float32) * 2.0**-8) * 2.0**-24)

    def _fraction(self, x):
        return x - P.Floor()(x)
