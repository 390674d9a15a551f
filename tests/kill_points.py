"""Commands that are killed at each of their file operations, one after the other: a fork for each, no interpreter to start.

A point is an operation below a folder: a file opened to be written, a name made, changed or removed, a lock taken, a flush (once
before it, once with half of the file gone, as after a write that was cut short). Behind `steps_told` the begin of a training step
is one too. The process is killed right before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from crossdistil.core.app import cli
from crossdistil.core.world import World

_NAMES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink", "fcntl.flock", "open"}
_STEP = "crossdistil.step"


class _Points:
    """Counts the points below `folder`, and kills this process right before point `number`."""

    def __init__(self, folder: Path, number: int):
        self._folder, self._number, self._count = str(folder), number, 0
        self._first_step = 0
        self._fsync, os.fsync = os.fsync, self._flush
        sys.addaudithook(self._seen)

    def _seen(self, event: str, arguments: tuple) -> None:
        if event == _STEP:
            self._point()
            self._first_step = self._first_step or self._count
        if event not in _NAMES:
            return
        if event == "open" and not _writes(arguments[1], arguments[2]):
            return
        if any(self._below(path, arguments) for path in arguments[:2]):
            self._point()

    def _below(self, path: object, arguments: tuple) -> bool:
        if isinstance(path, int) and not isinstance(path, bool):
            with contextlib.suppress(OSError):
                return os.readlink(f"/proc/self/fd/{path}").startswith(self._folder)
            return False
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        text = os.fsdecode(path)
        # Names of an open folder, as shutil.rmtree uses them, have its descriptor last.
        folder = arguments[-1]
        if not os.path.isabs(text) and isinstance(folder, int) and folder >= 0:
            with contextlib.suppress(OSError):
                text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
        return os.path.abspath(text).startswith(self._folder)

    def _flush(self, descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.startswith(self._folder):
            if os.path.isfile(path) and self._count + 1 == self._number:
                with open(path, "rb") as file:
                    half = file.read()[: os.path.getsize(path) // 2]
                with contextlib.suppress(OSError):
                    file_descriptor = os.open(path, os.O_RDWR)  # itself a point: the last one
                    os.ftruncate(file_descriptor, len(half))
            self._point()
            self._point()
        self._fsync(descriptor)

    def _point(self) -> None:
        self._count += 1
        if self._count == self._number:
            os.kill(os.getpid(), signal.SIGKILL)


def _writes(mode: object, flags: object) -> bool:
    if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return True
    return isinstance(mode, str) and bool(set(mode) & set("wax+"))


def command(*arguments: object) -> Callable[[], None]:
    """`crossdistil ARGUMENTS` in this process."""

    def run() -> None:
        sys.argv = ["crossdistil", *map(str, arguments)]
        cli.main()

    return run


def steps_told() -> None:
    """From now on, each step that begins in this process or its forks is a point."""
    plain = World.proceed

    def proceed(world: World, step: int) -> bool:
        sys.audit(_STEP, step)
        return plain(world, step)

    World.proceed = proceed


def killed_at(folder: Path, number: int, run: Callable[[], None], log: Path) -> bool:
    """Whether `run`, in a fork, was killed at that point below `folder`; without, it must have ended well. What it printed is
    in `log`."""
    code = forked(run, log, lambda: _Points(folder, number))
    assert code in (0, -signal.SIGKILL), f"point {number}: ended with {code}\n{log.read_text(errors='replace')}"
    return code != 0


def counted(folder: Path, run: Callable[[], None], log: Path) -> tuple[int, int]:
    """How many points `run`, in a fork, has below `folder`, and which is its first step, if any; it must end well."""
    made, (reads, writes) = [], os.pipe()

    def work() -> None:
        try:
            run()
        finally:
            os.write(writes, f"{made[0]._count} {made[0]._first_step}".encode())

    code = forked(work, log, lambda: made.append(_Points(folder, 0)))
    assert code == 0, f"ended with {code}\n{log.read_text(errors='replace')}"
    os.close(writes)
    with os.fdopen(reads) as pipe:
        count, first = map(int, pipe.read().split())
    return count, first


def forked(run: Callable[[], None], log: Path, before: Callable[[], object] = lambda: None) -> int:
    """Exit code of `run` in a fork, or the negative number of the signal that ended it."""
    process = os.fork()
    if process == 0:
        code = 70
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(output, 1), os.dup2(output, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            before()
            run()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def points(step: int = 1) -> Iterator[int]:
    """1, 1 + step, ..., until the caller breaks off."""
    return itertools.count(1, step)


def content(folder: Path) -> dict[str, str]:
    """Every file's SHA-256 and every folder below a folder, by name."""
    return {
        str(path.relative_to(folder)): "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
    }
