"""`core.ops.Ops` in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...core.models.components import attention_by_maps
from ...core.static_tables import static_table
from .attention import dropped_attention, plain_attention, without_padding
from .dropout import DropoutMasks
from .linear import linear, plain
from .one_query import ENOUGH_PLACES, attention_of_one
from .tables import look_up
from .vocabulary import word_loss

# Added to a gate before its sigmoid, which is then 0, in float16 as well.
CLOSED = -10000.0


class TorchOps:
    """Primitives on one device, in `dtype`.

    In bf16 or fp16 the activations stay in that type from the first normalisation on, and the float32 parameters are
    cast where they are used. `torch.autocast` instead returns to float32 at each normalisation, which costs two copies
    of the activations per linear map; sums (normalisation, softmax, matrix products) are float32 inside either way.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32, masks: DropoutMasks | None = None):
        self.device, self.dtype = device, dtype
        self.masks = DropoutMasks(own=False) if masks is None else masks
        self._tables: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}

    def constant(self, array):
        return torch.from_numpy(array).to(self.device)

    def static(self, name, arguments):
        key = (name, arguments)
        if key not in self._tables:
            with torch.inference_mode(False):  # else training could not use what an evaluation made first
                self._tables[key] = torch.from_numpy(static_table(name, arguments)).to(self.device)
        return self._tables[key]

    def shape(self, x):
        return tuple(x.shape)

    def is_known(self, size):
        return isinstance(size, int)

    def reshape(self, x, shape):
        return plain(x).reshape(shape)

    def transpose(self, x, axes):
        return plain(x).permute(axes)

    def concat(self, tensors, axis):
        return torch.cat(tensors, dim=axis)

    def stack(self, tensors):
        return torch.stack(tensors)

    def embedding(self, table, ids):
        return look_up(table, ids)

    def pick(self, x, index):
        return x.gather(1, index.long().unsqueeze(1)).squeeze(1)

    def linear(self, x, weight, bias):
        if self.device.type == "cpu":
            return linear(x.to(self.dtype), weight, bias)
        return F.linear(x.to(self.dtype), weight.to(self.dtype), None if bias is None else bias.to(self.dtype))

    def matmul(self, a, b):
        b = plain(b)
        if a.dtype != b.dtype:  # softmax of scores with a float32 mask, and values in the working precision
            a, b = a.to(self.dtype), b.to(self.dtype)
        return torch.matmul(a, b)

    def matmul_transposed(self, a, b):
        return torch.matmul(a, plain(b).transpose(-1, -2))

    def attention(self, query, key, value, bias, dropout):
        if self.device.type == "cpu" and not torch.compiler.is_compiling():
            bias = without_padding(bias)
            if not dropout:
                return plain_attention(query, key, value, bias)
            if self.masks.own:
                return dropped_attention(query, key, value, bias, self.masks, dropout)
        mask = None if bias is None else bias.to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)

    def attention_to_states(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout):
        if self._spares_maps(query, x, dropout):
            maps = [None if tensor is None else plain(tensor) for tensor in (key_weight, key_bias, value_weight, value_bias)]
            return attention_of_one(query, x.to(self.dtype), *maps, without_padding(bias), self.masks, dropout)
        return attention_by_maps(self, query, x, key_weight, key_bias, value_weight, value_bias, bias, dropout)

    def _spares_maps(self, query, x, dropout):
        """Whether keys and values need not be computed."""
        few = self.device.type == "cpu" and not torch.compiler.is_compiling() and query.shape[2] == 1
        return few and x.shape[1] >= ENOUGH_PLACES and (self.masks.own or not dropout)

    def rotate(self, x, cosines, sines):
        first, second = x.chunk(2, dim=-1)
        return (x * cosines + torch.cat([-second, first], dim=-1) * sines).to(x.dtype)

    def relative_scores(self, states, table, index):
        rows, heads, length, _ = states.shape
        by_row = torch.matmul(states, table.transpose(-1, -2))  # (B, A, L, R)
        return by_row.gather(3, index.long().expand(rows, heads, length, length))

    def word_cross_entropy(self, states, weight, bias, labels, row_weights):
        return word_loss("cross_entropy", (states, weight, bias), [labels], row_weights, self.dtype)

    def word_divergence(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights, temperature):
        teacher = [teacher_states, teacher_weight, teacher_bias]
        return word_loss("divergence", (states, weight, bias), teacher, row_weights, self.dtype, 1.0 / temperature)

    def word_squared_error(self, states, weight, bias, teacher_states, teacher_weight, teacher_bias, row_weights):
        teacher = [teacher_states, teacher_weight, teacher_bias]
        return word_loss("squared_error", (states, weight, bias), teacher, row_weights, self.dtype)

    def lstm(self, x, mask, input_weight, hidden_weight, input_bias, hidden_bias):
        # The lengths never leave the device, and nothing is packed, which halves the speed on a CPU: a column of x that
        # is 1 at padding shuts the input gate there, so that the backward direction, which meets the padding first,
        # comes out of it with a state of exactly zero. The forward direction is read off at the last real place.
        hidden, rows = hidden_weight.shape[-1], x.shape[0]
        steps = torch.cat([x.transpose(0, 1), 1.0 - mask.t().unsqueeze(2)], dim=2).to(self.dtype)  # (L, B, D + 1)
        shut = input_weight.new_zeros(4 * hidden, 1)
        shut[:hidden] = CLOSED
        weights = []
        for direction in range(2):
            weights += [torch.cat([input_weight[direction], shut], dim=1), hidden_weight[direction]]
            weights += [input_bias[direction], hidden_bias[direction]]
        state = steps.new_zeros(2, rows, hidden)
        weights = [weight.to(self.dtype) for weight in weights]
        training = torch.is_grad_enabled()
        states, ends, _ = torch._VF.lstm(steps, (state, state), weights, True, 1, 0.0, training, True, False)
        last = (mask.sum(dim=1).long() - 1).clamp(min=0)  # a row of padding only is zero at place 0 as well
        forward = states[:, :, :hidden].gather(0, last[None, :, None].expand(1, rows, hidden))[0]
        return torch.cat([forward, ends[1]], dim=1)

    def layer_norm(self, x, weight, bias, epsilon):
        x = x.to(self.dtype)
        if self.device.type != "cpu":
            # Only the CPU kernel takes float32 weights beside activations of another type.
            weight, bias = weight.to(self.dtype), None if bias is None else bias.to(self.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    def dropout(self, x, rate):
        return self.masks.apply(x, rate) if rate else x

    def gelu(self, x, approximate):
        return F.gelu(x, approximate="tanh" if approximate else "none")

    def relu(self, x):
        return F.relu(x)

    def silu(self, x):
        return F.silu(x)

    def tanh(self, x):
        return torch.tanh(x)

    def exp(self, x):
        return torch.exp(x)

    def log(self, x):
        return torch.log(x)

    def sqrt(self, x):
        return torch.sqrt(x)

    def softmax(self, x):
        return F.softmax(x, dim=-1)

    def log_softmax(self, x):
        return F.log_softmax(x, dim=-1)

    def sum(self, x, axis=None):
        return x.sum() if axis is None else x.sum(dim=axis)

    def argmax(self, x):
        return x.argmax(dim=-1)

    def one_hot(self, index, depth):
        return (index.unsqueeze(1) == torch.arange(depth, device=index.device)).float()

    def above(self, x, limit):
        return (x > limit).float()

    def choose(self, gate, one, zero, x):
        # The engine keeps gates on the host: to read one does not wait for the device.
        return one(x) if gate.item() > 0.5 else zero(x)

    def float32(self, x):
        return x.float()

    def stop_gradient(self, x):
        return x.detach()
