"""Ctrl-C and SIGTERM (what schedulers send before they take a machine away) while a run trains: the first asks it to save and
stop after the step that is under way (of MindSpore's sinks: after the sink), the second stops it at once.

Python runs a handler between two of its own instructions, from which one call of a framework may keep it for minutes. So a thread
is told of the signal as it comes: it says what is waited for, and ends the process, as SIGKILL would, if the second one cannot.

Once MindSpore has compiled a graph, a handler of its own answers Ctrl-C with SIGTERM to the process, which comes here like any
other: the same is saved, and the exit code is that of SIGTERM.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from typing import Any

from ..errors import CrossdistilError
from ..world import World
from .error_lines import Terminated

_TOGETHER_SECONDS = 0.5
"""Signals that come within it are one: a launcher may pass on what the terminal has sent too. By then a handler has run, unless
something keeps it from running."""
_AT_ONCE_SECONDS = 5.0


class Saved(SystemExit):
    """The run was asked to end, has saved, and has said so."""


class Interruption:
    """Use it as a context manager around the training; the signal asks the world to stop. Elsewhere than in the main thread,
    where Python has no signals, it never does."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before: dict[int, Any] = {}
        self._asked, self._over = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
            self._told, self._tells = os.pipe()
            os.set_blocking(self._tells, False)
            self._earlier = signal.set_wakeup_fd(self._tells, warn_on_full_buffer=False)
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        self._restore()
        self._over.set()
        if self._thread is not None:
            signal.set_wakeup_fd(self._earlier)
            os.close(self._tells)
            self._thread.join()
            os.close(self._told)
        # Another process may be the one that got the signal.
        if isinstance(error, KeyboardInterrupt) and str(error) and self._world.asked == signal.SIGTERM:
            print(f"crossdistil: terminated; {error}", file=sys.stderr)
            raise Saved(128 + signal.SIGTERM)
        if isinstance(error, Exception) and not isinstance(error, CrossdistilError) and self._asked.is_set():
            # A terminal's Ctrl-C goes to a compiler, too, that a framework has started, which then tells of an error.
            raise (Terminated(128 + signal.SIGTERM) if self._world.asked == signal.SIGTERM else KeyboardInterrupt()) from error

    def _ask(self, number: int, frame: object) -> None:
        self._asked.set()
        self._world.ask_to_stop(number)
        self._restore()
        print("crossdistil: saving after the step that is under way; once more stops at once", file=sys.stderr)

    def _watch(self) -> None:
        """Answer in the place of the main thread, while it is inside one long call."""
        came = 0
        while numbers := os.read(self._told, 64):
            asked = [number for number in numbers if number in (signal.SIGINT, signal.SIGTERM)]
            came += bool(asked)
            if asked and came == 1:
                self._over.wait(_TOGETHER_SECONDS)
                if select.select([self._told], [], [], 0)[0] and not self._over.is_set():
                    os.read(self._told, 64)
                if not self._asked.is_set():
                    print("crossdistil: stopping after the call that is under way; once more stops at once", file=sys.stderr)
            elif asked and not self._over.wait(_AT_ONCE_SECONDS):
                print("crossdistil: stopped at once, inside a call of the framework", file=sys.stderr, flush=True)
                os._exit(128 + asked[-1])

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
