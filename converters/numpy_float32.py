"""`Ops` in NumPy float32: how far a model's own rounding takes it from float64, which no conversion can better."""

from __future__ import annotations

import numpy as np

from ..core.reference import ReferenceOps


class Float32Ops(ReferenceOps):
    """The reference's primitives on float32 arrays. Each tensor must come as float32."""

    def constant(self, array):
        return array.astype(np.float32) if array.dtype.kind == "f" else array

    def above(self, x, limit):
        return (x > limit).astype(np.float32)

    def embedding(self, table, ids):
        return table[ids]

    def linear(self, x, weight, bias):
        return x @ weight.T if bias is None else x @ weight.T + bias

    def attention(self, query, key, value, bias, dropout):
        from scipy.special import softmax  # whose import takes a tenth of a second, and only proofs compute

        scores = query @ np.swapaxes(key, -1, -2) * np.float32(query.shape[-1] ** -0.5) + bias
        return softmax(scores, axis=-1) @ value

    def layer_norm(self, x, weight, bias, epsilon):
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        scaled = centred / np.sqrt(variance + np.float32(epsilon)) * weight
        return scaled if bias is None else scaled + bias
