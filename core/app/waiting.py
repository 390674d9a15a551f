"""Says what a command is doing where that takes long: after two seconds what, then, ever more rarely, for how long already."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PATIENCE_SECONDS = 2.0


class Waiting:
    """Use it as a context manager around work that is told piece by piece with `doing`. `tell` is called from another thread,
    while the work goes on."""

    def __init__(self, tell: Callable[[str], None]):
        self._tell = tell
        self._ended: threading.Event | None = None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.done()

    def doing(self, text: str) -> None:
        """This begins, and what was done before has ended."""
        self.done()
        self._ended = threading.Event()
        threading.Thread(target=self._watch, args=(text, self._ended), daemon=True).start()

    def done(self) -> None:
        """Nothing is under way."""
        if self._ended is not None:
            self._ended.set()
            self._ended = None

    def _watch(self, text: str, ended: threading.Event) -> None:
        seconds, wait = 0.0, PATIENCE_SECONDS
        while not ended.wait(wait):
            self._tell(f"{text} ..." if not seconds else f"{text} ... for {seconds + wait:.0f} s so far")
            seconds += wait
            wait = 4 * seconds


@contextlib.contextmanager
def told_if_long(console: Console, text: str) -> Iterator[None]:
    """Around work that is one thing: what it is, where it takes long."""
    with Waiting(partial(console.print, markup=False)) as waiting:
        waiting.doing(text)
        yield
