"""What plugins have registered, by kind and name, each with the line of the file that registers it. A new kind is a class here
and a line in `KIND_NAMES`; a function in `core.plugins` registers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .kinds.kind import Kind

if TYPE_CHECKING:
    from .losses.base import LossTerm
    from .models.spec import EncoderConfig
    from .optimizers import OwnUpdate


@dataclass(frozen=True)
class Registration:
    """Something that a plugin registered."""

    name: str
    place: str
    """`FILE:LINE` of the call."""

    @property
    def file(self) -> str:
        """The file of the call."""
        return self.place.rpartition(":")[0]


Registered_ = TypeVar("Registered_", bound=Registration)


@dataclass(frozen=True)
class RegisteredLoss(Registration):
    """A loss term of a plugin, and how it is checked (`core.losses.checking`)."""

    term: type[LossTerm]
    numpy: Callable[..., float] | None
    cases: tuple[Mapping[str, Any], ...]
    """The options that it is checked with."""
    kinds: tuple[str, ...]
    """The kinds of task that it is checked for."""


@dataclass(frozen=True)
class RegisteredMetric(Registration):
    """A metric of a plugin."""

    function: Callable[..., float]
    """`f(logits, labels)`: the larger, the better."""
    kinds: tuple[str, ...]
    """The kinds of task that it is for."""


@dataclass(frozen=True)
class RegisteredSchedule(Registration):
    """A learning-rate schedule of a plugin."""

    function: Callable[[float], float]
    """`f(progress)`: the factor of the peak learning rate after the warm-up, `progress` from 0 to 1."""


@dataclass(frozen=True)
class RegisteredOptimizer(Registration):
    """An optimizer of a plugin."""

    update: OwnUpdate
    numpy: Callable[..., Any] | None
    """The same without `ops`, in NumPy, by which it is checked."""


@dataclass(frozen=True)
class RegisteredSink(Registration):
    """A sink of a plugin."""

    make: Callable[..., Any]
    """A subclass of `core.events.Sink`, or a function that returns one; its arguments are the settings."""


@dataclass(frozen=True)
class RegisteredTask(Registration):
    """A task of a plugin, with its own reader."""

    read: Callable[[Path, str], Iterable[Mapping[str, Any]]]
    """`f(data, split)`: a mapping a row, with `text`, `text_pair` where there are pairs, and `label`."""
    kind: str
    labels: tuple[str, ...] | None
    """In the order of the classes; None: those of train, or a regression."""
    pairs: bool
    metrics: tuple[str, ...] | None
    splits: tuple[str, ...]


@dataclass(frozen=True)
class RegisteredKind(Registration):
    """A kind of task of a plugin."""

    kind: Kind


@dataclass(frozen=True)
class RegisteredFamily(Registration):
    """A family of models of a plugin; its name is the `model_type`."""

    configuration: type[EncoderConfig]


@dataclass(frozen=True)
class RegisteredBackend(Registration):
    """A backend of a plugin."""

    make: Callable[..., Any]
    """`f(options)`: the engine, in the Python that has the framework."""
    framework: str
    """The module whose Python it needs."""
    python: Path | None
    """That Python; None where it is found as those of other backends are."""
    devices: str
    precisions: str


KIND_NAMES: dict[type[Registration], str] = {
    RegisteredLoss: "loss",
    RegisteredMetric: "metric",
    RegisteredSchedule: "schedule",
    RegisteredOptimizer: "optimizer",
    RegisteredSink: "sink",
    RegisteredTask: "task",
    RegisteredKind: "kind of task",
    RegisteredFamily: "family",
    RegisteredBackend: "backend",
}
"""What people call a registration."""


@dataclass(frozen=True)
class Registered:
    """What some plugins have registered together."""

    kinds: Mapping[type[Registration], Mapping[str, Any]] = field(default_factory=dict)
    """Kind -> name -> registration."""

    def of(self, kind: type[Registered_]) -> Mapping[str, Registered_]:
        """Those of a kind, by name."""
        return self.kinds.get(kind, {})

    @property
    def losses(self) -> Mapping[str, RegisteredLoss]:
        """The losses by name."""
        return self.of(RegisteredLoss)

    @property
    def metrics(self) -> Mapping[str, RegisteredMetric]:
        """The metrics by name."""
        return self.of(RegisteredMetric)

    @property
    def tasks(self) -> Mapping[str, RegisteredTask]:
        """The tasks by name."""
        return self.of(RegisteredTask)

    @property
    def own_kinds(self) -> Mapping[str, RegisteredKind]:
        """The kinds of tasks by name."""
        return self.of(RegisteredKind)

    @property
    def terms(self) -> tuple[type[LossTerm], ...]:
        """The classes of the loss terms."""
        return tuple(loss.term for loss in self.losses.values())

    @property
    def all(self) -> tuple[Registration, ...]:
        """Everything, in one order."""
        return tuple(each for kind in KIND_NAMES for each in self.of(kind).values())

    def describe(self) -> str:
        """`loss a, loss b, metric c`."""
        return ", ".join(f"{KIND_NAMES[type(each)]} {each.name}" for each in self.all)


NOTHING = Registered()
"""Of no plugin."""

BACKENDS: dict[str, RegisteredBackend] = {}
"""The backends of the plugins that this process has loaded, by name."""

RECORDS: dict[str, list[Registration]] = {}
"""Module -> what its code has registered while it was imported, whoever imported it."""


def gathered(registrations: Iterable[Registration]) -> Registered:
    """By kind and name."""
    found: dict[type[Registration], dict[str, Registration]] = {}
    for each in registrations:
        found.setdefault(type(each), {})[each.name] = each
    return Registered(found)
