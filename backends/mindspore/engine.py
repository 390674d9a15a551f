"""`core.engine.Engine` in MindSpore: every step is one compiled graph per batch shape; on Ascend, 100 steps a call.

Nothing here runs MindSpore's eager mode, which is four times slower on a CPU. Core's functions are compiled from their
source: the parameters are captured by them, everything that changes from step to step enters as a tensor.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from itertools import islice

from ...core.cache_folder import default_cache_folder

# Before MindSpore is imported: only errors are logged, and what it writes about a graph that does not compile does not
# land in the user's folder.
os.environ.setdefault("GLOG_v", "3")
os.environ.setdefault("MS_OM_PATH", str(default_cache_folder() / "mindspore"))

import mindspore as ms
import numpy as np
from mindspore import ops as P

from ...core import threads
from ...core.engine import Compilations, EngineOptions, unheard
from ...core.errors import BackendError
from ...core.losses.base import STATISTICS
from .ops import MindSporeOps
from .optimizer import Optimizer, overwrite
from .sinking import Sink

PRECISIONS = {"fp32": ms.float32, "bf16": ms.bfloat16}
STEPS_PER_CALL = {"CPU": 1, "Ascend": 100}


def resolve_device(name: str | None) -> tuple[str, int]:
    """MindSpore's name and the index of a device; None is the best one that is there. Nothing is replaced silently."""
    if name is None:
        return ("Ascend" if ms.hal.is_available("Ascend") else "CPU"), 0
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return "CPU", 0
    if kind not in ("ascend", "npu"):
        raise BackendError(f"device '{name}': the mindspore backend has cpu and ascend")
    if index and not index.isdecimal():
        raise BackendError(f"device '{name}': expected ascend or ascend:<number>")
    if not ms.hal.is_available("Ascend"):
        raise BackendError(
            f"device '{name}': MindSpore {ms.__version__} finds no Ascend NPU with CANN on this machine; available: cpu"
        )
    return "Ascend", int(index or 0)


@functools.cache  # MindSpore takes this once a process
def set_up_cpu() -> None:
    """Choose the CPU, with as many threads a kernel as `core.threads` says."""
    ms.set_device("CPU")
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
    static_shapes = True

    def __init__(self, options: EngineOptions):
        self.place = options.place
        if self.place.size > 1:
            raise BackendError("devices: the mindspore backend runs on one device only")
        self._target, index = resolve_device(options.device)
        check_precision(options.precision, self._target)
        if options.steps_per_call is not None and options.steps_per_call < 1:
            raise BackendError(f"steps_per_call {options.steps_per_call}: expected a number of steps from 1")
        if self._target == "CPU":
            set_up_cpu()
        else:
            ms.set_device("Ascend", index)
        self.device = "cpu" if self._target == "CPU" else f"ascend:{index}"
        self.precision = options.precision
        self.kernels, self.threads = {}, threads.number()
        self.steps_per_call = options.steps_per_call or STEPS_PER_CALL[self._target]
        self.fused_optimizer = self._target == "CPU"
        self.ops = MindSporeOps(PRECISIONS[options.precision])
        self.compilations = Compilations()
        self._inference: dict[Callable, Callable] = {}
        self._loads = 0  # names of parameters must differ within a graph

    def total(self, values):
        return values

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

    def load_frozen(self, parameters) -> dict[str, ms.Parameter]:
        """The matrices are cast to the working precision once instead of each step."""
        self._loads += 1
        return {name: self._frozen(name, value) for name, value in parameters.items()}

    def _frozen(self, name, value):
        if isinstance(value, ms.Parameter):
            return value
        tensor = ms.Tensor(np.asarray(value, np.float32))
        if self.precision != "fp32" and tensor.ndim == 2 and "embeddings" not in name:
            tensor = tensor.astype(PRECISIONS[self.precision])
        return ms.Parameter(tensor, name=f"frozen-{self._loads}/{name}", requires_grad=False)

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
        compiled = self._compiled_inference(function)
        loaded = {name: ms.Tensor(p) for name, p in self.load_frozen(parameters).items()}
        params = ms.mutable(loaded) if loaded else {}  # an empty dict cannot be mutable

        def run(batch):
            self.compilations.check("the evaluation", function, batch)
            return [output.asnumpy() for output in compiled(params, to_device(batch))]

        return run

    def _compiled_inference(self, function):
        if function not in self._inference:
            ops = self.ops

            def graph(params, batch):
                outputs = function(ops, params, batch)
                return tuple([ops.float32(output) for output in outputs])

            self._inference[function] = ms.jit(graph)
        return self._inference[function]


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
    """Parameters, optimizer and the compiled steps over them."""

    def __init__(self, engine, objective, parameters, frozen, optimizer, statistics):
        changing, fixed = optimizer.split(parameters)
        differentiated = engine.load(changing, "student")
        self._trained = {name: p for name, p in differentiated.items() if optimizer.is_trained(name)}
        params = differentiated | engine.load_frozen(fixed)
        self._optimizer = Optimizer(differentiated, optimizer, engine.fused_optimizer)
        frozen = engine.load_frozen(frozen)
        gradient = make_gradient(engine.ops, objective, params, frozen, list(differentiated.values()))
        update = self._optimizer.update

        def step(batch, numbers, state):
            values, gradients = gradient(batch, state)
            update(gradients, numbers)
            return values

        self._step = ms.jit(step)
        self._sink = Sink(step, engine.steps_per_call)
        self._compilations = engine.compilations
        if statistics is not None:
            statistics = make_statistics(engine.ops, statistics, params, frozen)
        self._accumulate = Accumulation(differentiated, gradient, update, statistics)

    def run(self, steps, count, dispatched=unheard):
        values, group = [], []

        def run_group():
            values.append(self._run_group(group))
            dispatched(len(group))
            group.clear()

        for step in islice(steps, count):
            if group and shapes(step) != shapes(group[0]):
                run_group()
            group.append(step)
            if len(group) == self._sink.capacity:  # at once: the next step may be long in coming, or not come
                run_group()
        if group:
            run_group()
        return StepMetrics(values)

    def _run_group(self, group):
        """Neighbouring steps whose batches have one shape. With accumulation a group is one step."""
        for micro_batch in group[0].micro_batches:
            self._compilations.check("the training step", self, micro_batch)
        numbers = [self._optimizer.numbers(step.learning_rate) for step in group]
        if len(group[0].micro_batches) > 1:
            return self._accumulate(group[0], ms.Tensor(numbers[0]))
        batches, states = [step.micro_batches[0] for step in group], [random_state(step, 0) for step in group]
        if self._sink.capacity == 1:
            return self._step(to_device(batches[0]), ms.Tensor(numbers[0]), ms.Tensor(states[0]))
        return self._sink(batches, numbers, states)

    communication = 0.0

    def parameters(self):
        return {name: parameter.asnumpy().copy() for name, parameter in self._trained.items()}

    def state(self):
        return self._optimizer.state()

    def state_layout(self):
        return self._optimizer.state_layout()

    def restore(self, parameters, state):
        for name, parameter in self._trained.items():
            overwrite(parameter, parameters[name])
        self._optimizer.restore(state)


def shapes(step):
    """What decides which compiled graph runs a step; a step with several micro-batches is equal to none."""
    if len(step.micro_batches) > 1:
        return object()
    return {name: array.shape for name, array in step.micro_batches[0].items()}


class Accumulation:
    """A step over several micro-batches: gradients are summed in place, then applied. It is never sunk."""

    def __init__(self, params, gradient, update, statistics):
        self._gradient, self._update = gradient, update
        self._statistics = None if statistics is None else ms.jit(statistics)
        self._params, self._compiled = params, None

    def _compile(self):
        sums = [
            ms.Parameter(ms.Tensor(np.zeros(p.shape, np.float32)), name=f"sum/{name}", requires_grad=False)
            for name, p in self._params.items()
        ]
        gradient, update = self._gradient, self._update

        def add(batch, state):
            values, gradients = gradient(batch, state)
            for index in range(len(sums)):
                P.assign_add(sums[index], gradients[index])
            return values

        def apply(numbers):
            update(sums, numbers)
            for total in sums:
                P.assign(total, P.zeros_like(total))
            return numbers

        return ms.jit(add), ms.jit(apply)

    def __call__(self, step, numbers):
        if self._compiled is None:
            self._compiled = self._compile()
        add, apply = self._compiled
        states = [ms.Tensor(random_state(step, index)) for index in range(len(step.micro_batches))]
        shared = {}
        if self._statistics is not None:
            sums = [self._statistics(to_device(batch), state) for batch, state in zip(step.micro_batches, states)]
            shared = {STATISTICS: np.sum([each.asnumpy() for each in sums], axis=0)}
        values = [add(to_device(batch | shared), state) for batch, state in zip(step.micro_batches, states)]
        apply(numbers)
        return sum(values[1:], values[0])
