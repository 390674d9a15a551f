"""`core.engine.Engine` in MindSpore: every step is one compiled graph per batch shape; on Ascend, 100 steps a call.

Nothing here runs MindSpore's eager mode, which is four times slower on a CPU. Core's functions are compiled from their
source: the parameters are captured by them, everything that changes from step to step enters as a tensor.
"""

from __future__ import annotations

import functools
import os
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
from ...core.world import ALONE, Place
from .collective import join, make_total
from .ops import MindSporeOps
from .optimizer import Optimizer, overwrite
from .sinking import Sink

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
        compiled = compiled_inference(function, self.precision)
        loaded = {name: ms.Tensor(p) for name, p in self.load_frozen(parameters).items()}
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
        changing, fixed = optimizer.split(parameters)
        differentiated = engine.load(changing, "student")
        self._trained = {name: p for name, p in differentiated.items() if optimizer.is_trained(name)}
        params = differentiated | engine.load_frozen(fixed)
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
