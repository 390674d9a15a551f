"""`Ops` in NumPy float64, forward only: the referee.

Slow and plain on purpose. The tests hold every backend against it, and a conversion can be verified with it on a machine
that has no framework at all.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf, log_softmax, softmax


class ReferenceOps:
    """Every primitive of `core.ops.Ops`, computed in float64."""

    def constant(self, array):
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def shape(self, x):
        return tuple(x.shape)

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
        return x @ np.asarray(weight, np.float64).T + np.asarray(bias, np.float64)

    def matmul(self, a, b):
        return a @ b

    def attention(self, query, key, value, bias, dropout):
        self._refuse_dropout(dropout)
        scores = query @ np.swapaxes(key, -1, -2) / np.sqrt(query.shape[-1]) + bias
        return softmax(scores, axis=-1) @ value

    def layer_norm(self, x, weight, bias, epsilon):
        mean = x.mean(-1, keepdims=True)
        variance = x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + epsilon) * np.asarray(weight, np.float64) + np.asarray(bias, np.float64)

    def dropout(self, x, rate):
        self._refuse_dropout(rate)
        return x

    def gelu(self, x, approximate):
        if approximate:
            return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
        return 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))

    def relu(self, x):
        return np.maximum(x, 0.0)

    def tanh(self, x):
        return np.tanh(x)

    def softmax(self, x):
        return softmax(x, axis=-1)

    def log_softmax(self, x):
        return log_softmax(x, axis=-1)

    def sum(self, x, axis=None):
        return np.sum(x, axis=axis)

    def float32(self, x):
        return x

    def stop_gradient(self, x):
        return x

    @staticmethod
    def _refuse_dropout(rate):
        if rate:
            raise ValueError(f"the NumPy reference computes without dropout, got a rate of {rate}")
