"""Sums over the processes of a run, by OneFlow: its own transport over sockets on a CPU, nccl on CUDA.

OneFlow joins the other processes by itself, when it is imported, from the variables that its launcher leaves in the environment:
MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK and LOCAL_RANK.

The gradients of a step lie in one flat float32 buffer, of which each parameter's gradient is a view, behind them the loss values:
so one sum a step, with no copy, is all that is communicated. OneFlow has no sum that runs beside the backward pass.
"""

from __future__ import annotations

import time

import numpy as np
import oneflow as flow

from ...core.errors import BackendError
from ...core.place import Place


class Collective:
    """The processes of a run; a process that is alone has none."""

    def __init__(self, place: Place, device: flow.device):
        self.device = device
        self.waited = 0.0
        """Seconds of waiting for sums."""
        joined = flow.env.get_rank(), flow.env.get_world_size()
        if joined != (place.rank, place.size):
            raise BackendError(
                f"{place.launcher}: this is process {place.rank} of {place.size}, but OneFlow has joined as {joined[0]} of "
                f"{joined[1]}; it reads MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK and LOCAL_RANK when it is imported"
            )

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of a float32 array over all processes."""
        return self.sum(flow.tensor(np.asarray(values, np.float32), device=self.device)).numpy().copy()

    def sum(self, tensor: flow.Tensor) -> flow.Tensor:
        """Sum a float32 tensor in place over all processes.

        On a CPU the host waits for the step's other work before, and for the sum after it, which tells how long the sum takes;
        OneFlow does nothing beside its kernels there that this could hold up but the dispatch of the next few. On a GPU
        nobody waits, so that nothing is known."""
        if self.device.type == "cpu":
            _wait_for_kernels()
        started = time.perf_counter()
        flow._C.local_all_reduce(tensor, inplace=True)
        if self.device.type == "cpu":
            _wait_for_kernels()
            self.waited += time.perf_counter() - started
        return tensor


def _wait_for_kernels() -> None:
    flow._oneflow_internal.eager.Sync()


class SharedGradients:
    """The gradients of some parameters, and loss values, in one flat buffer that is summed over all processes."""

    def __init__(self, collective: Collective, parameters: list[flow.Tensor], values: int):
        """`values` is how many loss values there are."""
        self._collective, self._parameters = collective, parameters
        sizes = [parameter.numel() for parameter in parameters]
        self._flat = flow.zeros(sum(sizes) + values, device=collective.device)
        *pieces, self._values = flow.split(self._flat, [*sizes, values])
        self._views = [piece.view(*parameter.shape) for piece, parameter in zip(pieces, parameters)]

    def begin(self) -> None:
        """A step begins: all gradients are zero."""
        self._flat.zero_()
        for parameter, view in zip(self._parameters, self._views):
            parameter.grad = view

    def sum(self, values: flow.Tensor) -> flow.Tensor:
        """Sum what is in the buffer, and `values`, which are returned, over all processes."""
        self._values.copy_(values)
        self._collective.sum(self._flat)
        return self._values.clone()
