"""`core.ops.Ops` in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F


class TorchOps:
    """Primitives on one device, in `dtype`.

    In bf16 or fp16 the activations stay in that type from the first normalisation on, and the float32 parameters are
    cast where they are used. `torch.autocast` instead returns to float32 at each normalisation, which costs two copies
    of the activations per linear map; sums (normalisation, softmax, matrix products) are float32 inside either way.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype = torch.float32):
        self.device, self.dtype = device, dtype

    def constant(self, array):
        return torch.from_numpy(array).to(self.device)

    def shape(self, x):
        return tuple(x.shape)

    def reshape(self, x, shape):
        return x.reshape(shape)

    def transpose(self, x, axes):
        return x.permute(axes)

    def concat(self, tensors, axis):
        return torch.cat(tensors, dim=axis)

    def stack(self, tensors):
        return torch.stack(tensors)

    def embedding(self, table, ids):
        return F.embedding(ids, table)

    def pick(self, x, index):
        return x.gather(1, index.long().unsqueeze(1)).squeeze(1)

    def linear(self, x, weight, bias):
        return F.linear(x.to(self.dtype), weight.to(self.dtype), bias.to(self.dtype))

    def matmul(self, a, b):
        return torch.matmul(a, b)

    def attention(self, query, key, value, bias, dropout):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), dropout_p=dropout)

    def layer_norm(self, x, weight, bias, epsilon):
        x = x.to(self.dtype)
        if self.device.type != "cpu":
            # Only the CPU kernel takes float32 weights beside activations of another type.
            weight, bias = weight.to(self.dtype), bias.to(self.dtype)
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)

    def dropout(self, x, rate):
        return F.dropout(x, rate) if rate else x

    def gelu(self, x, approximate):
        return F.gelu(x, approximate="tanh" if approximate else "none")

    def relu(self, x):
        return F.relu(x)

    def tanh(self, x):
        return torch.tanh(x)

    def softmax(self, x):
        return F.softmax(x, dim=-1)

    def log_softmax(self, x):
        return F.log_softmax(x, dim=-1)

    def sum(self, x, axis=None):
        return x.sum() if axis is None else x.sum(dim=axis)

    def float32(self, x):
        return x.float()

    def stop_gradient(self, x):
        return x.detach()
