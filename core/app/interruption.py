"""Ctrl-C and SIGTERM (what schedulers send before they take a machine away) while a run trains: the first asks it to save and
stop after the step that is under way (of MindSpore's sinks: after the sink), the second stops it at once.

Once MindSpore has compiled a graph, a handler of its own answers Ctrl-C with SIGTERM to the process, which comes here like any
other: the same is saved, and the exit code is that of SIGTERM.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import Any

from ..world import World


class Saved(SystemExit):
    """The run was asked to end, has saved, and has said so."""


class Interruption:
    """Use it as a context manager around the training; the signal asks the world to stop. Elsewhere than in the main thread,
    where Python has no signals, it never does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self._restore()
        # Another process may be the one that got the signal.
        if isinstance(error, KeyboardInterrupt) and str(error) and self._world.asked == signal.SIGTERM:
            print(f"crossdistil: terminated; {error}", file=sys.stderr)
            raise Saved(128 + signal.SIGTERM)

    def _ask(self, number: int, frame: object) -> None:
        self._world.ask_to_stop(number)
        self._restore()
        print("crossdistil: saving after the step that is under way; once more stops at once", file=sys.stderr)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
