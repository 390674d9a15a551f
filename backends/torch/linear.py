"""Linear maps on a CPU: in float32 by oneDNN or by MKL, which is what PyTorch takes there (`F.linear`), in bf16 by oneDNN.

MKL uses AVX-512 on Intel's processors only. Measured with PyTorch 2.13, one thread: on an AMD EPYC of family 25, model 1, which
has AVX2 only, MKL reaches 1.1 to 1.25 times oneDNN's speed; on an Intel Xeon with AMX oneDNN made a whole step 20 to 25 % slower;
on an AMD EPYC of family 26, which has AVX-512, MKL reaches less than half of oneDNN's speed, forward and in both gradients.
So oneDNN is taken on AMD's processors with AVX-512, and what PyTorch takes on all others.
`CROSSDISTIL_LINEAR=onednn` or `pytorch` decides otherwise. The two differ in the last bits, so the choice is part of a run's
state.

A weight that nobody changes is brought into oneDNN's own layout when it is first used: it is not rearranged at every call
then, which is most of the time of a few rows. In bf16 `F.linear` ends in the same kernels, and gives the same bits, but
first fills the result with the bias.

The operator is PyTorch's own but private (its compiler generates calls of it), so `F.linear` stays where it is missing.
"""

from __future__ import annotations

import functools
import os

import torch
import torch.nn.functional as F
from torch.backends.cpu import get_cpu_capability

from ...core.errors import BackendError, did_you_mean
from ...core.processor import vendor

_SMALL = 16
"""Rows below which the rearranging of a weight costs more than the operator saves."""
_BLOCK = 4096
"""Rows of a large matrix that a product is added to at a time: the operator cannot add, so its result takes memory."""


def _find_operator():
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        operator(torch.ones(1, 1), torch.ones(1, 1), None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    return operator


_OPERATOR = _find_operator()
SETTING, ONEDNN, PYTORCH = "CROSSDISTIL_LINEAR", "onednn", "pytorch"
CHOICES = (ONEDNN, PYTORCH)
_chosen = PYTORCH


def choose(name: str | None = None) -> str:
    """Use `onednn` or `pytorch` from now on in this process, by default what the setting or else the processor says;
    returns what is used, which is `pytorch` where oneDNN's operator is missing. Raises BackendError for another setting."""
    global _chosen
    if name is None:
        name = asked() or (ONEDNN if vendor() == "AMD" and "AVX512" in get_cpu_capability() else PYTORCH)
    _chosen = name if _OPERATOR is not None else PYTORCH
    return _chosen


def asked() -> str | None:
    """The user's setting, if there is one."""
    name = os.environ.get(SETTING) or None
    if name not in (None, *CHOICES):
        raise BackendError(f"{SETTING}: got {name!r}, expected {' or '.join(CHOICES)}{did_you_mean(name, CHOICES)}")
    return name


def _product(a, b, bias=None):
    """a (rows, k) times b (columns, k) transposed, plus a bias (columns,)."""
    return _OPERATOR(a, b, bias, "none", [], "")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows, weight, bias):
        ctx.master = weight.dtype
        weight = weight.to(rows.dtype)
        ctx.save_for_backward(rows, weight)
        return _product(rows, weight, None if bias is None else bias.to(rows.dtype))

    @staticmethod
    def backward(ctx, gradient):
        rows, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        by_rows = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_rows = _turned_map(gradient, plain(weight))
        if ctx.needs_input_grad[1]:
            by_weight = _turned_product(gradient, rows).to(ctx.master)
        if ctx.needs_input_grad[2]:
            by_bias = gradient.sum(0).to(ctx.master)
        return by_rows, by_weight, by_bias


def _turned_map(a, b):
    """a (rows, k) times b (k, columns). In bf16 PyTorch takes oneDNN itself, and the faster way there."""
    return _product(a, b.t()) if a.dtype is torch.float32 else a @ b


def _turned_product(a, b):
    """a (rows, m) transposed times b (rows, n)."""
    return _product(a.t(), b.t()) if a.dtype is torch.float32 else a.t() @ b


def linear(x, weight, bias):
    """`F.linear` on a CPU, in the type of x (float32 or bfloat16): x (..., in), weight (out, in) of that type or float32,
    which may be `packable`, bias (out,) like it or None."""
    rows = x.reshape(-1, x.shape[-1])
    packs = getattr(weight, "packable", False)
    if not _takes(x.dtype) or not (packs or weight.is_mkldnn or rows.shape[0] >= _SMALL):
        return F.linear(x, plain(weight).to(x.dtype), None if bias is None else bias.to(x.dtype))
    if packs:
        _pack(weight)
    rows = rows.contiguous()  # a strided input costs a hundred times as much
    if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad or _learns(bias)):
        product = _Linear.apply(rows, weight, bias)
    else:
        product = _product(rows, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    return product.reshape(*x.shape[:-1], weight.shape[0])


def packable(tensor):
    """That tensor, a parameter that nobody changes: if a linear map takes it, it is brought into oneDNN's layout there, in its
    place. Until then it is not known that it is a linear map's."""
    tensor.packable = tensor.dim() == 2 and tensor.device.type == "cpu"
    return tensor


def plain(tensor):
    """That tensor as any other operation takes it, though a linear map may have taken it before."""
    return tensor.to_dense() if tensor.is_mkldnn else tensor


def _pack(weight):
    with torch.inference_mode(False):  # else training could not use what an evaluation brought there first
        torch.utils.swap_tensors(weight, torch.ops.mkldnn._reorder_linear_weight(weight))  # and so the mark is gone


def _takes(dtype):
    """Whether maps of that type are the operator's."""
    if torch.compiler.is_compiling():  # PyTorch's compiler chooses for itself, and cannot look into this choice
        return False
    return _chosen == ONEDNN if dtype is torch.float32 else dtype is torch.bfloat16 and _has_bf16()


@functools.cache
def _has_bf16():
    return _OPERATOR is not None and "AVX512" in get_cpu_capability() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _learns(bias):
    return bias is not None and bias.requires_grad


def _operator_takes(a):
    return _chosen == ONEDNN and a.dtype is torch.float32 and a.device.type == "cpu" and a.shape[0] >= _SMALL


def product(a, b, bias=None):
    """a @ b.T + bias in any precision on any device, without a gradient: a (rows, k), b (columns, k), bias (columns,)."""
    if not _operator_takes(a):
        return F.linear(a, b, bias)
    return _product(a.contiguous(), b, bias)


def add_transposed_product(total, a, b):
    """total += a.T @ b, without a gradient: total (rows, columns) float32, a (k, rows), b (k, columns) of one type."""
    if not _operator_takes(a):
        if a.dtype is torch.float32:
            total.addmm_(a.t(), b)
        else:
            total.add_(torch.mm(a.t(), b))
        return
    for start in range(0, total.shape[0], _BLOCK):
        rows = slice(start, start + _BLOCK)
        total[rows].add_(_product(a[:, rows].t(), b.t()))
