"""`core.engine.Engine` in PyTorch: eager or compiled steps, in fp32, bf16 or fp16, fused AdamW."""

from __future__ import annotations

import importlib.util
import os
import warnings

import numpy as np

# Large pages for CPU tensors: fresh memory costs a page fault per 2 MiB instead of per 4 KiB. Read when torch is loaded.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from ...core.engine import Compilations, EngineOptions
from ...core.errors import BackendError
from ...core.models.known_families import is_norm, is_table
from ...core.place import ALONE, DEVICES, Place
from . import kernels
from .collective import Collective
from .dropout import DropoutMasks
from .linear import packable
from .memory import keep_freed
from .ops import TorchOps
from .training_step import TorchTrainStep

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
        if self._device.type == "cpu":
            keep_freed()
        params = self.load_frozen(parameters)
        compiled = self.compiled(function, "the evaluation")

        def run(batch):
            with torch.inference_mode():
                outputs = compiled(self.ops, params, self.to_device(batch))
                return [output.float().cpu().numpy() for output in outputs]

        return run
