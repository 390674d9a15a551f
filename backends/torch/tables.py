"""Gradients of large embedding tables on a CPU: of the rows that a step looked up, since all others are zero.

PyTorch's backward of an embedding fills a new tensor of the table's size with zeros at each step, and the norm and the clip then
pass over all of it. Here one such tensor stays, of which only the used rows are ever written, and zeroed again.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ...core.models.known_families import is_table

_LARGE = 2**20
"""Elements from which a table is treated so."""


class TableGradient:
    """The gradient of one table, row by row."""

    def __init__(self, table: torch.Tensor):
        self._table, self._whole = table, torch.zeros_like(table, requires_grad=False)
        self._rows, self._parts = torch.empty(0, dtype=torch.long), []
        table.looked_up = self

    def add(self, ids: torch.Tensor, gradient: torch.Tensor) -> None:
        """Take in the gradient (..., width) by the rows that were looked up as `ids` (...)."""
        self._parts.append(_each_once(ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1])))

    def settle(self) -> torch.Tensor | None:
        """After the last micro-batch: the gradient of the used rows (rows, width), each once, which may be changed in place until
        `spread`; None where there are none, or where something else than a look-up took the table as well, whose gradient then
        has them."""
        if not self._parts:
            return None
        if len(self._parts) > 1:
            self._parts = [_each_once(*(torch.cat(parts) for parts in zip(*self._parts)))]
        [(rows, values)] = self._parts
        if self._table.grad is None:
            return values
        self._table.grad.index_add_(0, rows, values)
        self._parts = []
        return None

    def spread(self) -> None:
        """Give the table a gradient of its own size, unless it has one."""
        if self._parts:
            [(self._rows, values)] = self._parts
            self._whole[self._rows] = values
        if self._table.grad is None:
            self._table.grad = self._whole

    def forget(self) -> None:
        """After a step: all is zero again."""
        self._whole.index_fill_(0, self._rows, 0.0)
        self._parts = []


def _each_once(ids, gradient):
    """(rows, sums of their gradients)."""
    rows, places = torch.unique(ids, return_inverse=True)
    # The sums are in the order of the places, as those over the whole table are.
    return rows.long(), torch.ops.aten.embedding_dense_backward(gradient.contiguous(), places, len(rows), -1, False)


def treat(parameters) -> None:
    """Have the gradients of the large ones among named tables so."""
    for name, tensor in parameters.items():
        if is_table(name) and tensor.dim() == 2 and tensor.numel() >= _LARGE:
            TableGradient(tensor)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table, ids):
        ctx.save_for_backward(ids)
        ctx.gradient = table.looked_up
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx, gradient):
        ctx.gradient.add(ctx.saved_tensors[0], gradient)
        return None, None


def look_up(table, ids):
    """`F.embedding`, whose gradient goes to the `TableGradient` of the table if it has one."""
    if hasattr(table, "looked_up") and torch.is_grad_enabled():
        return _LookUp.apply(table, ids)
    return F.embedding(ids, table)
