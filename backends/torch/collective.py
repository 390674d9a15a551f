"""Sums over the processes of a run, by `torch.distributed`: gloo on CPU, nccl on CUDA, hccl on Ascend NPUs.

The gradients of a step lie in one flat float32 buffer, of which each parameter's gradient is a view, behind them the loss values:
so one sum a step, with no copy, is all that is communicated. On a device the buffer is cut into buckets, each of which is
summed as soon as the last micro-batch's backward pass has finished it, while the pass goes on (Li et al. 2020, "PyTorch
Distributed"); on a CPU, where the sum would take the pass's own cores, it is one.
"""

from __future__ import annotations

import socket
import time
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

from ...core.errors import BackendError
from ...core.peers import wait_seconds
from ...core.place import Place
from .store import meet

LIBRARIES = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}
BUCKET_BYTES = {"cpu": None, "cuda": 25 << 20, "npu": 25 << 20}
"""None is one bucket."""


class Collective:
    """The processes of a run; a process that is alone has none."""

    def __init__(self, place: Place, device: torch.device):
        self.device, self.bucket_bytes = device, BUCKET_BYTES[device.type]
        self._seconds = 0.0
        self._events: list[tuple[torch.Event, torch.Event]] = []
        own = {} if device.type == "cpu" else {"device_id": device}
        if own:  # each process works on its own device, also where a library takes the current one
            getattr(torch, device.type).set_device(device)
        if not dist.is_initialized():
            wait = timedelta(seconds=wait_seconds())
            store = meet(place, self._identity())
            try:
                dist.init_process_group(
                    LIBRARIES[device.type], store=store, rank=place.rank, world_size=place.size, timeout=wait, **own
                )
            except (RuntimeError, ValueError) as error:
                raise BackendError(f"{place.launcher}: the processes do not meet: {str(error).splitlines()[0]}") from error

    def _identity(self) -> str:
        """What no other process of the run has: its GPU. Empty for a CPU, which all may share."""
        if self.device.type != "cuda":
            return ""
        return f"{socket.gethostname()} {torch.cuda.get_device_properties(self.device).uuid}"

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of a float32 array over all processes."""
        tensor = torch.tensor(values, dtype=torch.float32, device=self.device)
        self.finish([self.start(tensor)])
        return tensor.cpu().numpy()

    def start(self, tensor: torch.Tensor):
        """Begin to sum a tensor in place; `finish` takes what this returns."""
        return dist.all_reduce(tensor, async_op=True)

    def finish(self, works: list) -> None:
        """Wait until these sums are done: on a GPU the device waits, and not the host."""
        started = self._now()
        for work in works:
            work.wait()
        ended = self._now()
        if self.device.type == "cpu":
            self._seconds += ended - started
        else:
            self._events.append((started, ended))

    def _now(self):
        if self.device.type == "cpu":
            return time.perf_counter()
        event = torch.Event(self.device.type, enable_timing=True)
        event.record()
        return event

    @property
    def waited(self) -> float:
        """Seconds, up to the last sum that is done, in which this process (on a GPU: its device) only waited for sums."""
        while self._events and self._events[0][1].query():
            started, ended = self._events.pop(0)
            self._seconds += started.elapsed_time(ended) / 1e3
        return self._seconds


class SharedGradients:
    """The gradients of some parameters, and loss values, in one flat buffer that is summed over all processes."""

    def __init__(self, collective: Collective, parameters: list[torch.Tensor], values: int):
        """`values` is how many loss values there are."""
        self._collective = collective
        # Gradients become ready about in the reverse order of use, so the last parameters come first.
        self._parameters = parameters[::-1]
        sizes = [parameter.numel() for parameter in self._parameters]
        self._flat = torch.zeros(sum(sizes) + values, dtype=torch.float32, device=collective.device)
        *pieces, self._values = self._flat.split([*sizes, values])
        self._views = [piece.view_as(parameter) for piece, parameter in zip(pieces, self._parameters)]
        self._buckets, self._bucket_of = self._cut(sizes, values)
        self._works: list = []
        self._waiting: list[int] | None = None  # parameters of each bucket whose gradient is not ready, in the last micro-batch
        if len(self._buckets) > 1:
            for number, parameter in enumerate(self._parameters):
                parameter.register_post_accumulate_grad_hook(lambda _, number=number: self._ready(number))

    def _cut(self, sizes: list[int], values: int) -> tuple[list[torch.Tensor], list[int]]:
        """The buckets, neighbouring pieces of the buffer, and the bucket of each parameter. The last one has the loss values."""
        limit, lengths, places = self._collective.bucket_bytes, [0], []
        for size in sizes:
            if limit is not None and lengths[-1] and (lengths[-1] + size) * 4 > limit:
                lengths.append(0)
            lengths[-1] += size
            places.append(len(lengths) - 1)
        lengths[-1] += values
        return list(self._flat.split(lengths)), places

    def begin(self) -> None:
        """A step begins: all gradients are zero."""
        self._flat.zero_()
        for parameter, view in zip(self._parameters, self._views):
            parameter.grad = view

    def expect_last(self) -> None:
        """The next backward pass is the step's last: what it finishes can be summed."""
        if len(self._buckets) > 1:
            self._waiting = [self._bucket_of.count(bucket) for bucket in range(len(self._buckets))]

    def _ready(self, number: int) -> None:
        if self._waiting is None:
            return
        self._waiting[self._bucket_of[number]] -= 1
        # All processes must start the same sums in the same order; the last bucket still lacks the loss values.
        while len(self._works) < len(self._buckets) - 1 and self._waiting[len(self._works)] == 0:
            self._works.append(self._collective.start(self._buckets[len(self._works)]))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum what is in the buffer, and `values`, which are returned, over all processes."""
        self._waiting = None
        self._values.copy_(values)
        # Parameters without a gradient path in this step keep their bucket waiting: it is summed now.
        self._works += [self._collective.start(bucket) for bucket in self._buckets[len(self._works) :]]
        self._collective.finish(self._works)
        self._works = []
        return self._values.clone()
