"""`core.ops.Ops` in OneFlow.

OneFlow is asynchronous and eager; its CPU kernels differ in speed by a factor of fifty. Row-wise broadcasts, its layer
normalisation, erf, tanh and the transposed operand of `matmul` are slow there, while matrix products and plain
elementwise arithmetic are fast, so that on a CPU the slow ones are written in the fast ones.
"""

from __future__ import annotations

from . import import_quietly

import_quietly()

import numpy as np  # noqa: E402
import oneflow as flow  # noqa: E402
import oneflow.nn.functional as F  # noqa: E402

from ...core.dropout_masks import Draws, scale  # noqa: E402
from ...core.models.components import attention_by_maps  # noqa: E402
from ...core.static_tables import static_table  # noqa: E402
from .activations import gelu  # noqa: E402
from .recurrent import device_lstm, numpy_lstm  # noqa: E402
from .rows import layer_norm, log_softmax  # noqa: E402
from .vocabulary import word_loss  # noqa: E402


class DropoutMasks:
    """Where dropout takes its randomness from: one seed, given before each micro-batch, decides everything.

    On a CPU the masks are those of `core.dropout_masks`: 1 ns an element, of OneFlow's generator (which is serial) 12.
    """

    def __init__(self, device: flow.device):
        self._on_cpu, self._draws = device.type == "cpu", Draws()
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        self._draws.reseed(seed)
        flow.manual_seed(seed)

    def apply(self, x, rate: float):
        """Inverted dropout."""
        if not self._on_cpu:
            return F.dropout(x, rate)
        kept = self._draws.kept(tuple(x.shape), rate)
        return x * flow.from_numpy(np.multiply(kept, np.float32(scale(rate)), dtype=np.float32))


class OneFlowOps:
    """Primitives on one device."""

    def __init__(self, device: flow.device, masks: DropoutMasks):
        self.device = device
        self._masks = masks
        self._tables: dict[tuple[str, tuple[int, ...]], flow.Tensor] = {}
        self._on_cpu = device.type == "cpu"

    def constant(self, array):
        return flow.tensor(array, device=self.device)

    def static(self, name, arguments):
        key = (name, arguments)
        if key not in self._tables:
            self._tables[key] = flow.tensor(static_table(name, arguments), device=self.device)
        return self._tables[key]

    def shape(self, x):
        return tuple(x.shape)

    def is_known(self, size):
        return True

    def reshape(self, x, shape):
        return x.reshape(shape)

    def transpose(self, x, axes):
        return x.permute(*axes)

    def concat(self, tensors, axis):
        return flow.cat(tensors, dim=axis)

    def stack(self, tensors):
        return flow.stack(tensors)

    def embedding(self, table, ids):
        return F.embedding(ids, table)

    def pick(self, x, index):
        return flow.gather(x, 1, index.unsqueeze(1)).squeeze(1)

    def linear(self, x, weight, bias):
        return F.linear(x, weight, bias)

    def matmul(self, a, b):
        return flow.matmul(a, b)

    def matmul_transposed(self, a, b):
        return flow._C.matmul(a, b, False, True)

    def attention(self, query, key, value, bias, dropout):
        # The transposition belongs into the product: a transposed key is five times slower.
        scores = flow._C.matmul(query, key, False, True, query.shape[-1] ** -0.5) + bias  # (B, A, L, L)
        return flow.matmul(self.dropout(F.softmax(scores, dim=-1), dropout), value)

    def attention_to_states(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout):
        return attention_by_maps(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout)

    def rotate(self, x, cosines, sines):
        half = x.shape[-1] // 2
        return x * cosines + flow.cat([-x[..., half:], x[..., :half]], dim=-1) * sines

    def relative_scores(self, states, table, index):
        rows, heads, length, _ = states.shape
        by_row = flow._C.matmul(states, table, False, True)  # (B, A, L, R)
        return flow.gather(by_row, 3, index.expand(rows, heads, length, length))

    def word_cross_entropy(self, states, weight, bias, labels, row_weights):
        return word_loss("cross_entropy", (states, weight, bias), (labels,), row_weights)

    def word_divergence(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights, temperature):
        student = states * (1.0 / temperature), weight, bias * (1.0 / temperature)
        teacher = teacher_states * (1.0 / temperature), teacher_weight, teacher_bias * (1.0 / temperature)
        return word_loss("divergence", student, teacher, row_weights)

    def word_squared_error(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights):
        teacher = teacher_states, teacher_weight, teacher_bias
        return word_loss("squared_error", (states, weight, bias), teacher, row_weights)

    def lstm(self, x, mask, input_weight, hidden_weight, input_bias, hidden_bias):
        lstm = numpy_lstm if self._on_cpu else device_lstm
        return lstm(x, mask, input_weight, hidden_weight, input_bias + hidden_bias)

    def layer_norm(self, x, weight, bias, epsilon):
        if self._on_cpu:
            return layer_norm(x, weight, bias, epsilon)
        axis = x.ndim - 1
        if bias is None:
            bias = flow.zeros_like(weight)
        return flow._C.layer_norm_affine(x, weight, bias, axis, axis, epsilon)

    def dropout(self, x, rate):
        return self._masks.apply(x, rate) if rate else x

    def gelu(self, x, approximate):
        if self._on_cpu:
            return gelu(x, approximate)
        return F.gelu(x, approximate="tanh" if approximate else "none")

    def relu(self, x):
        return F.relu(x)

    def silu(self, x):
        return x * flow.sigmoid(x)

    def tanh(self, x):
        return 2.0 * flow.sigmoid(2.0 * x) - 1.0

    def exp(self, x):
        return flow.exp(x)

    def log(self, x):
        return flow.log(x)

    def sqrt(self, x):
        return flow.sqrt(x)

    def softmax(self, x):
        return F.softmax(x, dim=-1)

    def log_softmax(self, x):
        return log_softmax(x) if self._on_cpu else F.log_softmax(x, dim=-1)

    def sum(self, x, axis=None):
        return x.sum() if axis is None else x.sum(dim=axis)

    def argmax(self, x):
        return flow.argmax(x, dim=-1)

    def one_hot(self, index, depth):
        return (index.unsqueeze(1) == flow.arange(depth, device=index.device)).float()

    def above(self, x, limit):
        return (x > limit).float()

    def choose(self, gate, one, zero, x):
        # The engine keeps gates on the host: to read one does not wait for the device.
        return one(x) if gate.item() > 0.5 else zero(x)

    def float32(self, x):
        return x.float()

    def stop_gradient(self, x):
        return x.detach()
