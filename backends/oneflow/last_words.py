"""How a OneFlow process that is one of several ends.

When another process dies, OneFlow's own threads find a closed socket, print a C++ stack trace and abort the process, before
anyone can say which one it was that died: `core.peers` knows it, says it in one line and ends this process a second later. So
what C++ prints is held back for some seconds, and an abort is put off for a few more; where nothing else has ended the process by
then, all is shown and the process aborts.

At the end OneFlow waits for all processes to end, which they do together when all has gone well. After an error nobody is waited
for: where another process is gone, OneFlow would turn every exit code into an abort.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import tempfile
import threading
import time
from typing import IO

from ...core.processes import ExitCode

_POLL_SECONDS = 0.5
_HELD_SECONDS = 4.0
"""More than `core.peers` needs, and less than an abort is put off."""


def end_as_one_of_several() -> None:
    """From now on, file descriptor 2 is C++'s alone, and `sys.stderr` is where it was before."""
    _put_off_aborts()
    sys.stderr.flush()
    before = os.dup(2)
    sys.stderr = open(before, "w", encoding=sys.stderr.encoding, errors=sys.stderr.errors, buffering=1)
    printed = tempfile.TemporaryFile("a+b", buffering=0)
    os.dup2(printed.fileno(), 2)
    shown = _Shown(printed)
    threading.Thread(target=shown.watch, name="crossdistil-last-words", daemon=True).start()
    atexit.register(_end, ExitCode(), shown)


def _put_off_aborts() -> None:
    """A thread that aborts first sleeps; the others go on meanwhile. No Python can run in a signal handler of such a thread, but
    a function of the C library can: it is called with the number of the signal, and `sleep` takes SIGABRT's 6 for seconds."""
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


class _Shown:
    """What was written to a file, and how much of it was shown."""

    def __init__(self, printed: IO[bytes]):
        self._printed, self._length = printed, 0
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Show what is new when it is some seconds old."""
        since: float | None = None
        while True:
            time.sleep(_POLL_SECONDS)
            if os.fstat(self._printed.fileno()).st_size == self._length:
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since > _HELD_SECONDS:
                self.show()

    def show(self) -> None:
        """Show what is new."""
        with self._lock:
            new = os.pread(self._printed.fileno(), 1 << 20, self._length)
            self._length += len(new)
        sys.stderr.write(new.decode(errors="replace"))
        sys.stderr.flush()


def _end(exit_code: ExitCode, shown: _Shown) -> None:
    if exit_code.code:  # which has been explained
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code.code)
    shown.show()
