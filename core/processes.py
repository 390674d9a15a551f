"""Processes that a command starts: they import nothing from the current folder, they end with the command, however it ends, and
what it is told to do reaches them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_PARENT = "CROSSDISTIL_PARENT"
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_POLL_SECONDS = 1.0


def python_command(python: Path | str, module: str, *arguments: str) -> list[str]:
    """The command line that has an interpreter run a module as `python -m` does, but without the current folder at the head of
    its module path: there, anyone's typer.py or json.py would be executed in place of the library. `-I` would drop the user's
    PYTHONPATH too, and Python 3.10 knows neither `-P` nor PYTHONSAFEPATH."""
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [*code_command(python, run), *arguments]


def code_command(python: Path | str, code: str) -> list[str]:
    """The same for a program that is given as text."""
    return [str(python), "-c", f"import sys; sys.path[:] = sys.path[sys.path[:1] == ['']:]; {code}"]


def child_environment() -> dict[str, str]:
    """The environment of a process that shall end with this one; it calls `end_with_parent`."""
    return {**os.environ, _PARENT: str(os.getpid())}


def ending(code: int) -> str:
    """How a process ended, in words, by the code that `subprocess` gives."""
    return f"exit code {code}" if code > 0 else f"signal {signal.Signals(-code).name}"


class ExitCode:
    """With which exit code this process ends, from now on, which Python does not tell its exit functions."""

    def __init__(self) -> None:
        self.code = 0
        self._exit, self._hook = sys.exit, sys.excepthook
        sys.exit, sys.excepthook = self._asked, self._raised

    def _asked(self, code: object = None) -> None:
        self.code = code if isinstance(code, int) else int(code is not None)
        self._exit(code)

    def _raised(self, *error) -> None:
        self.code = 1
        self._hook(*error)


def end_with_parent() -> None:
    """From now on this process is killed when the one that started it ends, if that gave it `child_environment`."""
    parent = os.environ.pop(_PARENT, "")
    if not parent.isdecimal():
        return
    if sys.platform == "linux" and ctypes.CDLL(None).prctl(_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0) == 0:
        if os.getppid() != int(parent):  # it was faster
            os._exit(1)
        return
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


class Forwarded:
    """Ctrl-C and SIGTERM go to another process while this one waits for it, which then decides when to end. The process must
    have been started in a session of its own, or a terminal's Ctrl-C would reach it twice. Use it as a context manager;
    elsewhere than in the main thread, where Python has no signals, it does nothing."""

    def __init__(self, process: subprocess.Popen):
        self._process = process
        self._before: dict[int, Any] = {}
        self.number: int | None = None
        """The signal that came, if one did."""

    def __enter__(self) -> Forwarded:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _pass_on(self, number: int, frame: object) -> None:
        self.number = number
        self._process.send_signal(number)
