"""What a training run tells, and to whom: events go to sinks.

The run folder's metrics.jsonl and the progress line are sinks, and so are TensorBoard, Weights & Biases, MLflow, SwanLab
(`core.sinks`) and what a user's plugin registers (`register_sink`). The loop knows none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

Values = dict[str, float]


@dataclass(frozen=True)
class Started:
    """A run begins, or goes on after an interruption."""

    folder: Path
    """The run folder."""
    recipe: Mapping[str, Any]
    """The resolved recipe, as in recipe.yaml."""
    backend: str
    device: str
    precision: str
    processes: int
    step: int
    """How many steps were taken before: 0, or that of the saved state from which the run goes on."""
    resumed: bool
    """Whether it goes on with what was begun before, even where no step was saved."""

    @property
    def name(self) -> str:
        """What people call the run: its folder's name."""
        return self.folder.name

    @property
    def logs(self) -> Path:
        """Where in the run folder a sink keeps files of its own."""
        return self.folder / "logs"


@dataclass(frozen=True)
class Logged:
    """What was measured in the steps since the last such event; all values are means over these steps."""

    step: int
    """The last of them, counted from the run's first."""
    stage: str
    epoch: float
    """Passes over the training data, in this stage."""
    loss: float
    """What is minimised: the weighted sum of the terms."""
    terms: Values
    """Each term before its weight."""
    learning_rate: float
    """Of the last step."""
    tokens_per_second: float
    """Real tokens, without padding, a second of steps, compilation included, without evaluating and saving."""
    memory_mb: float | None = None
    """Peak memory so far in MiB: of the device, or of the process where the device is the CPU."""
    gradient_norm: float | None = None
    """The norm of the gradient before it is clipped; None where a loss scale left out every step."""
    teacher_entropy: Values = field(default_factory=dict)
    """Of each term that is a cross-entropy with a teacher: the teacher's own entropy, the least that the term can be."""
    loss_entropy: float = 0.0
    """The part of the loss that these make up, each by its weight."""

    @property
    def shown_loss(self) -> float:
        """What people are shown: the loss above what no student can go below, so that its curve ends near 0."""
        return self.loss - self.loss_entropy

    @property
    def shown_terms(self) -> Values:
        """The same of the terms: in place of a cross-entropy with the teacher, the Kullback-Leibler divergence from it."""
        return {name: value - self.teacher_entropy.get(name, 0.0) for name, value in self.terms.items()}

    @property
    def scalars(self) -> Values:
        """Everything by the name that sinks show it under, like `train/loss`."""
        found = {"train/loss": self.shown_loss, **{f"train/term/{name}": value for name, value in self.shown_terms.items()}}
        found |= {} if self.gradient_norm is None else {"train/gradient_norm": self.gradient_norm}
        found |= {"train/learning_rate": self.learning_rate, "train/tokens_per_second": self.tokens_per_second}
        found |= {} if self.memory_mb is None else {"train/peak_memory_mb": self.memory_mb}
        return found | {"train/epoch": self.epoch}


@dataclass(frozen=True)
class Evaluated:
    """The student was evaluated on dev."""

    step: int
    stage: str
    epoch: float
    metrics: Values
    best: bool
    """Whether it is the best so far in this stage."""

    @property
    def scalars(self) -> Values:
        """Everything by the name that sinks show it under, like `dev/accuracy`."""
        return {f"dev/{name}": value for name, value in self.metrics.items()}


@dataclass(frozen=True)
class Saved:
    """A state from which the run can go on is on the disk."""

    step: int
    folder: Path
    """The run folder."""


@dataclass(frozen=True)
class Finished:
    """The run is complete."""

    result: Mapping[str, Any]
    """The content of result.json."""

    @property
    def scalars(self) -> Values:
        """The finished student's metrics on dev, like `final/accuracy`."""
        return {f"final/{name}": value for name, value in self.result["student"]["metrics"].items()}


@dataclass(frozen=True)
class Failed:
    """The run ends before it is complete."""

    reason: str
    interrupted: bool
    """Whether it was asked to stop, and not an error."""


class Sink:
    """Takes the events of a run. A subclass has methods for those that it wants; the others do nothing."""

    ends_in_main_thread: ClassVar[bool] = False
    """Whether `finished` and `failed` must be called in the main thread, as what sets signal handlers must."""

    def started(self, event: Started) -> None:
        """The run begins, or goes on."""

    def logged(self, event: Logged) -> None:
        """Steps were measured."""

    def evaluated(self, event: Evaluated) -> None:
        """The student was evaluated on dev."""

    def saved(self, event: Saved) -> None:
        """A state is on the disk."""

    def finished(self, event: Finished) -> None:
        """The run is complete; nothing follows."""

    def failed(self, event: Failed) -> None:
        """The run ends before it is complete; nothing follows."""


class LiveSink(Sink):
    """A sink in the loop's own thread that is also told of each step, for a line that moves."""

    def start(self, done: int, total: int) -> None:
        """A stage starts, `done` of its `total` steps having been taken before."""

    def advance(self, done: int, tokens: int) -> None:
        """The device was given steps up to `done`, which have `tokens` tokens in all. It is called for each of them, so it
        must cost nothing."""

    def measured(self, tokens: int, seconds: float) -> None:
        """The device has done all steps that it was given: of this stage so far so many tokens, in so many seconds of steps."""

    def evaluate(self) -> None:
        """An evaluation starts."""


class Sinks(LiveSink):
    """Several sinks as one, told in their order."""

    def __init__(self, sinks: Iterable[Sink]):
        self._sinks = tuple(sinks)
        self._live = tuple(sink for sink in self._sinks if isinstance(sink, LiveSink))

    def start(self, done: int, total: int) -> None:
        for sink in self._live:
            sink.start(done, total)

    def advance(self, done: int, tokens: int) -> None:
        for sink in self._live:
            sink.advance(done, tokens)

    def measured(self, tokens: int, seconds: float) -> None:
        for sink in self._live:
            sink.measured(tokens, seconds)

    def evaluate(self) -> None:
        for sink in self._live:
            sink.evaluate()

    def started(self, event: Started) -> None:
        for sink in self._sinks:
            sink.started(event)

    def logged(self, event: Logged) -> None:
        for sink in self._sinks:
            sink.logged(event)

    def evaluated(self, event: Evaluated) -> None:
        for sink in self._sinks:
            sink.evaluated(event)

    def saved(self, event: Saved) -> None:
        for sink in self._sinks:
            sink.saved(event)

    def finished(self, event: Finished) -> None:
        for sink in self._sinks:
            sink.finished(event)

    def failed(self, event: Failed) -> None:
        for sink in self._sinks:
            sink.failed(event)
