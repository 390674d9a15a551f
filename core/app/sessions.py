"""Using a model in one process or in several: they meet before anything is read, so that what is wrong is said once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ...backends.registry import load_engine
from ..engine import Engine, EngineOptions
from ..world import World
from .joining import ending_together, join

Tell = Callable[[str], None]
"""Where something that a person should know is said."""


@dataclass(frozen=True)
class Session:
    """The processes, and how this one gets its engine: one process alone loads a framework only when it needs it."""

    world: World
    engine: Callable[[], Engine]

    def teller(self, tell: Tell | None) -> Tell | None:
        """`tell` in the first process; in the others nothing is said."""
        return tell if self.world.rank == 0 else _unsaid


def _unsaid(line: str) -> None:
    """The first process says it."""


@contextlib.contextmanager
def session(backend: str, options: EngineOptions) -> Iterator[Session]:
    """The processes of a command, which end together. Raises CrossdistilError."""
    if options.place.size == 1:
        yield Session(World(), lambda: load_engine(backend, options))
        return
    engine = load_engine(backend, options)
    world = join(engine)
    with ending_together(world, options.place):
        yield Session(world, lambda: engine)
