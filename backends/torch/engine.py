"""`core.engine.Engine` in PyTorch: eager or compiled steps, in fp32, bf16 or fp16, fused AdamW."""

from __future__ import annotations

import importlib.util
import os
import warnings
from itertools import islice

import numpy as np

# Large pages for CPU tensors: fresh memory costs a page fault per 2 MiB instead of per 4 KiB. Read when torch is loaded.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from ...core.engine import Compilations, EngineOptions, unheard
from ...core.errors import BackendError
from ...core.losses.base import STATISTICS
from ...core.models.known_families import is_norm, is_table
from ...core.world import ALONE, DEVICES, Place
from . import kernels, tables
from .collective import Collective, SharedGradients
from .dropout import DropoutMasks
from .linear import packable
from .memory import keep_freed
from .ops import TorchOps
from .optimizer import make_optimizer

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def count_devices(kind: str | None) -> int:
    """How many devices of a kind (`cuda`, `npu`) this process sees; of None, the backend's best kind. A CPU is none."""
    if kind == "npu":
        return torch.npu.device_count() if importlib.util.find_spec("torch_npu") is not None else 0
    return torch.cuda.device_count() if kind in (None, "cuda") else 0


def _own_device(kind: str, place: Place) -> int:
    """The number of the device of one of several processes. One that sees a single device was given it by who started it
    (SLURM binds tasks so)."""
    seen = count_devices(kind)
    if seen == 1 and place.launcher != DEVICES:
        return 0
    if seen and max(place.local_rank + 1, place.local_size) > seen:
        count = f"{max(place.local_rank + 1, place.local_size)} processes of this machine"
        raise BackendError(f"device '{kind}': {count} need a device each, and there {'is' if seen == 1 else 'are'} {seen}")
    return place.local_rank


def resolve_device(name: str | None, place: Place = ALONE) -> torch.device:
    """The torch device of that name; None is the best one that is there. Nothing is replaced silently. Each of several
    processes of a machine has a device of its own."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"device '{name}': this PyTorch ({torch.__version__}) sees no CUDA GPU; available: cpu")
    if kind == "npu" and importlib.util.find_spec("torch_npu") is None:
        raise BackendError(f"device '{name}': needs the package torch_npu and an Ascend NPU with CANN; available: cpu")
    if kind not in ("cpu", "cuda", "npu"):
        raise BackendError(f"device '{name}': the torch backend has cpu, cuda and npu")
    if place.size > 1 and kind != "cpu":
        if index:
            raise BackendError(f"device '{name}': each of {place.size} processes has its own; name the kind, {kind}")
        name = f"{kind}:{_own_device(kind, place)}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BackendError(f"device '{name}': {str(error).splitlines()[0]}") from error
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BackendError(f"device '{name}': there are only {torch.cuda.device_count()} CUDA devices (from cuda:0)")
    return device


def _is_kept(name: str) -> bool:
    """Whether a parameter stays in float32, whatever is computed in."""
    return is_table(name) or is_norm(name)


class TorchEngine:
    """One PyTorch device."""

    name = "torch"

    def __init__(self, options: EngineOptions):
        self.place = options.place
        self._device = resolve_device(options.device, options.place)
        if options.precision not in PRECISIONS:
            raise BackendError(f"precision '{options.precision}': the torch backend has {', '.join(PRECISIONS)}")
        if options.precision == "fp16" and self._device.type == "cpu":
            raise BackendError("precision 'fp16': needs a CUDA or NPU device, got cpu; use bf16 or fp32")
        self.device, self.precision = str(self._device), options.precision
        self._dtype = PRECISIONS[options.precision]
        # PyTorch's compiler fuses its own dropout into what is around it.
        masks = DropoutMasks(own=self._device.type == "cpu" and not options.compile)
        self.ops = TorchOps(self._device, self._dtype, masks)
        self._compile = options.compile
        # A CPU computes what is padding like anything else; the matrix units of others want whole tiles.
        self.length_step = None if options.compile else 1 if self._device.type == "cpu" else 8
        self.compilations = Compilations()
        self.kernels = kernels.used(masks, options.precision) if self._device.type == "cpu" else {}
        self.threads = torch.get_num_threads()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self.collective = None if self.place.size == 1 else Collective(self.place, self._device)

    def total(self, values):
        return values if self.collective is None else self.collective.total(values)

    def versions(self):
        found = {"torch": torch.__version__}
        if self._device.type == "cuda":
            found["cuda"] = torch.version.cuda or "?"
            found["gpu"] = torch.cuda.get_device_name(self._device)
        return found

    def keep_kernels(self, recorded):
        return kernels.keep(self.kernels, self.ops.masks, recorded)

    def peak_memory_mb(self):
        if self._device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self._device) / 2**20

    def to_device(self, batch):
        """Host arrays as tensors; the copy does not wait on a GPU. Gates decide what is computed, so they stay."""
        if self._device.type == "cpu":
            return {name: torch.from_numpy(array) for name, array in batch.items()}
        tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
        return {
            name: tensor if name == "gates" else tensor.pin_memory().to(self._device, non_blocking=True)
            for name, tensor in tensors.items()
        }

    def load(self, parameters, trainable: bool):
        """Float32 tensors on the device, copied from host arrays."""
        return {
            name: torch.tensor(np.asarray(array, np.float32), device=self._device, requires_grad=trainable)
            for name, array in parameters.items()
        }

    def out_of_memory(self, error):
        # On a CPU it is a RuntimeError like any other.
        return isinstance(error, torch.OutOfMemoryError) or (
            isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))
        )

    def load_frozen(self, parameters):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing writes to frozen tensors
            return {name: self._frozen(name, value) for name, value in parameters.items()}

    def _frozen(self, name, value):
        if isinstance(value, torch.Tensor):
            return value
        array = np.asarray(value, np.float32)
        tensor = torch.from_numpy(array)
        loaded = self._cast(name, tensor).to(self._device)
        # What nobody can change, as a file that is mapped into memory, needs no copy.
        own = loaded if loaded is not tensor or not array.flags.writeable else loaded.clone()
        return self._packable(name, own)

    def unchanged(self, name, tensor):
        """A float32 tensor of the device as `load_frozen` would have it, for as long as nobody changes it."""
        return self._packable(name, self._cast(name, tensor.detach()))

    def _cast(self, name, tensor):
        """The matrices are cast to the working precision once instead of each step."""
        return tensor if _is_kept(name) else tensor.to(self._dtype)

    def _packable(self, name, tensor):
        return tensor if _is_kept(name) or self._compile else packable(tensor)

    def compiled(self, function, what: str):
        """`function(..., batch)`, compiled where that was asked for."""
        if not self._compile:
            return function
        compiled, check = torch.compile(function, dynamic=False), self.compilations.check

        def run(*arguments):
            check(what, function, arguments[-1])
            return compiled(*arguments)

        return run

    def train_step(self, objective, parameters, frozen, optimizer, statistics=None):
        return TorchTrainStep(self, objective, parameters, frozen, optimizer, statistics)

    def gradients(self, objective, parameters, frozen, batch):
        params = self.load(parameters, trainable=True)
        total, values = objective(self.ops, params, self.load_frozen(frozen), self.to_device(batch))
        total.backward()
        return values.detach().float().cpu().numpy(), {
            name: np.zeros(tensor.shape, np.float32) if tensor.grad is None else tensor.grad.cpu().numpy()
            for name, tensor in params.items()
        }

    def infer(self, function, parameters):
        params = self.load_frozen(parameters)
        compiled = self.compiled(function, "the evaluation")

        def run(batch):
            with torch.inference_mode():
                outputs = compiled(self.ops, params, self.to_device(batch))
                return [output.float().cpu().numpy() for output in outputs]

        return run


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
