"""Data sinking: many optimizer steps in one call of a compiled graph.

MindSpore's own sink (`Model.train(sink_size=...)`, `ms.data_sink`) needs a device and MindSpore's dataset pipeline;
on CPU `Model.train` runs unsunk and, silently, `dataset_size / sink_size` times too many steps, and `ms.data_sink` of
2.10 calls its graph from a Python loop. Here a sink is what it means: the batches of consecutive steps are stacked
and handed over once, and a compiled `while` loop with a tensor counter takes one after the other. It is tested on
CPU; on Ascend it is the same graph, but it was never run on that hardware.

A stack always has room for `capacity` steps, so that there is one graph per batch shape; how many of them are steps
enters as a tensor. Steps keep their order, and only neighbours of one shape share a call. The next stack
is made after a call and not beside it: on a CPU batches and their tensors took two thousandths of a run (MiniLM's 6 layers
teaching 3), which a thread cannot spare a processor that computes already.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import ops as P


def make_loop(step: Callable, capacity: int) -> Callable:
    """`loop(batches, numbers, seeds, count, values)`: `step(batch, numbers, seed)` for the first `count` entries.

    All arguments but `count` have a leading axis `capacity`; returned is `values` with the rows of the steps filled in.
    """

    def entry(batches, index):
        return {name: P.gather(stack, index, 0) for name, stack in batches.items()}

    def loop(batches, numbers, seeds, count, values):
        rows = P.reshape(P.arange(0, capacity, 1), (capacity, 1))
        index = P.zeros_like(count)
        while index < count:
            row = step(entry(batches, index), P.gather(numbers, index, 0), P.gather(seeds, index, 0))
            values = P.where(rows == index, row, values)
            index = index + 1
        return values

    return loop


def padded_stack(arrays: list[np.ndarray], capacity: int) -> ms.Tensor:
    """Arrays of one shape along a new first axis of length `capacity`; what is left over is zero."""
    stack = np.zeros((capacity, *arrays[0].shape), arrays[0].dtype)
    for index, array in enumerate(arrays):
        stack[index] = array
    return ms.Tensor(stack)


class Sink:
    """Calls of the compiled loop."""

    def __init__(self, step: Callable, capacity: int):
        self.capacity = capacity
        self._loop = ms.jit(make_loop(step, capacity))

    def __call__(self, batches: list[dict[str, np.ndarray]], numbers: list[np.ndarray], seeds: list[np.ndarray]):
        """Run the steps; (steps, 1 + terms + 1) values, still on the device."""
        stacked = ms.mutable(
            {name: padded_stack([batch[name] for batch in batches], self.capacity) for name in batches[0]}
        )
        values = padded_stack([np.zeros(batches[0]["denominators"].size + 2, np.float32)], self.capacity)
        count = ms.Tensor(len(batches), ms.int32)
        filled = self._loop(
            stacked, padded_stack(numbers, self.capacity), padded_stack(seeds, self.capacity), count, values
        )
        return filled[: len(batches)]
