"""Locks between processes, by the operating system: they end with the process that holds them, however it ends.

A lock file is removed by the last process that held it, and only while it holds it: whoever locked a file that is no longer the
one of that name tries again, so that two processes never hold "the" lock. Where a file system has no locks (some network
file systems), that is told in one line, and the work goes on unprotected.

What several processes need and one is enough to make (`made_by_one`) has a lock beside it while it is made.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EBADF})
"""What flock answers where there are no locks, or none of that kind."""

_MAKING = ".making"
_PATIENCE_SECONDS = 5.0
"""How long a process waits for another one before it says so."""
_POLL_SECONDS = 0.02


class Lock:
    """A lock file that is held until `release`."""

    def __init__(self, path: Path, descriptor: int, shared: bool):
        self._path, self._shared = path, shared
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give it back, if it was not yet, and remove the file unless others hold it too."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._shared:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(self._descriptor, self._path):
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = None


def lock_file(path: Path, shared: bool = False, wait: bool = False, needed: bool = True) -> Lock:
    """Lock `path`, which is made where it is missing. Raises BlockingIOError where another process holds it and `wait` is not
    given, and OSError where the file cannot be made. That there are no locks is told unless they are not `needed`."""
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, kind)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(descriptor)
                raise
            if needed:
                logging.getLogger(__name__).warning(
                    "%s: this file system has no locks (%s): see to it that no other process works there",
                    path.parent,
                    error.strerror,
                )
            return Lock(path, descriptor, shared)
        except BaseException:
            os.close(descriptor)
            raise
        if _is(descriptor, path):
            return Lock(path, descriptor, shared)
        os.close(descriptor)  # of a file that its last holder removed meanwhile


@contextlib.contextmanager
def made_by_one(target: Path) -> Iterator[None]:
    """While the block runs, no other process is in such a block for the same target: whoever had to wait finds it made. Where
    there are no locks, or nothing can be written, nobody waits."""
    lock = _maker(target)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _maker(target: Path) -> Lock | None:
    path = _lock_of(target)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        until = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                return lock_file(path, needed=False)
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
        logging.getLogger(__name__).warning("%s: another process is making it; this one waits", target)
        return lock_file(path, wait=True, needed=False)
    return None


def is_maker(name: str) -> bool:
    """Whether a file is called as the locks of those that make something are."""
    return name.startswith(".") and name.endswith(_MAKING)


def forget_makers(folder: Path) -> None:
    """Remove the locks in a folder that were left by processes that were killed."""
    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if is_maker(path.name)]:
            with contextlib.suppress(OSError):
                lock_file(path, needed=False).release()


def _lock_of(target: Path) -> Path:
    return target.with_name(f".{target.name}{_MAKING}")


_in_use: dict[tuple[int, int], int] = {}  # device and inode of folders -> descriptor that holds the lock


def hold_folder(folder: Path) -> bool:
    """Say that this process uses a folder, until it ends. Returns whether the folder is there; where it cannot be locked, it is
    used without."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    state = os.fstat(descriptor)
    if (state.st_dev, state.st_ino) in _in_use:
        os.close(descriptor)
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a process that is removing it
    except OSError:
        os.close(descriptor)
        return True
    if not _is(descriptor, folder):
        os.close(descriptor)
        return False
    _in_use[state.st_dev, state.st_ino] = descriptor
    return True


@contextlib.contextmanager
def claim_folder(folder: Path) -> Iterator[bool]:
    """Whether no other process uses a folder (`hold_folder`); while the block runs, none begins to, and this one does not any
    more. Raises OSError where the folder cannot be opened."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        state = os.fstat(descriptor)
        own = _in_use.pop((state.st_dev, state.st_ino), None)
        if own is not None:
            os.close(own)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        yield True
    finally:
        os.close(descriptor)


def _is(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one of that name."""
    try:
        found, opened = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)
