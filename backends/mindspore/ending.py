"""How a MindSpore process that is one of several ends: with its exit code, whatever MindSpore does when it is unloaded.

Under msrun MindSpore's own exit functions take leave of the other processes (a worker that does not is dead to its scheduler,
which then fails). What comes after them, the freeing of what its library holds, crashes now and then (exit code 139 after a run
that is whole) and takes seconds: it is left out.

Where the processes met without a scheduler, nobody waits for that leave, and it is left out too: it frees the connections to the
others (`TCPClient::Finalize`) before it stops the thread that reads them, so that now and then that thread reads what is freed,
and a run that is whole ends by SIGSEGV.

This module is imported before MindSpore: exit functions are called in the reverse order of their registration, so that the `_end`
that is registered here comes after MindSpore's.
"""

from __future__ import annotations

import atexit
import os
import sys

from ...core.processes import ExitCode

_code: ExitCode | None = None


def end_as_one_of_several(takes_leave: bool) -> None:
    """From now on, this process ends so; `takes_leave` says whether MindSpore's exit functions are called."""
    global _code
    _code = _code or ExitCode()
    # What is registered now is called before MindSpore's: all is said, and what it logs at its end is not for the terminal.
    if not takes_leave:
        atexit.register(_end)
    atexit.register(_fall_silent)


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
