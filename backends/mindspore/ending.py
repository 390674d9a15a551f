"""How a MindSpore process that is one of several ends: with its exit code, whatever MindSpore does when it is unloaded.

MindSpore's own exit functions crash now and then, after a run that is whole. They free the connections to the others
(`TCPClient::Finalize`) before they stop the thread that reads them, which now and then reads what is freed (SIGSEGV). What comes
after that, the freeing of what its library holds, crashes too and takes seconds. So they are left out.

Under msrun a worker has to take leave all the same: one that does not is dead to the scheduler, which then fails. It takes that
leave alone, when its exit code is decided and all is said, on another thread than the one that ends the process: a crash there
does not matter any more. The scheduler has MindSpore's exit functions: in them it waits for the workers.

This module is imported before MindSpore: exit functions are called in the reverse order of their registration, so that the `_end`
that is registered here comes after MindSpore's.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

from ...core.processes import ExitCode

_LEAVE_SECONDS = 20.0
"""How long a leave may take, which takes up to five seconds. After a crash in it the process ends so much later."""
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT)

_code: ExitCode | None = None


def end_as_one_of_several(leave: Callable[[], object] | None = None) -> None:
    """From now on, this process ends without MindSpore's exit functions. `leave`, a function of C, takes leave of a scheduler."""
    _keep_code()
    taken = None if leave is None else _Leave(leave)
    # What is registered now is called before MindSpore's: all is said, and what it logs at its end is not for the terminal.
    atexit.register(_end)
    if taken is not None:
        atexit.register(taken.take)
    atexit.register(_fall_silent)


def end_by_exit_functions() -> None:
    """From now on, this process ends by MindSpore's exit functions, as a scheduler must, and then with its exit code."""
    _keep_code()
    atexit.register(_fall_silent)


def _keep_code() -> None:
    global _code
    _code = _code or ExitCode()


class _Leave:
    """A leave that is taken by a thread: which waits from now on, since exit functions cannot start one from Python 3.12 on."""

    def __init__(self, leave: Callable[[], object]):
        self._leave, self._asked = leave, threading.Event()
        self._thread = threading.Thread(target=self._run, name="crossdistil-leave", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._asked.wait()
        self._leave()

    def take(self) -> None:
        """Take leave, for `_LEAVE_SECONDS` at most. A thread that crashes meanwhile stays where it is: no Python can run in its
        signal handler, but `pause` of the C library can."""
        library = ctypes.CDLL(None)
        library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        for number in _CRASHES:
            library.signal(number, ctypes.cast(library.pause, ctypes.c_void_p))
        self._asked.set()
        self._thread.join(_LEAVE_SECONDS)


def _fall_silent() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _end() -> None:
    if _code is not None:
        os._exit(_code.code)


atexit.register(_end)
