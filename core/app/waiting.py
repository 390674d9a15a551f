"""Says what a command is doing where that takes long: nothing of what is done within two seconds is told."""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE_SECONDS = 2.0


class Waiting:
    """Use it as a context manager around work that is told piece by piece with `doing`. `tell` is called from another thread,
    while the work goes on."""

    def __init__(self, tell: Callable[[str], None]):
        self._tell = tell
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Waiting:
        return self

    def __exit__(self, *_: object) -> None:
        self.done()

    def doing(self, text: str) -> None:
        """This begins, and what was done before has ended."""
        self.done()
        self._timer = threading.Timer(PATIENCE_SECONDS, self._tell, [f"{text} ..."])
        self._timer.daemon = True
        self._timer.start()

    def done(self) -> None:
        """Nothing is under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
