"""A process that does part of a command's work: values go to it and come back as pickles over its standard streams.

It is started as a program, not by `multiprocessing`, which would run the caller's script once more, and which puts the current
folder first on the module path of what it starts.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ...errors import DataError
from ...processes import child_environment, end_with_parent, python_command


class WorkerProcess:
    """The module `module` in a process of its own, which calls `serve`. A context manager: at its end the process is ended."""

    def __init__(self, module: str, task: str, remedy: str):
        """`task` and `remedy`: what the process does, and what helps where it is ended from outside, as its error says them."""
        self._task, self._remedy = task, remedy
        pipe, command = subprocess.PIPE, python_command(sys.executable, module)
        self._process = subprocess.Popen(command, env=child_environment(), stdin=pipe, stdout=pipe)

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:  # something was still to be sent
            pass

    def send(self, value: Any) -> None:
        """Raises DataError if the process was ended."""
        try:
            pickle.dump(value, self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # a ValueError of a stream that is closed
            raise self._ended() from None

    def receive(self) -> Any:
        """The answer to the first value that has none yet; what was raised there is raised here. DataError if it was ended."""
        try:
            is_answer, value = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError, ValueError):
            raise self._ended() from None
        if not is_answer:
            raise value
        return value

    def _ended(self) -> DataError:
        code = self._process.wait()
        how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}, as happens when memory is short"
        return DataError(f"the process that {self._task} was ended with {how}; {self._remedy}")


def serve(prepare: Callable[[Any], Callable[[Any], Any]]) -> None:
    """The other process: `prepare` takes the first value and returns what answers all that follow, until there are no more."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends the work
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a library prints
    answer = prepare(pickle.load(sys.stdin.buffer))
    while True:
        try:
            value = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            reply = True, answer(value)
        except Exception as error:
            reply = False, error
        pickle.dump(reply, answers, pickle.HIGHEST_PROTOCOL)
        answers.flush()
