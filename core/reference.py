"""`Ops` in NumPy float64, forward only: the referee.

Slow and plain on purpose. The tests hold every backend against it, and a conversion can be verified with it on a machine
that has no framework at all.
"""

from __future__ import annotations

import numpy as np

from .models.components import attention_by_maps
from .static_tables import static_table


def _special():
    """scipy's functions, whose import takes a tenth of a second: most commands import this module and compute nothing with it."""
    from scipy import special

    return special


class ReferenceOps:
    """Every primitive of `core.ops.Ops`, computed in float64."""

    def constant(self, array):
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def static(self, name, arguments):
        return static_table(name, arguments)

    def shape(self, x):
        return tuple(x.shape)

    def is_known(self, size):
        return True

    def reshape(self, x, shape):
        return np.reshape(x, shape)

    def transpose(self, x, axes):
        return np.transpose(x, axes)

    def concat(self, tensors, axis):
        return np.concatenate(tensors, axis=axis)

    def stack(self, tensors):
        return np.stack(tensors)

    def embedding(self, table, ids):
        return np.asarray(table, np.float64)[ids]

    def pick(self, x, index):
        return x[np.arange(x.shape[0]), index]

    def linear(self, x, weight, bias):
        product = x @ np.asarray(weight, np.float64).T
        return product if bias is None else product + np.asarray(bias, np.float64)

    def matmul(self, a, b):
        return a @ b

    def matmul_transposed(self, a, b):
        return a @ np.swapaxes(b, -1, -2)

    def attention(self, query, key, value, bias, dropout):
        self._refuse_dropout(dropout)
        scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1]) + bias
        return _special().softmax(scores, axis=-1) @ value

    def attention_to_states(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout):
        return attention_by_maps(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout)

    def rotate(self, x, cosines, sines):
        first, second = np.split(x, 2, axis=-1)
        return x * cosines + np.concatenate([-second, first], axis=-1) * sines

    def relative_scores(self, states, table, index):
        return np.einsum("baid,aijd->baij", states, np.asarray(table)[:, index])

    def word_cross_entropy(self, states, weight, bias, labels, row_weights):
        return -np.sum(row_weights * self.pick(_special().log_softmax(self.linear(states, weight, bias), axis=-1), labels))

    def word_divergence(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights, temperature):
        own = _special().log_softmax(self.linear(states, weight, bias) / temperature, axis=-1)
        target = _special().log_softmax(self.linear(teacher_states, teacher_weight, teacher_bias) / temperature, axis=-1)
        return np.sum(row_weights * np.sum(np.exp(target) * (target - own), axis=-1))

    def word_squared_error(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights):
        own = self.linear(states, weight, bias)
        target = self.linear(teacher_states, teacher_weight, teacher_bias)
        return np.sum(row_weights * np.sum((own - target) ** 2, axis=-1))

    def lstm(self, x, mask, input_weight, hidden_weight, input_bias, hidden_bias):
        special = _special()
        bias = np.asarray(input_bias, np.float64) + np.asarray(hidden_bias, np.float64)
        ends = []
        for direction, places in enumerate((range(x.shape[1]), reversed(range(x.shape[1])))):
            hidden = cell = np.zeros((x.shape[0], np.shape(hidden_weight)[-1]))
            for place in places:
                gates = self.linear(x[:, place], input_weight[direction], bias[direction])
                gates = gates + self.linear(hidden, hidden_weight[direction], 0.0)
                enter, forget, new, leave = np.split(gates, 4, axis=-1)
                moved = special.expit(forget) * cell + special.expit(enter) * np.tanh(new)
                real = mask[:, place, None] > 0
                cell = np.where(real, moved, cell)
                hidden = np.where(real, special.expit(leave) * np.tanh(moved), hidden)
            ends.append(hidden)
        return np.concatenate(ends, axis=-1)

    def layer_norm(self, x, weight, bias, epsilon):
        mean = x.mean(-1, keepdims=True)
        variance = x.var(-1, keepdims=True)
        scaled = (x - mean) / np.sqrt(variance + epsilon) * np.asarray(weight, np.float64)
        return scaled if bias is None else scaled + np.asarray(bias, np.float64)

    def dropout(self, x, rate):
        self._refuse_dropout(rate)
        return x

    def gelu(self, x, approximate):
        if approximate:
            return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1.0 + _special().erf(x / np.sqrt(2.0)))

    def relu(self, x):
        return np.maximum(x, 0.0)

    def silu(self, x):
        return x * _special().expit(x)

    def tanh(self, x):
        return np.tanh(x)

    def exp(self, x):
        return np.exp(x)

    def log(self, x):
        return np.log(x)

    def sqrt(self, x):
        return np.sqrt(x)

    def softmax(self, x):
        return _special().softmax(x, axis=-1)

    def log_softmax(self, x):
        return _special().log_softmax(x, axis=-1)

    def sum(self, x, axis=None):
        return np.sum(x, axis=axis)

    def argmax(self, x):
        return np.argmax(x, axis=-1)

    def one_hot(self, index, depth):
        return (np.asarray(index)[:, None] == np.arange(depth)).astype(np.float64)

    def above(self, x, limit):
        return (x > limit).astype(np.float64)

    def choose(self, gate, one, zero, x):
        return one(x) if gate > 0.5 else zero(x)

    def float32(self, x):
        return x

    def stop_gradient(self, x):
        return x

    @staticmethod
    def _refuse_dropout(rate):
        if rate:
            raise ValueError(f"the NumPy reference computes without dropout, got a rate of {rate}")
