"""The processes of this machine that one command has started, from their start to their end.

The first process of the run has this process's output, and speaks for all. What another one prints before it has a log of its own
is kept, and shown where nobody else says why the run ended.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

from ..errors import MESSAGE_PREFIX
from ..peers import LOST
from ..processes import ending, python_command
from .error_lines import what_is_left

_POLL_SECONDS = 0.05
_GRACE_SECONDS = 3.0
"""How long the others may take to end after one has, or all after a second signal."""
_LAST_SECONDS = 60.0
"""The same after the first one has ended well."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SPOKEN = (1, 2, 130, 141, 143)
"""The exit codes with which a command has said why; with others it was ended by what it ran."""


class Started:
    """Use it as a context manager: when it is left, none of the processes is there any more."""

    def __init__(
        self,
        variables: Sequence[dict[str, str]],
        environment: dict[str, str],
        text: str | None,
        size: int,
        reads_input: bool = False,
    ):
        """`variables` are those of each process, `environment` what all have, `text` their standard input, which the first one
        has from here if it `reads_input`; `size` counts the processes of all machines."""
        self._reads_input = reads_input
        self._variables, self._environment, self._text, self._size = variables, environment, text, size
        self._processes: list[subprocess.Popen] = []
        self._errors: list[IO[str]] = []
        self._signals: list[int] = []
        self._before: dict[int, Any] = {}
        self._deadline = float("inf")

    def __enter__(self) -> Started:
        self._before = {number: signal.signal(number, self._pass_on) for number in _SIGNALS}
        # A signal that comes while a process is still importing waits until it can be handled.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            for own in self._variables:
                self._start(own)
        except BaseException:
            self.__exit__()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for process in self._processes if self._text is not None else ():
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(self._text)
        return self

    def _start(self, own: dict[str, str]) -> None:
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._errors.append(errors)
        first = own["RANK"] == "0"
        others: dict[str, Any] = {} if first else {"stdout": subprocess.DEVNULL, "stderr": errors}
        nothing = None if first and self._reads_input else subprocess.DEVNULL
        process = subprocess.Popen(
            python_command(sys.executable, "crossdistil", *sys.argv[1:]),
            env={**self._environment, **own},
            stdin=nothing if self._text is None else subprocess.PIPE,
            text=True,
            start_new_session=True,  # a terminal's Ctrl-C comes here only
            **others,
        )
        self._processes.append(process)

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for errors in self._errors:
            errors.close()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self) -> int:
        """Wait until all have ended, or a moment longer than the first that failed; says why they ended where nobody else
        does, and returns the exit code."""
        failed: int | None = None
        while any(process.poll() is None for process in self._processes) and time.monotonic() < self._deadline:
            if failed is None and (failed := self._blamed()) is not None:
                self._deadline = min(self._deadline, time.monotonic() + _GRACE_SECONDS)
            elif self._first() == 0:  # a framework may hang at its end
                self._deadline = min(self._deadline, time.monotonic() + _LAST_SECONDS)
            time.sleep(_POLL_SECONDS)
        failed, first = self._blamed(failed), self._first()
        if failed is None and not any(process.poll() is None for process in self._processes):
            return 0
        if first == 0:  # nothing was left to be done
            return 0
        if self._signals and (failed is None or first is None or first < 0):
            number = self._signals[0]
            what = "terminated" if number == signal.SIGTERM else "interrupted"
            print(f"crossdistil: {what}; {what_is_left()}", file=sys.stderr)
            return 128 + number
        if first in _SPOKEN:  # it has said why, for all
            return first
        return self._told(failed)

    def _first(self) -> int | None:
        """The exit code of the run's first process, if it was started here and has ended."""
        return self._processes[0].poll() if self._variables[0]["RANK"] == "0" else None

    def _blamed(self, before: int | None = None) -> int | None:
        """Which of those that have ended badly so far is to blame, if one has: that which was blamed `before`, or else the first.
        It is another one where that was ended by the loss of a peer, which may be seen to end later, and where it exited without
        a word and another one has said why."""
        codes = {index: process.returncode for index, process in enumerate(self._processes) if process.poll()}
        own = [index for index, code in codes.items() if code != LOST]
        blamed = before if before in own else next(iter(own or codes), None)
        if blamed is None or codes[blamed] < 0 or any(self._said(blamed)):
            return blamed
        return next((index for index in own if codes[index] > 0 and any(self._said(index))), blamed)

    def _told(self, failed: int) -> int:
        """Say why the run ended, as the process does that is to blame, or for it; returns the exit code."""
        code, rank = self._processes[failed].returncode, self._variables[failed]["RANK"]
        who = f"rank {rank} of {self._size}: "
        lines = list(self._said(failed)) if code > 0 else []
        for line in lines or [f"ended with {ending(code)}{_why(code)}; {what_is_left()}"]:
            print(f"{MESSAGE_PREFIX}{'' if line.startswith('rank ') else who}{line}", file=sys.stderr)
        return code if code in (2, 130, 143) else 1

    def _said(self, index: int) -> Iterator[str]:
        """The errors that a process wrote, without our own prefix."""
        self._errors[index].seek(0)
        for line in self._errors[index].read().splitlines():
            if line.startswith(MESSAGE_PREFIX):
                yield line.removeprefix(MESSAGE_PREFIX)

    def _pass_on(self, number: int, frame: object) -> None:
        """The first signal goes to the first process, which agrees with the others where to stop; another one ends all."""
        self._signals.append(number)
        for process in self._processes[: 1 if len(self._signals) == 1 else None]:
            if process.poll() is None:
                process.send_signal(number)
        if len(self._signals) > 1:  # also what does not listen: it may be inside its framework
            self._deadline = min(self._deadline, time.monotonic() + (_GRACE_SECONDS if len(self._signals) == 2 else 0))


def _why(code: int) -> str:
    return " (the system sends it where memory runs out)" if code == -signal.SIGKILL else ""
