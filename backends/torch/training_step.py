"""Training steps in PyTorch: the parameters, the objective's gradient over a step's micro-batches, and the optimizer.

`engine` sets PyTorch up before it is imported here.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch

from ...core.engine import unheard
from ...core.losses.base import STATISTICS
from . import tables
from .collective import SharedGradients
from .memory import keep_freed
from .optimizer import make_optimizer


class TorchStepMetrics:
    """Loss values of the steps that one call ran, still on the device."""

    def __init__(self, values: list[torch.Tensor]):
        self._values = values

    def fetch(self):
        return torch.stack(self._values).cpu().numpy()


class TorchTrainStep:
    """Parameters, optimizer and the objective's gradient."""

    def __init__(self, engine, objective, parameters, frozen, optimizer, statistics):
        self._engine = engine
        if engine._device.type == "cpu":
            keep_freed()
        changing, fixed = optimizer.split(parameters)
        self._params = engine.load(changing, trainable=True)
        if engine._device.type == "cpu" and engine.collective is None and not engine._compile:
            tables.treat(self._params)
        self._all_params = self._params | engine.load_frozen(fixed)
        self._trained = {name: tensor for name, tensor in self._params.items() if optimizer.is_trained(name)}
        self._frozen = engine.load_frozen(frozen)
        self._objective = engine.compiled(objective, "the training step")
        self._statistics = None if statistics is None else engine.compiled(statistics, "the statistics of a step")
        self._optimizer = make_optimizer(self._params, optimizer, engine.ops)
        # fp16 gradients underflow without a loss scale; the scaler skips a step whose gradients overflowed.
        self._scaler = torch.amp.GradScaler(engine._device.type) if engine.precision == "fp16" else None
        self._gradients: SharedGradients | None = None

    @property
    def communication(self):
        return 0.0 if self._engine.collective is None else self._engine.collective.waited

    @property
    def skips_overflow(self):
        return self._scaler is not None

    def run(self, steps, count, dispatched=unheard):
        values = []
        for step in islice(steps, count):
            values.append(self._step(step))
            dispatched(1)
        return TorchStepMetrics(values)

    def _step(self, step):
        summed, shared = None, self._shared(step)
        gradients = self._shared_gradients(step)
        for index in range(len(step.micro_batches)):
            total, values = self._computed(self._objective, step, index, shared)
            if gradients is not None and index == len(step.micro_batches) - 1:
                gradients.expect_last()
            if total.requires_grad:  # not where the gates leave out all that is trained
                (total if self._scaler is None else self._scaler.scale(total)).backward()
            values = values.detach()
            summed = values if summed is None else summed + values
        if gradients is not None:
            summed = gradients.sum(summed)
        norm = self._optimizer.step(step.learning_rate, summed[0], self._scaler)
        return torch.cat([summed, norm.reshape(1)])

    def _shared_gradients(self, step):
        """Where this step's gradients are summed over all processes; None for a process that is alone."""
        if self._engine.collective is None:
            return None
        if self._gradients is None:
            values = 1 + step.micro_batches[0]["denominators"].size
            self._gradients = SharedGradients(self._engine.collective, list(self._params.values()), values)
        self._gradients.begin()
        return self._gradients

    def _computed(self, function, step, index, shared):
        self._engine.ops.masks.reseed(step.random_state(index))
        batch = self._engine.to_device(step.micro_batches[index]) | shared
        return function(self._engine.ops, self._all_params, self._frozen, batch)

    def _shared(self, step):
        """What every micro-batch gets of all of them."""
        if self._statistics is None or step.parts == 1:
            return {}
        with torch.no_grad():
            sums = sum(self._computed(self._statistics, step, index, {}) for index in range(len(step.micro_batches)))
            if self._engine.collective is not None:
                self._engine.collective.finish([self._engine.collective.start(sums)])
            return {STATISTICS: sums}

    def parameters(self):
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._trained.items()}

    def infer(self, function, names):
        params, engine = self._all_params, self._engine
        held = {name: engine.unchanged(name, params[name]) if name in self._params else params[name] for name in names}
        return engine.infer(function, held)

    def not_finite(self):
        with torch.no_grad():  # both ends of each are NaN where anything is
            ends = [torch.stack(torch.aminmax(tensor)) for tensor in self._trained.values() if tensor.numel()]
            finite = torch.stack(ends).isfinite().all(1).tolist() if ends else []
        return next((name for name, good in zip(self._trained, finite) if not good), None)

    def state(self):
        state = self._optimizer.state()
        if self._scaler is not None:
            state["loss_scale"] = np.float32(self._scaler.get_scale())
        return state

    def state_layout(self):
        layout = self._optimizer.state_layout()
        return layout if self._scaler is None else {**layout, "loss_scale": ((), np.dtype(np.float32))}

    def restore(self, parameters, state):
        with torch.no_grad():
            for name, tensor in self._trained.items():
                tensor.copy_(torch.from_numpy(parameters[name]))
        if self._scaler is not None:
            self._scaler.load_state_dict({**self._scaler.state_dict(), "scale": float(state["loss_scale"])})
        self._optimizer.restore(state)
