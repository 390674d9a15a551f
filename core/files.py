"""Writing that leaves either the old or the new thing, never half of one: written in a workplace, flushed to the disk, then put
in its place in one step. What it is flushed in: files, the folders that hold them, and after the step the folder around it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from .errors import RunFolderError
from .workplaces import PREVIOUS, workplace

_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2)
_HERE = -100  # AT_FDCWD
# What a system's own words leave open.
_HINTS = {
    errno.ENOSPC: "make room, or choose another folder",
    errno.EDQUOT: "make room, or choose another folder",
    errno.EMFILE: "allow more with ulimit -n",
    errno.ENFILE: "close other programs",
    errno.ENOENT: "was a folder removed or moved meanwhile?",
    errno.ESTALE: "was a folder removed or moved meanwhile?",
}


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well, and is removed when not. At each instant
    the old or the new one is there (where the system cannot exchange two folders, the next command that writes there puts
    the old one back if it was killed in between). A symbolic link stays, and what it points to is replaced. Raises
    RunFolderError."""
    with clear_disk_errors(folder):
        place = Path(os.path.realpath(folder))
        if place.is_mount():
            raise RunFolderError(f"{folder}: cannot be replaced, since a file system is mounted there; choose a folder in it")
        make_folder(place.parent)
        with workplace(place) as working:
            temporary = working / place.name
            temporary.mkdir()
            yield temporary
            _flush_all(temporary)
            put_folder(temporary, place, working)
            flush(place.parent)


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary file name, whose file takes the place of `path` when the block ends well, and is removed when not. A
    symbolic link stays, and what it points to is replaced. Raises RunFolderError."""
    with clear_disk_errors(path):
        place = Path(os.path.realpath(path))
        make_folder(place.parent)
        with workplace(place) as working:
            temporary = working / place.name
            yield temporary
            flush(temporary)
            os.replace(temporary, place)
            flush(place.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one go."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace a safetensors file in one go."""
    with replace_file(path) as temporary:
        save_arrays(temporary, arrays)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file where it is, for use inside `replace_folder`."""
    # Not ascontiguousarray: it turns a counter into an array of one element.
    save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, so that they are still there after a power cut. Raises OSError."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in reversed(missing):
        flush(each.parent)


@contextlib.contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk refuses into a RunFolderError that names `path` and the reason."""
    try:
        yield
    except FileExistsError as error:  # where a folder is to be made
        raise RunFolderError(f"{path}: cannot be written: {error.filename} is a file") from error
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{path}: cannot be written: {_elsewhere(error, path)}{reason(error)}") from error


def reason(error: OSError | SafetensorError) -> str:
    """Why the disk refused, in a line."""
    text, number = getattr(error, "strerror", None), getattr(error, "errno", None)
    if text is None:  # safetensors reports a full disk as its own error, with the system's number in its text
        text = " ".join(str(error).split())
        if told := re.search(r"\(os error (\d+)\)", text):
            number = int(told[1])
            text = os.strerror(number)
    hint = _HINTS.get(number)
    return f"{text} ({hint})" if hint else text


def _elsewhere(error: OSError | SafetensorError, path: Path) -> str:
    """The file that an error is about, where it is none that is written here."""
    name = getattr(error, "filename", None)
    if name is None or isinstance(name, int):
        return ""
    found, own = Path(os.path.realpath(os.fsdecode(name))), Path(os.path.realpath(path))
    return "" if own.parent in (found, *found.parents) or found in own.parents else f"{os.fsdecode(name)}: "


def flush(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot flush folders
            raise
    finally:
        os.close(descriptor)


def _flush_all(folder: Path) -> None:
    """Everything in a folder, then the folder: what a name leads to is on the disk before the name is."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(root) / name)
        flush(Path(root))


def put_folder(new: Path, place: Path, working: Path) -> None:
    """Put a folder that was made in the workplace `working` in its place, what was there into the workplace. Raises OSError."""
    if not place.exists():
        os.rename(new, place)
    elif not _exchange(new, place):
        os.rename(place, working / PREVIOUS)
        os.rename(new, place)


def _exchange(one: Path, other: Path) -> bool:
    """Two names change what they stand for, in one step; False where the system cannot. Raises OSError."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    sys.audit("os.rename", one, other, _HERE, _HERE)
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(other))

