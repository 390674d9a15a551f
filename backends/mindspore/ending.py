"""How a MindSpore process that is one of several ends: with its exit code, whatever MindSpore does when it is unloaded.

MindSpore's own exit functions take leave of the other processes (a worker that does not is dead to its scheduler, which then
fails). What comes after them, the freeing of what its library holds, crashes now and then (exit code 139 after a run that is
whole) and takes seconds: it is left out.

This module is imported before MindSpore: exit functions are called in the reverse order of their registration, so that `_end`
comes after MindSpore's.
"""

from __future__ import annotations

import atexit
import os
import sys

from ...core.processes import ExitCode

_code: ExitCode | None = None


def end_as_one_of_several() -> None:
    """From now on, this process ends so."""
    global _code
    _code = _code or ExitCode()
    # Registered after MindSpore's, and so called before: all is said, and what MindSpore logs at its end is not for the terminal.
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
