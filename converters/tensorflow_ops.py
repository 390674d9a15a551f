"""`Ops` in TensorFlow, forward only and in float32: with it TensorFlow itself computes what it loaded.

Linear maps come as (out, in), as everywhere; a result is only right if what TensorFlow read was turned the right way.
TensorFlow is no backend: it does not train here.
"""

from __future__ import annotations

from ..core.models.components import attention_by_maps
from ..core.static_tables import static_table


def load_ops() -> TensorFlowOps:
    """The primitives of the TensorFlow that is installed."""
    import tensorflow

    return TensorFlowOps(tensorflow)


class TensorFlowOps:
    """The primitives that the models of this project need; `tf` is the module."""

    def __init__(self, tf):
        self._tf = tf

    def constant(self, array):
        return self._tf.constant(array)

    def static(self, name, arguments):
        return self._tf.constant(static_table(name, arguments))

    def shape(self, x):
        return tuple(x.shape)

    def is_known(self, size):
        return True

    def reshape(self, x, shape):
        return self._tf.reshape(x, shape)

    def transpose(self, x, axes):
        return self._tf.transpose(x, axes)

    def concat(self, tensors, axis):
        return self._tf.concat(tensors, axis)

    def embedding(self, table, ids):
        return self._tf.gather(table, ids)

    def linear(self, x, weight, bias):
        product = self._tf.matmul(x, weight, transpose_b=True)
        return product if bias is None else product + bias

    def matmul(self, a, b):
        return self._tf.matmul(a, b)

    def matmul_transposed(self, a, b):
        return self._tf.matmul(a, b, transpose_b=True)

    def attention(self, query, key, value, bias, dropout):
        scores = self.matmul_transposed(query * query.shape[-1] ** -0.5, key) + bias
        return self._tf.matmul(self._tf.nn.softmax(scores), value)

    def attention_to_states(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout):
        return attention_by_maps(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout)

    def relative_scores(self, states, table, index):
        by_row = self.transpose(self.matmul_transposed(states, table), (2, 0, 1, 3))  # (L, B, A, R)
        return self.transpose(self._tf.gather(by_row, index, axis=3, batch_dims=1), (1, 2, 0, 3))

    def rotate(self, x, cosines, sines):
        first, second = self._tf.split(x, 2, axis=-1)
        return x * cosines + self._tf.concat([-second, first], -1) * sines

    def lstm(self, x, mask, input_weight, hidden_weight, input_bias, hidden_bias):
        tf, ends, length = self._tf, [], x.shape[1]
        for direction in range(2):
            state = cell = tf.zeros((x.shape[0], hidden_weight.shape[-1]))
            for place in reversed(range(length)) if direction else range(length):
                gates = self.linear(x[:, place], input_weight[direction], input_bias[direction])
                gates += self.linear(state, hidden_weight[direction], hidden_bias[direction])
                enter, forget, new, leave = tf.split(gates, 4, axis=1)
                moved, real = tf.sigmoid(forget) * cell + tf.sigmoid(enter) * tf.tanh(new), mask[:, place, None] > 0
                state = tf.where(real, tf.sigmoid(leave) * tf.tanh(moved), state)
                cell = tf.where(real, moved, cell)
            ends.append(state)
        return tf.concat(ends, 1)

    def layer_norm(self, x, weight, bias, epsilon):
        mean, variance = self._tf.nn.moments(x, [-1], keepdims=True)
        return self._tf.nn.batch_normalization(x, mean, variance, bias, weight, epsilon)

    def dropout(self, x, rate):
        return x

    def gelu(self, x, approximate):
        return self._tf.nn.gelu(x, approximate=approximate)

    def relu(self, x):
        return self._tf.nn.relu(x)

    def silu(self, x):
        return x * self._tf.sigmoid(x)

    def tanh(self, x):
        return self._tf.tanh(x)

    def sum(self, x, axis=None):
        return self._tf.reduce_sum(x, axis)

    def above(self, x, limit):
        return self._tf.cast(x > limit, "float32")

    def softmax(self, x):
        return self._tf.nn.softmax(x)

    def float32(self, x):
        return self._tf.cast(x, "float32")
