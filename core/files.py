"""Writing that leaves either the old or the new thing, never half of one: temporary name, flush to disk, rename."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from .errors import RunFolderError

TEMPORARY = ".tmp-"


@contextlib.contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends well, and is removed when not."""
    with clear_disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}{TEMPORARY}", dir=folder.parent))
        try:
            # mkdtemp makes folders that only their owner reads; a result is as readable as any other new folder.
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            for path in temporary.iterdir():
                _flush(path)
            if folder.exists():
                # Two renames, since a folder cannot replace a folder that is not empty.
                old = Path(tempfile.mkdtemp(prefix=f"{folder.name}{TEMPORARY}", dir=folder.parent))
                os.rename(folder, old / "old")
                os.rename(temporary, folder)
                shutil.rmtree(old)
            else:
                os.rename(temporary, folder)
            _flush(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


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


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A temporary name beside the file `path`, which takes its place when the block ends well, and is removed when not."""
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}")
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turns what a disk refuses into a RunFolderError that names `path` and the reason."""
    try:
        yield
    except FileExistsError as error:  # where a folder is to be made
        raise RunFolderError(f"{path}: cannot be written: {error.filename} is a file") from error
    except (OSError, SafetensorError) as error:
        # safetensors reports a full disk as its own error, with the reason in its text.
        raise RunFolderError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left under temporary names in `folder`."""
    for path in folder.glob(f"*{TEMPORARY}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
