"""How fast a framework multiplies matrices, and how many products a step of distillation is made of: together the share of the
framework's own peak that a step reaches; and how long a step's own linear maps take by themselves, which no step can go below."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from kd_job import KdJob

from crossdistil.core.app.costs import forward_cost
from crossdistil.core.engine import Engine

_PRODUCTS = 10


def _products(ops, parameters, batch):
    x = parameters["x"]
    for _ in range(_PRODUCTS):
        x = ops.linear(x, parameters["weight"], parameters["bias"])
    return [ops.sum(ops.float32(x))]


class Products:
    """Products of square matrices on the device of an engine, one after the other."""

    def __init__(self, engine: Engine, side: int):
        weight = np.random.default_rng(0).normal(0.0, side**-0.5, (side, side)).astype(np.float32)
        parameters = {"x": weight, "weight": weight.T.copy(), "bias": np.zeros(side, np.float32)}
        self._infer, self._side = engine.infer(_products, parameters), side
        self._batch = {"unused": np.zeros(1, np.float32)}
        self.rate(lambda: 0.0)  # what the first call does, and compiles, is not timed

    def rate(self, clock: Callable[[], float]) -> float:
        """Operations per second of one turn, by a clock in seconds."""
        started = clock()
        self._infer(self._batch)
        return 2 * _PRODUCTS * self._side**3 / ((clock() - started) or float("inf"))


def step_operations(job: KdJob, length: float, known: bool = False) -> float:
    """Operations of a step for each token of texts of `length` tokens: the teacher's forward pass, unless its answers are
    `known`, and of the student one forward and two backward. Only products of matrices count."""
    wanted = frozenset({"logits"})
    passes = ((job.teacher.config, 0 if known else 1), (job.student.config, 3))
    return 2 * sum(times * forward_cost(config, wanted, 2, length) for config, times in passes)


def linear_maps_alone(run: Callable[[], object], turns: int = 5) -> tuple[float, float]:
    """Seconds of the processor and operations of the linear maps that `run` makes with PyTorch on a CPU: each by itself, on
    tensors of its shapes and layouts, the fastest of `turns`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    maps = {torch.ops.mkldnn._linear_pointwise.default: 0, torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1}
    calls: dict[tuple, int] = {}

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            if function in maps:
                key = function, tuple(map(_described, arguments))
                calls[key] = calls.get(key, 0) + 1
            return function(*arguments, **(options or {}))

    with Recorder():
        run()
    seconds = operations = 0.0
    for (function, described), count in calls.items():
        arguments, taken = [_alike(each) for each in described], []
        for _ in range(turns):
            started = time.process_time()
            function(*arguments)
            taken.append(time.process_time() - started)
        product = function(*arguments)
        seconds += count * min(taken)
        operations += count * 2.0 * product.numel() * arguments[maps[function]].shape[1]
    return seconds, operations


def _described(argument):
    """What decides how long a product takes, as something that is hashed."""
    if hasattr(argument, "is_mkldnn"):
        stride = None if argument.is_mkldnn else argument.stride()  # None: in oneDNN's own layout
        return tuple(argument.shape), stride, argument.dtype
    return tuple(argument) if isinstance(argument, list) else argument


def _alike(described):
    """An argument of that description."""
    import torch

    if not (isinstance(described, tuple) and described):
        return [] if described == () else described
    shape, stride, dtype = described
    if stride is None:
        return torch.ops.mkldnn._reorder_linear_weight(torch.randn(shape).to(dtype))
    elements = 1 + sum((size - 1) * step for size, step in zip(shape, stride))
    return torch.randn(elements).to(dtype).as_strided(shape, stride)
