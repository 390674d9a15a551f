"""The primitives that models and losses are written in; each backend supplies them in its framework's fastest form.

The protocol is small on purpose: what is expensive (attention, layer normalisation, linear maps) is one fused call, and
what is cheap (`+`, `-`, `*`, `/`, `[i, j]` with static indices) is the tensors' own operators. A `Tensor` is whatever the
framework uses. Axes are given as integers, shapes as tuples of Python integers.

Rules that keep a model runnable under every backend's compiler:
* nothing depends on a tensor's values, only on static shapes;
* what a loss needs is returned explicitly (no hooks);
* numbers that change from step to step enter as tensors of the batch, never as Python constants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Tensor = Any


class Ops(Protocol):
    """Primitive tensor functions of one backend. All float results have the backend's working precision."""

    def constant(self, array: np.ndarray) -> Tensor:
        """A tensor that holds `array` (float32 or int32) and takes no gradient."""

    def static(self, name: str, arguments: tuple[float, ...]) -> Tensor:
        """The table `name` of `core.static_tables`, made of these numbers: int32 or float32, without a gradient. It is the same
        tensor each time; a part of it that depends on a batch is cut out of it, since no size of a batch is known when a graph
        is exported."""

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """The static shape of `x`."""

    def is_known(self, size: int) -> bool:
        """Whether a size of a batch is a number when the graph is made. In the graph of an export it is not."""

    def reshape(self, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`x` in another shape; one entry may be -1."""

    def transpose(self, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        """`x` with its axes permuted, as `numpy.transpose`."""

    def concat(self, tensors: list[Tensor], axis: int) -> Tensor:
        """Tensors joined along an existing axis."""

    def stack(self, tensors: list[Tensor]) -> Tensor:
        """Tensors of one shape joined along a new first axis."""

    def embedding(self, table: Tensor, ids: Tensor) -> Tensor:
        """Rows of `table` (rows, hidden) chosen by integer `ids` (...): (..., hidden). Every row takes a gradient."""

    def pick(self, x: Tensor, index: Tensor) -> Tensor:
        """`x[i, index[i]]` for `x` (rows, columns) and integer `index` (rows,): (rows,)."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """`x @ weight.T + bias` with `weight` (out, in), as PyTorch stores it; None adds nothing."""

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        """Batched matrix product over the last two axes."""

    def matmul_transposed(self, a: Tensor, b: Tensor) -> Tensor:
        """`a @ b.T` over the last two axes, batched."""

    def attention(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, dropout: float) -> Tensor:
        """softmax(query @ key.T / sqrt(head) + bias) @ value (Vaswani et al. 2017, equation 1).

        `query` (batch, heads, queries, head), `key` and `value` (batch, heads, length, head): queries of all places, or of fewer.
        `bias`, added to the scores: (batch, 1, 1, length), or with more of the sizes of (batch, heads, queries, length).
        `dropout` is the rate on the attention probabilities; 0 switches it off.
        """

    def attention_to_states(
        self,
        query: Tensor,
        x: Tensor,
        key_weight: Tensor,
        key_bias: Tensor | None,
        value_weight: Tensor,
        value_bias: Tensor | None,
        bias: Tensor,
        dropout: float,
    ) -> Tensor:
        """`attention` whose keys and values are linear maps of the states `x` (batch, length, hidden), weights (heads * head,
        hidden). Of few queries a backend may find them without all keys and values (`core.models.components.attention_by_maps`
        has them)."""

    def rotate(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Rotary positions (Su et al. 2021, section 3.4.2): `x * cosines + concat(-second, first) * sines` with the two halves of
        the last axis of `x` (batch, heads, length, head); `cosines` and `sines` (length, head), float32, take no gradient."""

    def relative_scores(self, states: Tensor, table: Tensor, index: Tensor) -> Tensor:
        """`states[b, a, i] . table[a, index[i, j]]`: what each place has with the distance to each other one (He et al. 2021,
        section 3.1).

        `states` (batch, heads, length, head), `table` (heads, rows, head), `index` (length, length) int32 from 0 to rows - 1.
        Result: (batch, heads, length, length).
        """

    # The losses over a vocabulary: logits (rows, words) of one model, and what a loss keeps of them, are some gigabytes for
    # a batch of text, so they are made and used up a chunk of rows at a time. Each is the sum over the rows, a float32
    # scalar; a row's weight of 0 makes it padding. Gradients flow into `states`, `weight` and `bias`, nowhere else.
    def word_cross_entropy(self, states: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, row_weights: Tensor) -> Tensor:
        """sum_r row_weights[r] * (log(sum_v exp(z[r, v])) - z[r, labels[r]]) with z = states @ weight.T + bias.

        `states` (rows, width), `weight` (words, width), `bias` (words,), `labels` (rows,) int32 from 0 to words - 1,
        `row_weights` (rows,) float32.
        """

    def word_divergence(
        self,
        states: Tensor,
        weight: Tensor,
        bias: Tensor,
        teacher_states: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor,
        row_weights: Tensor,
        temperature: float,
    ) -> Tensor:
        """sum_r row_weights[r] * KL(softmax(t[r] / temperature) || softmax(z[r] / temperature)), t the teacher's logits.

        z = states @ weight.T + bias and t = teacher_states @ teacher_weight.T + teacher_bias, of one vocabulary; the
        teacher's width may be another. Not multiplied by the temperature's square (Hinton et al. 2015 do).
        """

    def word_squared_error(
        self,
        states: Tensor,
        weight: Tensor,
        bias: Tensor,
        teacher_states: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor,
        row_weights: Tensor,
    ) -> Tensor:
        """sum_r row_weights[r] * sum_v (z[r, v] - t[r, v])^2, with z and t as in `word_divergence`."""

    def lstm(
        self,
        x: Tensor,
        mask: Tensor,
        input_weight: Tensor,
        hidden_weight: Tensor,
        input_bias: Tensor,
        hidden_bias: Tensor,
    ) -> Tensor:
        """The last states of a bidirectional LSTM of one layer (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

        `x` (batch, length, width) is padded on the right, `mask` (batch, length) is 1.0 for what is not padding. Weights
        are PyTorch's with the two directions on a new first axis, forward first: (2, 4 hidden, width),
        (2, 4 hidden, hidden) and biases (2, 4 hidden), gates in the order input, forget, cell, output. Result:
        (batch, 2 hidden), the forward state after the last real place and the backward state after the first one. A
        row without a real place gives zeros, and padding takes no gradient.
        """

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        """Normalisation over the last axis with the biased variance (Ba et al. 2016); None adds nothing."""

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Inverted dropout from the backend's own generator; `rate` 0 returns `x`."""

    def gelu(self, x: Tensor, approximate: bool) -> Tensor:
        """x * Phi(x), with erf, or with the tanh approximation of Hendrycks and Gimpel 2016."""

    def relu(self, x: Tensor) -> Tensor:
        """max(x, 0)."""

    def silu(self, x: Tensor) -> Tensor:
        """x * sigmoid(x) (Elfwing et al. 2017)."""

    def tanh(self, x: Tensor) -> Tensor:
        """Hyperbolic tangent, accurate to 1e-6."""

    def exp(self, x: Tensor) -> Tensor:
        """e to the power of `x`."""

    def log(self, x: Tensor) -> Tensor:
        """Natural logarithm."""

    def sqrt(self, x: Tensor) -> Tensor:
        """Square root."""

    def softmax(self, x: Tensor) -> Tensor:
        """Softmax over the last axis."""

    def log_softmax(self, x: Tensor) -> Tensor:
        """Logarithm of the softmax over the last axis, computed stably."""

    def sum(self, x: Tensor, axis: int | None = None) -> Tensor:
        """Sum over one axis, which is dropped, or over all."""

    def argmax(self, x: Tensor) -> Tensor:
        """Index of the largest entry along the last axis of `x` (rows, columns): (rows,) integers without a gradient."""

    def one_hot(self, index: Tensor, depth: int) -> Tensor:
        """(rows, depth) float32: 1 at `index` (rows,), else 0; an index outside 0 to depth - 1 gives zeros."""

    def above(self, x: Tensor, limit: float) -> Tensor:
        """1.0 where `x` is above `limit`, else 0.0, without a gradient."""

    def choose(self, gate: Tensor, one: Callable[[Tensor], Tensor], zero: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """`one(x)` where the scalar `gate` is 1, `zero(x)` where it is 0; only that side is computed."""

    def float32(self, x: Tensor) -> Tensor:
        """`x` in float32: losses are computed in full precision whatever the model's precision is."""

    def stop_gradient(self, x: Tensor) -> Tensor:
        """`x` as a constant."""
