"""`core.engine.Engine` in MindSpore: every step is one compiled graph per batch shape; on Ascend, 100 steps a call.

Nothing here runs MindSpore's eager mode, which is four times slower on a CPU. Core's functions are compiled from their
source: the parameters are captured by them, everything that changes from step to step enters as a tensor.
"""

from __future__ import annotations

import contextlib
import functools
import os

from ...core.cache_folder import default_cache_folder

# Before MindSpore is imported: only errors are logged, and what it writes about a graph that does not compile does not
# land in the user's folder.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("MS_OM_PATH", str(default_cache_folder() / "mindspore"))

import mindspore as ms
import numpy as np

from ...core import threads
from ...core.engine import Compilations, EngineOptions
from ...core.errors import BackendError
from ...core.place import ALONE, Place
from .collective import join
from .ops import MindSporeOps
from .training_step import MindSporeTrainStep, make_gradient, to_device

PRECISIONS = {"fp32": ms.float32, "bf16": ms.bfloat16}
STEPS_PER_CALL = {"CPU": 1, "Ascend": 100}


def resolve_device(name: str | None, place: Place = ALONE) -> tuple[str, int]:
    """MindSpore's name and the index of a device; None is the best one that is there. Nothing is replaced silently. Each of
    several processes of a machine has a device of its own."""
    if name is None:
        return ("Ascend", place.local_rank) if ms.hal.is_available("Ascend") else ("CPU", 0)
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return "CPU", 0
    if kind not in ("ascend", "npu"):
        raise BackendError(f"device '{name}': the mindspore backend has cpu and ascend")
    if index and not index.isdecimal():
        raise BackendError(f"device '{name}': expected ascend or ascend:<number>")
    if index and place.size > 1:
        raise BackendError(f"device '{name}': each of {place.size} processes has its own; name the kind, {kind}")
    if not ms.hal.is_available("Ascend"):
        raise BackendError(
            f"device '{name}': MindSpore {ms.__version__} finds no Ascend NPU with CANN on this machine; available: cpu"
        )
    return "Ascend", int(index or place.local_rank)


def count_devices(kind: str | None) -> int:
    """How many devices of a kind this machine has, each for a process of its own; None is the best kind. CPUs are not counted."""
    if kind not in (None, "ascend", "npu") or not ms.hal.is_available("Ascend"):
        return 0
    return ms.device_context.ascend.device_count()


@functools.cache  # MindSpore takes this once a process
def set_up_cpu() -> None:
    """Choose the CPU, with as many threads a kernel as `core.threads` says. Where this process has computed with MindSpore before
    (a user's own session), its device and a number of threads that was set cannot be changed any more: the number stays, and a
    device that is no CPU is refused."""
    before = ms.get_context("device_target")
    try:
        ms.set_device("CPU")
    except RuntimeError as error:
        if before != "CPU":
            raise BackendError(f"device 'cpu': MindSpore computes on {before} in this process already; take another") from error
    with contextlib.suppress(RuntimeError):
        ms.device_context.cpu.op_tuning.threads_num(threads.number())


def check_precision(precision: str, target: str) -> None:
    """Refuse what would not train, or would not run."""
    if precision not in PRECISIONS:
        reason = "fp16 needs a loss scale, which it lacks; it has" if precision == "fp16" else "it has"
        raise BackendError(f"precision '{precision}': the mindspore backend: {reason} {', '.join(PRECISIONS)}")
    if precision == "bf16" and target == "CPU":
        raise BackendError("precision 'bf16': MindSpore has no bf16 matrix product on cpu; use fp32, or an Ascend NPU")


class MindSporeEngine:
    """One MindSpore device; the process has only one, chosen by the first engine."""

    name = "mindspore"
    length_step = None

    def __init__(self, options: EngineOptions):
        self.place = options.place
        self._target, index = resolve_device(options.device, options.place)
        check_precision(options.precision, self._target)
        if options.steps_per_call is not None and options.steps_per_call < 1:
            raise BackendError(f"steps_per_call {options.steps_per_call}: expected a number of steps from 1")
        if self._target == "CPU":
            set_up_cpu()
        else:
            ms.set_device("Ascend", index)
        # Before any tensor is made.
        self.collective = None if self.place.size == 1 else join(self.place, self._target)
        self.device = "cpu" if self._target == "CPU" else f"ascend:{index}"
        self.precision = options.precision
        self.kernels, self.threads = {}, threads.number()
        self.steps_per_call = options.steps_per_call or STEPS_PER_CALL[self._target]
        self.fused_optimizer = self._target == "CPU"
        self.ops = MindSporeOps(PRECISIONS[options.precision])
        self.compilations = Compilations()
        self._loads = 0  # names of parameters must differ within a graph

    def total(self, values):
        return values if self.collective is None else self.collective.total(values)

    def versions(self):
        return {"mindspore": ms.__version__}

    def keep_kernels(self, recorded):
        return []

    def peak_memory_mb(self):
        if self._target == "CPU":
            return None
        return ms.runtime.max_memory_allocated() / 2**20

    def load(self, parameters, prefix: str) -> dict[str, ms.Parameter]:
        """Trainable float32 parameters; names must differ within a graph, hence `prefix`."""
        return {
            name: ms.Parameter(ms.Tensor(np.asarray(array, np.float32)), name=f"{prefix}/{name}")
            for name, array in parameters.items()
        }

    def out_of_memory(self, error):
        words = ("memory isn't enough", "memory not enough", "out of memory", "allocate memory failed", "alloc memory failed")
        return isinstance(error, RuntimeError) and any(each in str(error).lower() for each in words)

    def load_frozen(self, parameters) -> dict[str, ms.Parameter]:
        """The matrices are cast to the working precision once instead of each step."""
        self._loads += 1
        return {name: self._frozen(name, value) for name, value in parameters.items()}

    def _frozen(self, name, value):
        if isinstance(value, ms.Parameter):
            return value
        return ms.Parameter(self._tensor(name, value), name=f"frozen-{self._loads}/{name}", requires_grad=False)

    def _tensor(self, name, value) -> ms.Tensor:
        """In the working precision; where that is float32, a parameter's own memory."""
        tensor = ms.Tensor(value if isinstance(value, ms.Tensor) else np.asarray(value, np.float32))
        if self.precision != "fp32" and tensor.ndim == 2 and "embeddings" not in name:
            tensor = tensor.astype(PRECISIONS[self.precision])
        return tensor

    def train_step(self, objective, parameters, frozen, optimizer, statistics=None):
        return MindSporeTrainStep(self, objective, parameters, frozen, optimizer, statistics)

    def gradients(self, objective, parameters, frozen, batch):
        params = self.load(parameters, "student")
        teachers = self.load_frozen(frozen)
        gradient = ms.jit(make_gradient(self.ops, objective, params, teachers, list(params.values())))
        values, gradients = gradient(to_device(batch), ms.Tensor(0, ms.int32))
        return values.asnumpy(), {name: g.asnumpy() for name, g in zip(params, gradients)}

    def infer(self, function, parameters):
        # The parameters are inputs of the graph, so that another evaluation of the same function compiles nothing.
        compiled = compiled_inference(function, self.precision)
        loaded = {name: self._tensor(name, value) for name, value in parameters.items()}
        params = ms.mutable(loaded) if loaded else {}  # an empty dict cannot be mutable

        def run(batch):
            self.compilations.check("the evaluation", function, batch)
            return [output.asnumpy() for output in compiled(params, to_device(batch))]

        return run


@functools.lru_cache(64)
def compiled_inference(function, precision: str):
    """`graph(params, batch) -> tuple of float32 outputs`, compiled once for each batch shape, whatever engine runs it."""
    ops = MindSporeOps(PRECISIONS[precision])

    def graph(params, batch):
        outputs = function(ops, params, batch)
        return tuple([ops.float32(output) for output in outputs])

    return ms.jit(graph)
