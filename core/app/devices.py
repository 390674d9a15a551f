"""`--devices N`: N processes of this machine, one a device, that run the command together.

They get the variables that the framework's own launcher would give them (torchrun's, which are OneFlow's too, and msrun's), but
are started from here: so a process that ends is known at once, with its signal, all others end within seconds, and what is
said is one line; and Ctrl-C reaches only one process, which agrees with the others. The frameworks' own launchers, started
around `crossdistil run`, work as well (`core.app.launchers`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, NoReturn

from ...backends.registry import load_module
from ..errors import MESSAGE_PREFIX, CrossdistilError
from ..processes import child_environment, ending, python_command
from ..threads import number as thread_count
from ..world import Place

LAUNCHED = "CROSSDISTIL_LAUNCHED"
"""Set for processes that were started from here."""
_POLL_SECONDS = 0.05
_GRACE_SECONDS = 5.0
"""How long the others may take to end after one has."""


def number_of(devices: str | None, backend: str, device: str | None) -> int:
    """How many processes `--devices` asks for: a number, or `all`. Raises CrossdistilError."""
    if devices is None:
        return 1
    if devices == "all":
        kind = (device or "").partition(":")[0]
        found = load_module(backend, "engine").count_devices(kind or None)
        if not found:
            raise CrossdistilError(f"--devices all: {backend} has no devices to count here; give a number of processes")
        return found
    if not _is_number(devices):
        raise CrossdistilError(f"--devices {devices[:40]}: expected a number from 1, or all")
    return int(devices)


def numbers_of(devices: str) -> tuple[int, ...]:
    """The numbers of processes that a list with commas asks for, each once, the smallest first. Raises CrossdistilError."""
    texts = [text.strip() for text in devices.split(",")]
    if not all(map(_is_number, texts)):
        raise CrossdistilError(f"--devices {devices[:40]}: expected numbers from 1 with commas between them, like 1,2")
    return tuple(sorted({int(text) for text in texts}))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 1 <= int(text) <= 4096


def refuse_devices(place: Place, devices: str | None) -> None:
    """Raise CrossdistilError where a process of a launcher is asked to start processes of its own."""
    if devices is not None and place.size > 1 and LAUNCHED not in os.environ:
        raise CrossdistilError(
            f"--devices {devices}: {place.launcher} has started this as one of {place.size} processes already; leave --devices out"
        )


def run_together(count: int, backend: str, text: str | None = None) -> NoReturn:
    """Run this very command in `count` processes of this machine and end as they do; `text` is their standard input."""
    environment = {**child_environment(), LAUNCHED: "1"}
    environment["OMP_NUM_THREADS"] = str(max(1, thread_count() // count)) if "OMP_NUM_THREADS" not in os.environ else os.environ["OMP_NUM_THREADS"]
    with _Processes(_variables(backend, count), environment, text) as processes:
        code = processes.wait()
    sys.exit(code)


def _variables(backend: str, count: int) -> list[dict[str, str]]:
    """What the framework's launcher would put into the environment of each process."""
    port = str(_free_port())
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class _Processes:
    """The processes of one command. The first one has this process's output; what the others print before they have a log of
    their own is kept, and shown where nobody else says why they ended."""

    def __init__(self, variables: Sequence[dict[str, str]], environment: dict[str, str], text: str | None):
        self._variables, self._environment, self._text = variables, environment, text
        self._processes: list[subprocess.Popen] = []
        self._errors: list[IO[str]] = []
        self._signals = 0

    def __enter__(self) -> _Processes:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)
        for rank, own in enumerate(self._variables):
            errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
            others: dict[str, Any] = {} if rank == 0 else {"stdout": subprocess.DEVNULL, "stderr": errors}
            process = subprocess.Popen(
                python_command(sys.executable, "crossdistil", *sys.argv[1:]),
                env={**self._environment, **own},
                stdin=subprocess.DEVNULL if self._text is None else subprocess.PIPE,
                text=True,
                start_new_session=True,  # a terminal's Ctrl-C comes here only
                **others,
            )
            self._processes.append(process)
            self._errors.append(errors)
        for process in self._processes if self._text is not None else ():
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(self._text)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        for errors in self._errors:
            errors.close()

    def wait(self) -> int:
        """Wait until all have ended, or a moment longer than the first that failed; returns the exit code."""
        failed: int | None = None
        deadline = float("inf")
        while any(process.poll() is None for process in self._processes) and time.monotonic() < deadline:
            if failed is None:
                failed = next((rank for rank, code in self._codes() if code), None)
                deadline = float("inf") if failed is None else time.monotonic() + _GRACE_SECONDS
            time.sleep(_POLL_SECONDS)
        first = self._processes[0].poll()
        if failed is None:
            failed = next((rank for rank, code in self._codes() if code), None)
        if failed is None:
            return 0
        if first is not None and first > 0:  # it has said why, for all
            return first
        code = self._processes[failed].returncode
        for line in self._said(failed) or [f"ended with {ending(code)}; --resume goes on from the last saved state"]:
            print(f"{MESSAGE_PREFIX}rank {failed} of {len(self._processes)}: {line}", file=sys.stderr)
        return code if code > 0 else 1

    def _codes(self) -> Iterator[tuple[int, int]]:
        return ((rank, process.returncode) for rank, process in enumerate(self._processes) if process.poll() is not None)

    def _said(self, rank: int) -> list[str]:
        """The errors that a process wrote, without our own prefix."""
        self._errors[rank].seek(0)
        lines = self._errors[rank].read().splitlines()
        return [line.removeprefix(MESSAGE_PREFIX) for line in lines if line.startswith(MESSAGE_PREFIX)]

    def _pass_on(self, number: int, frame: object) -> None:
        """The first signal goes to the first process, which agrees with the others where to stop; another one ends all."""
        self._signals += 1
        for process in self._processes[: 1 if self._signals == 1 else None]:
            if process.poll() is None:
                process.send_signal(number)
