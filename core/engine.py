"""The boundary between the training loop and a framework.

An engine holds parameters on its device, differentiates an objective, and runs optimizer steps. Everything else (which
batches, which learning rate, when to log, evaluate and save) is decided in core and is the same on every backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .ops import Ops, Tensor
from .place import ALONE, Place
from .world import ALL, Share

if TYPE_CHECKING:
    from .optimizers import OptimizerSpec

Batch = dict[str, np.ndarray]
Parameters = dict[str, np.ndarray]
Frozen = Mapping[str, Any]
"""Parameters that are never changed: float32 arrays, or what `Engine.load_frozen` made of them, by whatever name."""
Layout = Mapping[str, tuple[tuple[int, ...], np.dtype]]
"""Shape and type of arrays by name."""
Objective = Callable[[Ops, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], tuple[Tensor, Tensor]]
Statistics = Callable[[Ops, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""`f(ops, parameters, frozen, batch)`: sums (N,) over a micro-batch, which the objective needs of all of them."""

Inference = Callable[[Ops, Mapping[str, Tensor], Mapping[str, Tensor]], list[Tensor]]
"""`f(ops, parameters, batch)`: what is computed of a batch without gradients."""


@dataclass(frozen=True)
class EngineOptions:
    """How a backend is asked to work; what it lacks it refuses with a `BackendError`."""

    device: str | None = None
    """`cpu`, `cuda`, `cuda:1`, `npu`, `ascend`; None is the backend's best device."""
    precision: str = "fp32"
    """`fp32`, `bf16` or `fp16`: parameters and losses stay in float32, the model computes in this."""
    compile: bool = False
    """Ask for a compiled step where that is a choice (torch)."""
    steps_per_call: int | None = None
    """How many optimizer steps the device runs per call (data sinking); None is the backend's default."""
    place: Place = ALONE
    """Which of the processes of a run this is. The engine of one of several meets the others when it is made."""


@dataclass(frozen=True)
class Step:
    """One optimizer step: its micro-batches (all with `denominators`), its learning rate, its dropout seed."""

    micro_batches: list[Batch]
    """Those of this process: number `rank`, `rank + size`, ... of the step's."""
    learning_rate: float
    seed: int
    share: Share = ALL
    """Which of the step's micro-batches these are."""

    @property
    def parts(self) -> int:
        """The micro-batches of all processes."""
        return len(self.micro_batches) * self.share.size

    def random_state(self, index: int) -> int:
        """What seeds the dropout of `micro_batches[index]`, 32 bits: the same however often, after whatever and by whichever
        process it is computed."""
        number = self.share.rank + index * self.share.size
        return int(np.random.SeedSequence([self.seed, number]).generate_state(1, np.uint32)[0])


def unheard(*_: object) -> None:
    """Told something that no one asked for."""


class Compilations:
    """Tells of each batch shape that is new to a function, before its compilation, which takes seconds to minutes."""

    def __init__(self) -> None:
        self.tell: Callable[[str, tuple[int, ...]], None] = unheard
        """Takes what is compiled and the shape (batch, length) of the tokens."""
        self._seen: set[Any] = set()

    def check(self, what: str, function: Any, batch: Batch) -> None:
        """`function`, which `what` names for people, is about to compute a batch."""
        key = (function, *[array.shape for array in batch.values()])
        if key not in self._seen:
            self._seen.add(key)
            if "input_ids" in batch:
                self.tell(what, batch["input_ids"].shape)


class StepMetrics(Protocol):
    """Results that stay on the device until they are asked for, so that a step never waits for the host."""

    def fetch(self) -> np.ndarray:
        """(steps, 1 + terms + 1) float32: total loss, unweighted terms, and the norm of the gradient before it is clipped."""


class TrainStep(Protocol):
    """A compiled optimizer step with its parameters and optimizer state.

    Of several processes, each computes its own micro-batches; gradients (zeros where a process has none) and loss values are
    summed over all of them, once a step, before the gradients are clipped, checked and applied: parameters and optimizer
    state are the same in all processes, and so are the values that `run` gives. The sums of `statistics` are summed as well.

    A step whose loss or gradient is not finite leaves the parameters as they are. The device decides that, and the host is told
    by the step's values, whenever it reads them.
    """

    skips_overflow: bool
    """Whether a gradient that is not finite is nothing unusual: with a loss scale, which then becomes smaller."""

    communication: float
    """Seconds, up to now, in which this process did nothing but wait for sums over all processes."""

    def run(self, steps: Iterator[Step], count: int, dispatched: Callable[[int], None] = unheard) -> StepMetrics:
        """Take `count` steps from the iterator, or all it has if those are fewer, and execute exactly these. `dispatched`
        is told how many more steps the device was given, whenever it was; it waits for none of them."""

    def parameters(self) -> Parameters:
        """The trainable parameters as float32 host arrays, by canonical name."""

    def infer(self, function: Inference, names: Sequence[str]) -> Callable[[Batch], list[np.ndarray]]:
        """As `Engine.infer` of the parameters of these names as they are now, bit for bit, without the way over the host: it is
        called before the next step, or not at all."""

    def not_finite(self) -> str | None:
        """The name of a trainable parameter that holds a value which is not finite; None where there is none."""

    def state(self) -> Parameters:
        """What else is needed to go on bit for bit: optimizer moments and counters, as host arrays."""

    def state_layout(self) -> Layout:
        """Shape and type of each array that `state` returns, by which a saved state is checked before `restore`."""

    def restore(self, parameters: Parameters, state: Parameters) -> None:
        """Go back to what `parameters` and `state` returned. The arrays have the layout of `state_layout`."""


class Engine(Protocol):
    """One framework on one device."""

    name: str
    device: str
    precision: str
    length_step: int | None
    """Batches are padded to multiples of so many tokens; None: each new shape costs a compilation, so there are few."""
    compilations: Compilations
    """Told before each of them."""
    ops: Ops
    threads: int
    """CPU threads of a kernel."""
    place: Place
    """Which of the processes of a run this is."""
    kernels: dict[str, str]
    """Where there is a choice between kernels that differ in the last bits: what for -> which. It may depend on the machine."""

    def keep_kernels(self, recorded: dict[str, str]) -> list[str]:
        """Go on with the `kernels` of the process that started a run; returns a line for each that are not this one's own."""

    def total(self, values: np.ndarray) -> np.ndarray:
        """The sum of a float32 array over all processes of the run, each of which calls this."""

    def versions(self) -> dict[str, str]:
        """Versions of the framework and of what it stands on."""

    def peak_memory_mb(self) -> float | None:
        """Peak device memory in MiB; None where the device is the CPU (the process's own peak is used then)."""

    def out_of_memory(self, error: BaseException) -> bool:
        """Whether an error of the framework says that the device's memory does not suffice."""

    def load_frozen(self, parameters: Frozen) -> Frozen:
        """The parameters on the device in the working precision, one after the other, so that the host never holds all of them.
        Who holds the result holds them there: it can be given to `train_step` and `infer`, which do not load it again."""

    def train_step(
        self,
        objective: Objective,
        parameters: Parameters,
        frozen: Frozen,
        optimizer: OptimizerSpec,
        statistics: Statistics | None = None,
    ) -> TrainStep:
        """A step that differentiates `objective(ops, parameters, frozen, batch)` with respect to `parameters`.

        Where a step has several micro-batches, `statistics` are computed of each before, without a gradient and with its
        dropout, added up, and given to the objective with each micro-batch as `STATISTICS` (`core.losses.base`).
        """

    def gradients(
        self, objective: Objective, parameters: Parameters, frozen: Frozen, batch: Batch
    ) -> tuple[np.ndarray, Parameters]:
        """`objective`'s values and its gradients by `parameters`, as host arrays; used by the cross-check and tests."""

    def infer(self, function: Inference, parameters: Frozen) -> Callable[[Batch], list[np.ndarray]]:
        """`function(ops, parameters, batch)` without gradients, from host arrays to float32 host arrays."""
