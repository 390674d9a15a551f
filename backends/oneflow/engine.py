"""`core.engine.Engine` in OneFlow: eager steps in float32, whose results stay on the device until they are asked for."""

from __future__ import annotations

import os
from itertools import islice

from . import import_quietly

import_quietly()

import numpy as np  # noqa: E402
import oneflow as flow  # noqa: E402

from ...core import threads  # noqa: E402
from ...core.engine import Compilations, EngineOptions, unheard  # noqa: E402
from ...core.errors import BackendError  # noqa: E402
from ...core.losses.base import STATISTICS  # noqa: E402
from ...core.place import ALONE, Place  # noqa: E402
from . import matrix_products  # noqa: E402
from .collective import Collective, SharedGradients  # noqa: E402
from .ops import DropoutMasks, OneFlowOps  # noqa: E402
from .optimizer import make_optimizer  # noqa: E402


def resolve_device(name: str | None, place: Place = ALONE) -> flow.device:
    """The OneFlow device of that name; None is the best one that is there. Nothing is replaced silently. Each of several
    processes of a machine has a device of its own."""
    if name is None:
        name = "cuda" if flow.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdecimal()):
        raise BackendError(f"device '{name}': the oneflow backend has cpu and cuda (cuda:0, cuda:1, ...)")
    if place.size > 1 and kind == "cuda":
        if index:
            raise BackendError(f"device '{name}': each of {place.size} processes has its own; name the kind, {kind}")
        index, name = str(place.local_rank), f"cuda:{place.local_rank}"
    if kind == "cpu":
        if int(index or 0):
            raise BackendError(f"device '{name}': there is only one CPU device, cpu")
        return flow.device("cpu")
    if not flow.cuda.is_available():
        raise BackendError(f"device '{name}': this OneFlow ({flow.__version__}) sees no CUDA GPU; available: cpu")
    if int(index or 0) >= flow.cuda.device_count():
        raise BackendError(f"device '{name}': there are only {flow.cuda.device_count()} CUDA devices (from cuda:0)")
    return flow.device(kind, int(index or 0))


def count_devices(kind: str | None) -> int:
    """How many devices of a kind this machine has, 0 where they are not counted; None is the backend's best."""
    return flow.cuda.device_count() if kind in (None, "cuda") and flow.cuda.is_available() else 0


class OneFlowEngine:
    """One OneFlow device."""

    name = "oneflow"

    def __init__(self, options: EngineOptions):
        self.place = options.place
        self._device = resolve_device(options.device, options.place)
        if options.precision != "fp32":
            raise BackendError(f"precision '{options.precision}': the oneflow backend has fp32 only")
        if options.compile:
            raise BackendError("compile: the oneflow backend runs eagerly; its nn.Graph takes 4-8 s per batch shape")
        self.device = "cpu" if self._device.type == "cpu" else f"cuda:{self._device.index}"
        self.precision = options.precision
        self.length_step = 1 if self._device.type == "cpu" else 8  # as on torch
        self.compilations = Compilations()  # told of none: every operation runs by itself
        self.kernels = {"matrix products": matrix_products.kernels()} if self._device.type == "cpu" else {}
        self.threads = threads.number()
        if self.threads < (os.cpu_count() or 1):  # it has all of them by itself, and prints a warning where it is told so
            flow.set_num_threads(self.threads)
        self.masks = DropoutMasks(self._device)
        self.ops = OneFlowOps(self._device, self.masks)
        self.collective = None if self.place.size == 1 else Collective(self.place, self._device)

    def total(self, values):
        return values if self.collective is None else self.collective.total(values)

    def versions(self):
        return {"oneflow": flow.__version__}

    def keep_kernels(self, recorded):
        started, now = recorded.get("matrix products"), self.kernels.get("matrix products")
        if started is None or now is None or started == now:
            return []
        # OpenBLAS has chosen when it was loaded.
        keep = f"{matrix_products.SETTING}={started} keeps them"
        return [f"matrix products: by {now}'s kernels; the run was started with {started}'s, so the last bits differ; {keep}"]

    def peak_memory_mb(self):
        return None  # OneFlow 0.9 does not count it on CUDA either

    def to_device(self, batch):
        """Copies of host arrays as tensors. Gates decide what is computed, so they stay on the host."""
        return {
            name: flow.tensor(array, device=flow.device("cpu") if name == "gates" else self._device)
            for name, array in batch.items()
        }

    def load(self, parameters, trainable: bool):
        """Float32 tensors on the device, copied from host arrays."""
        return {
            name: flow.tensor(np.asarray(array, np.float32), device=self._device, requires_grad=trainable)
            for name, array in parameters.items()
        }

    def out_of_memory(self, error):
        # Where one of its own threads finds it out, OneFlow 0.9 ends the process.
        return isinstance(error, RuntimeError) and ("out of memory" in str(error) or "allocate failed" in str(error))

    def load_frozen(self, parameters):
        return {name: self._frozen(value) for name, value in parameters.items()}

    def _frozen(self, value):
        if isinstance(value, flow.Tensor):
            return value
        array = np.asarray(value, np.float32)
        # What nobody can change, as a file that is mapped into memory, needs no copy.
        if self._device.type == "cpu" and not array.flags.writeable:
            return flow.from_numpy(array)
        return flow.tensor(array, device=self._device)

    def train_step(self, objective, parameters, frozen, optimizer, statistics=None):
        return OneFlowTrainStep(self, objective, parameters, frozen, optimizer, statistics)

    def gradients(self, objective, parameters, frozen, batch):
        params = self.load(parameters, trainable=True)
        total, values = objective(self.ops, params, self.load_frozen(frozen), self.to_device(batch))
        total.backward()
        return values.detach().numpy().copy(), {
            name: np.zeros(tuple(tensor.shape), np.float32) if tensor.grad is None else tensor.grad.numpy().copy()
            for name, tensor in params.items()
        }

    def infer(self, function, parameters):
        params = self.load_frozen(parameters)

        def run(batch):
            with flow.no_grad():
                outputs = function(self.ops, params, self.to_device(batch))
            # `numpy` shares a CPU tensor's memory, which may be a parameter's.
            return [output.float().numpy().copy() for output in outputs]

        return run


class OneFlowStepMetrics:
    """Loss values of the steps that one call ran, still on the device."""

    def __init__(self, values: list[flow.Tensor]):
        self._values = values

    def fetch(self):
        return flow.stack(self._values).numpy().copy()


class OneFlowTrainStep:
    """Parameters, optimizer and the objective's gradient."""

    skips_overflow = False

    def __init__(self, engine, objective, parameters, frozen, optimizer, statistics):
        self._engine, self._objective, self._statistics = engine, objective, statistics
        changing, fixed = optimizer.split(parameters)
        self._differentiated = differentiated = engine.load(changing, trainable=True)
        self._params = differentiated | engine.load_frozen(fixed)
        self._trained = {name: tensor for name, tensor in differentiated.items() if optimizer.is_trained(name)}
        self._frozen = engine.load_frozen(frozen)
        self._optimizer = make_optimizer(differentiated, optimizer, engine.ops)
        self._gradients: SharedGradients | None = None

    @property
    def communication(self):
        return 0.0 if self._engine.collective is None else self._engine.collective.waited

    def run(self, steps, count, dispatched=unheard):
        values = []
        for step in islice(steps, count):
            values.append(self._step(step))
            dispatched(1)
        return OneFlowStepMetrics(values)

    def _step(self, step):
        summed, shared = None, self._shared(step)
        gradients = self._shared_gradients(step)
        for index in range(len(step.micro_batches)):
            total, values = self._computed(self._objective, step, index, shared)
            if total.requires_grad:  # not where the gates leave out all that is trained
                total.backward()
            values = values.detach()
            summed = values if summed is None else summed + values
        if gradients is not None:
            summed = gradients.sum(summed)
        norm = self._optimizer.step(step.learning_rate, summed[0])
        return flow.cat([summed, norm])

    def _shared_gradients(self, step):
        """Where this step's gradients are summed over all processes; None for a process that is alone."""
        if self._engine.collective is None:
            return None
        if self._gradients is None:
            values = 1 + step.micro_batches[0]["denominators"].size
            self._gradients = SharedGradients(self._engine.collective, list(self._differentiated.values()), values)
        self._gradients.begin()
        return self._gradients

    def _computed(self, function, step, index, shared):
        self._engine.masks.reseed(step.random_state(index))
        batch = self._engine.to_device(step.micro_batches[index]) | shared
        return function(self._engine.ops, self._params, self._frozen, batch)

    def _shared(self, step):
        """What every micro-batch gets of all of them."""
        if self._statistics is None or step.parts == 1:
            return {}
        with flow.no_grad():
            sums = sum(self._computed(self._statistics, step, index, {}) for index in range(len(step.micro_batches)))
            return {STATISTICS: sums if self._engine.collective is None else self._engine.collective.sum(sums)}

    def parameters(self):
        return {name: tensor.detach().numpy().copy() for name, tensor in self._trained.items()}

    def infer(self, function, names):
        return self._engine.infer(function, {name: self._params[name].detach() for name in names})

    def not_finite(self):
        with flow.no_grad():  # 0, and NaN where anything is not finite; its largest element would not show a NaN
            sums = [flow.sum(tensor - tensor) for tensor in self._trained.values()]
            finite = np.isfinite(flow.stack(sums).numpy()) if sums else ()
        return next((name for name, good in zip(self._trained, finite) if not good), None)

    def state(self):
        return self._optimizer.state()

    def state_layout(self):
        return self._optimizer.state_layout()

    def restore(self, parameters, state):
        with flow.no_grad():
            for name, tensor in self._trained.items():
                tensor.copy_(flow.tensor(np.asarray(parameters[name], np.float32), device=tensor.device))
            self._optimizer.restore(state)
