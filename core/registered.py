"""What plugins have registered: losses and metrics by name, each with the line of the file that registers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .losses.base import LossTerm

KINDS = ("classification", "regression", "multi_label")
"""Of tasks, as a recipe's `task.kind` names them."""


@dataclass(frozen=True)
class Registration:
    """Something that a plugin registered."""

    name: str
    place: str
    """`FILE:LINE` of the call."""


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
class Registered:
    """What some plugins have registered together."""

    losses: Mapping[str, RegisteredLoss] = field(default_factory=dict)
    metrics: Mapping[str, RegisteredMetric] = field(default_factory=dict)

    @property
    def terms(self) -> tuple[type[LossTerm], ...]:
        """The classes of the loss terms."""
        return tuple(loss.term for loss in self.losses.values())

    @property
    def all(self) -> tuple[Registration, ...]:
        """Everything, in one order."""
        return (*self.losses.values(), *self.metrics.values())

    def describe(self) -> str:
        """`loss a, loss b, metric c`."""
        return ", ".join(f"{KIND_NAMES[type(each)]} {each.name}" for each in self.all)


NOTHING = Registered()
"""Of no plugin."""

KIND_NAMES: dict[type[Registration], str] = {RegisteredLoss: "loss", RegisteredMetric: "metric"}
"""What people call a registration."""

RECORDS: dict[str, list[Registration]] = {}
"""Module -> what its code has registered while it was imported, whoever imported it."""


def gathered(registrations: Iterable[Registration]) -> Registered:
    """By kind and name."""
    found: dict[type[Registration], dict[str, Any]] = {kind: {} for kind in KIND_NAMES}
    for each in registrations:
        found[type(each)][each.name] = each
    return Registered(found[RegisteredLoss], found[RegisteredMetric])
