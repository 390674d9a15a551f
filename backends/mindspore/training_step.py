"""Training steps in MindSpore, each a compiled graph for each batch shape: alone, several a call, or over several micro-batches.

`engine` sets MindSpore up before it is imported here.
"""

from __future__ import annotations

from itertools import islice

import mindspore as ms
import numpy as np
from mindspore import ops as P

from ...core.engine import unheard
from ...core.losses.base import STATISTICS
from .collective import make_total
from .optimizer import Optimizer, overwrite
from .sinking import Sink


def to_device(batch) -> dict[str, ms.Tensor]:
    """Host arrays as tensors. A dict that is not marked mutable would be a constant, and each call a compilation."""
    return ms.mutable({name: ms.Tensor(array) for name, array in batch.items()})


def random_state(step, micro_batch: int) -> np.ndarray:
    """Where the dropout generator starts for a micro-batch of a step."""
    return np.uint32(step.random_state(micro_batch)).view(np.int32).reshape(())


def make_gradient(ops, objective, params, frozen, by):
    """`gradient(batch, state) -> (values, gradients)` by the parameters `by`, to be compiled."""

    def forward(batch):
        return objective(ops, params, frozen, batch)

    differentiated = ms.value_and_grad(forward, None, ms.ParameterTuple(by), has_aux=True)

    def gradient(batch, state):
        P.assign(ops.random_state, state)
        result = differentiated(batch)
        return result[0][1], result[1]

    return gradient


def with_norm(values, norm):
    """The loss values of a step with the gradient's norm behind them."""
    return P.concat([values, P.reshape(norm, (1,))])


def make_step(gradient, total, update):
    """`step(batch, numbers, state) -> values`, to be compiled; `total` is None for a process that is alone."""

    def alone(batch, numbers, state):
        values, gradients = gradient(batch, state)
        return with_norm(values, update(gradients, numbers, values[0]))

    def shared(batch, numbers, state):
        values, gradients = gradient(batch, state)
        gradients, values = total(gradients, values)
        return with_norm(values, update(gradients, numbers, values[0]))

    return alone if total is None else shared


def make_statistics(ops, statistics, params, frozen):
    """`sums(batch, state) -> (N,)`, to be compiled."""

    def sums(batch, state):
        P.assign(ops.random_state, state)
        return statistics(ops, params, frozen, batch)

    return sums


class StepMetrics:
    """Loss values of the steps that one call ran, still on the device."""

    def __init__(self, values: list[ms.Tensor]):
        self._values = values

    def fetch(self):
        return np.concatenate([np.atleast_2d(values.asnumpy()) for values in self._values])


class MindSporeTrainStep:
    """Parameters, optimizer and the compiled steps over them.

    Of several processes, the sum over all of them is part of the compiled step, where no clock is: `communication` is an
    estimate, the steps so far times what such a sum took when the train step was made. Waiting for slower processes is no part
    of it.
    """

    skips_overflow = False

    def __init__(self, engine, objective, parameters, frozen, optimizer, statistics):
        self._engine = engine
        changing, fixed = optimizer.split(parameters)
        differentiated = engine.load(changing, "student")
        self._trained = {name: p for name, p in differentiated.items() if optimizer.is_trained(name)}
        self._params = params = differentiated | engine.load_frozen(fixed)
        self._optimizer = Optimizer(differentiated, optimizer, engine.fused_optimizer, engine.ops)
        frozen = engine.load_frozen(frozen)
        gradient = make_gradient(engine.ops, objective, params, frozen, list(differentiated.values()))
        update = self._optimizer.update
        total, self._share_seconds = None, 0.0
        if engine.collective is not None:
            total = make_total([p.shape for p in differentiated.values()])
            self._share_seconds = engine.collective.seconds(sum(p.size for p in differentiated.values()))
        self.communication = 0.0
        step = make_step(gradient, total, update)
        self._step = ms.jit(step)
        self._sink = Sink(step, engine.steps_per_call)
        self._compilations = engine.compilations
        if statistics is not None:
            statistics = make_statistics(engine.ops, statistics, params, frozen)
        self._has_statistics = statistics is not None
        self._accumulate = Accumulation(differentiated, gradient, update, statistics, total, engine.total)

    def run(self, steps, count, dispatched=unheard):
        values, group = [], []

        def run_group():
            values.append(self._run_group(group))
            dispatched(len(group))
            group.clear()

        for step in islice(steps, count):
            if group and self._shapes(step) != self._shapes(group[0]):
                run_group()
            group.append(step)
            if len(group) == self._sink.capacity:  # at once: the next step may be long in coming, or not come
                run_group()
        if group:
            run_group()
        return StepMetrics(values)

    def _run_group(self, group):
        """Neighbouring steps whose batches have one shape. With accumulation a group is one step."""
        self.communication += len(group) * self._share_seconds
        for micro_batch in group[0].micro_batches:
            self._compilations.check("the training step", self, micro_batch)
        numbers = [self._optimizer.numbers(step.learning_rate) for step in group]
        if self._is_accumulated(group[0]):
            return self._accumulate(group[0], ms.Tensor(numbers[0]))
        batches, states = [step.micro_batches[0] for step in group], [random_state(step, 0) for step in group]
        if self._sink.capacity == 1:
            return self._step(to_device(batches[0]), ms.Tensor(numbers[0]), ms.Tensor(states[0]))
        return self._sink(batches, numbers, states)

    def _is_accumulated(self, step):
        """Whether a step is not one call of a compiled graph: it has several micro-batches, or needs what others' add up to."""
        return len(step.micro_batches) > 1 or (self._has_statistics and step.parts > 1)

    def _shapes(self, step):
        """What decides which compiled graph runs a step; a step that is accumulated is equal to none."""
        if self._is_accumulated(step):
            return object()
        return {name: array.shape for name, array in step.micro_batches[0].items()}

    def parameters(self):
        return {name: parameter.asnumpy().copy() for name, parameter in self._trained.items()}

    def infer(self, function, names):
        return self._engine.infer(function, {name: self._params[name] for name in names})

    def not_finite(self):
        # On a CPU the arrays are views. A graph for it would take longer to compile than all checks of a run take.
        return next((name for name, p in self._trained.items() if not np.isfinite(p.asnumpy()).all()), None)

    def state(self):
        return self._optimizer.state()

    def state_layout(self):
        return self._optimizer.state_layout()

    def restore(self, parameters, state):
        for name, parameter in self._trained.items():
            overwrite(parameter, parameters[name])
        self._optimizer.restore(state)


class Accumulation:
    """A step over several micro-batches: gradients are summed in place, over all processes after the last one, then applied. It
    is never sunk."""

    def __init__(self, params, gradient, update, statistics, total, total_on_host):
        self._gradient, self._update, self._total = gradient, update, total
        self._statistics = None if statistics is None else ms.jit(statistics)
        self._total_on_host = total_on_host
        self._params, self._compiled = params, None

    def _compile(self):
        sums = [
            ms.Parameter(ms.Tensor(np.zeros(p.shape, np.float32)), name=f"sum/{name}", requires_grad=False)
            for name, p in self._params.items()
        ]
        gradient, update, total = self._gradient, self._update, self._total

        def add(batch, state):
            values, gradients = gradient(batch, state)
            for index in range(len(sums)):
                P.assign_add(sums[index], gradients[index])
            return values

        def apply(numbers, values):
            length = update(sums, numbers, values[0])
            for each in sums:
                P.assign(each, P.zeros_like(each))
            return with_norm(values, length)

        def apply_shared(numbers, values):
            gradients, values = total(sums, values)
            length = update(gradients, numbers, values[0])
            for each in sums:
                P.assign(each, P.zeros_like(each))
            return with_norm(values, length)

        return ms.jit(add), ms.jit(apply if total is None else apply_shared)

    def __call__(self, step, numbers):
        if self._compiled is None:
            self._compiled = self._compile()
        add, apply = self._compiled
        states = [ms.Tensor(random_state(step, index)) for index in range(len(step.micro_batches))]
        shared = {}
        if self._statistics is not None:
            sums = [self._statistics(to_device(batch), state) for batch, state in zip(step.micro_batches, states)]
            shared = {STATISTICS: self._total_on_host(np.sum([each.asnumpy() for each in sums], axis=0))}
        values = [add(to_device(batch | shared), state) for batch, state in zip(step.micro_batches, states)]
        return apply(numbers, sum(values[1:], values[0]))
