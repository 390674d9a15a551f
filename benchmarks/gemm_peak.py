"""How fast a framework multiplies matrices, and how many products a step of distillation is made of: together the share of the
framework's own peak that a step reaches."""

from __future__ import annotations

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
