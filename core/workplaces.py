"""The one place where temporaries are made: a folder beside what is written, which tells whether its maker still lives.

A workplace `NAME.tmp-PID-RANDOM` holds `.held`, a file that its maker keeps locked, and below it all that is not finished. The
next command that writes into the same folder removes the workplaces whose makers are dead, and never another. Where the file
system has no locks, the process that `.held` names is looked for.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from .locks import NO_LOCKS

TEMPORARY = ".tmp-"
PREVIOUS = ".previous"
"""What a workplace keeps while it is neither at its old place nor replaced."""
_HELD = ".held"
_NAME = re.compile(r".*\.tmp-\d+-[0-9a-f]{8}", re.DOTALL)
_LONGEST = 200  # characters of a target's name in the workplace's: names have at most 255


@contextlib.contextmanager
def workplace(target: Path) -> Iterator[Path]:
    """A new, empty folder beside `target` for this process, removed at the end with all that is in it. Dead ones go first.
    Raises OSError."""
    remove_dead(target.parent)
    folder, descriptor = _new(target)
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(descriptor)


def remove_dead(parent: Path) -> None:
    """Remove the workplaces in a folder whose makers are dead; what one had taken away and not yet replaced is put back."""
    with contextlib.suppress(OSError), os.scandir(parent) as found:
        dead = [Path(entry.path) for entry in found if TEMPORARY in entry.name and is_workplace(entry.name)]
        for folder in dead:
            _remove_if_dead(folder)


def is_workplace(name: str) -> bool:
    """Whether a folder is called as workplaces are."""
    return _NAME.fullmatch(name) is not None


def is_alive(folder: Path) -> bool:
    """Whether the maker of a workplace lives, as far as one can tell."""
    try:
        descriptor = os.open(folder / _HELD, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return _held(descriptor)
    finally:
        os.close(descriptor)


def _new(target: Path) -> tuple[Path, int]:
    """(a new workplace, the descriptor of its lock)."""
    note = json.dumps({**_here(), "pid": os.getpid(), "started": _started(os.getpid()), "target": target.name})
    while True:
        folder = target.with_name(f"{target.name[:_LONGEST]}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}")
        os.mkdir(folder)
        try:
            descriptor = os.open(folder / _HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # another process found it empty
            continue
        except OSError:
            os.rmdir(folder)
            raise
        try:
            with contextlib.suppress(OSError):  # without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if (folder / _HELD).exists():
                os.write(descriptor, note.encode())
                return folder, descriptor
            os.close(descriptor)
        except BaseException:
            _remove(folder)
            os.close(descriptor)
            raise


def _remove_if_dead(folder: Path) -> None:
    try:
        descriptor = os.open(folder / _HELD, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # not empty: none of ours
        return
    except OSError:
        return
    try:
        if not _held(descriptor):
            _put_back(folder, descriptor)
            _remove(folder)
    finally:
        os.close(descriptor)


def _held(descriptor: int) -> bool:
    """Whether another process holds the file; where nobody does, this one holds it now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            return True
        note = _note(descriptor)
        here = all(note.get(key) == value for key, value in _here().items())
        return not here or _started(note.get("pid")) == note.get("started")
    return False


def _note(descriptor: int) -> dict:
    try:
        return dict(json.loads(os.pread(descriptor, 1 << 16, 0)))
    except (OSError, ValueError, TypeError):
        return {}


def _put_back(folder: Path, descriptor: int) -> None:
    """What lies here because its new version was to take its place, and did not."""
    name = _note(descriptor).get("target")
    if not (folder / PREVIOUS).exists() or not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
        return
    target = folder.with_name(name)
    if not target.exists():
        os.rename(folder / PREVIOUS, target)


def _remove(folder: Path) -> None:
    """The content first, so that what is left of a removal that is killed is still told to be dead."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            if path.name != _HELD:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        if [path.name for path in folder.iterdir()] in ([_HELD], []):
            (folder / _HELD).unlink(missing_ok=True)
            folder.rmdir()


@functools.cache
def _here() -> dict[str, str]:
    """The machine, its start and the space of process numbers: a process number means something only there."""
    found = {"host": os.uname().nodename}
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        found["processes"] = os.readlink("/proc/self/ns/pid")
    return found


def _started(pid: object) -> str | None:
    """When a process began, in the kernel's ticks, or None where there is no such process."""
    if not isinstance(pid, int):
        return None
    try:
        # The second field is the program's name in brackets, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""
