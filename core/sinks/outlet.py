"""A sink beside the run: it gets its events in a thread of its own, so that no training waits for a network or a disk, and what
goes wrong with it ends no run. It is said once, in a line, and the run goes on; later events are tried all the same.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from ..errors import CrossdistilError
from ..events import Evaluated, Failed, Finished, Logged, Saved, Sink, Started
from ..plugin_errors import error_text, plugin_line

WAIT_SECONDS = 60.0
"""For how long the end of a run waits until a sink has taken everything."""


class Outlet(Sink):
    """A sink that is called in its own thread, except for `started`: one that cannot start is an error before the first step. One
    whose package puts signal handlers back when it ends (`ends_in_main_thread`) is told the end in the main thread, when the
    other has done its work."""

    def __init__(self, name: str, sink: Sink, tell: Callable[[str], None], files: Sequence[str] = ()):
        """`tell` says a line to the user; `files` are those of the plugin, of which errors name the line."""
        self._name, self._sink, self._tell, self._files = name, sink, tell, files
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._problem: str | None = None
        self._said = False

    def started(self, event: Started) -> None:
        """Raises CrossdistilError where the sink cannot start."""
        try:
            self._sink.started(event)
        except CrossdistilError as error:
            raise CrossdistilError(f"log.{self._name}: {error}") from error
        except Exception as error:
            raise CrossdistilError(f"log.{self._name}: cannot start: {self._text(error)}") from error
        self._thread = threading.Thread(target=self._work, name=f"log {self._name}", daemon=True)
        self._thread.start()

    def logged(self, event: Logged) -> None:
        self._put(lambda: self._sink.logged(event))

    def evaluated(self, event: Evaluated) -> None:
        self._put(lambda: self._sink.evaluated(event))

    def saved(self, event: Saved) -> None:
        self._put(lambda: self._sink.saved(event))

    def finished(self, event: Finished) -> None:
        self._end(lambda: self._sink.finished(event))

    def failed(self, event: Failed) -> None:
        self._end(lambda: self._sink.failed(event))

    def _put(self, call: Callable[[], None]) -> None:
        self._say()
        if self._thread is not None:
            self._events.put(call)

    def _end(self, call: Callable[[], None]) -> None:
        if self._thread is None:  # it never started
            return
        in_main = self._sink.ends_in_main_thread
        if not in_main:
            self._put(call)
        self._events.put(None)
        self._thread.join(WAIT_SECONDS)
        if self._thread.is_alive():
            self._problem = self._problem or f"has not taken everything after {WAIT_SECONDS:g} s"
        elif in_main:
            self._try(call)
        self._say()

    def _say(self) -> None:
        if self._problem is not None and not self._said:
            self._said = True
            self._tell(f"warning: log.{self._name}: {self._problem}; the run goes on, and this is said once")

    def _work(self) -> None:
        while (call := self._events.get()) is not None:
            self._try(call)

    def _try(self, call: Callable[[], None]) -> None:
        try:
            call()
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._problem = self._problem or self._text(error)

    def _text(self, error: BaseException) -> str:
        line = plugin_line(error, self._files)
        return f"{line}: {error_text(error)}" if line else error_text(error)
