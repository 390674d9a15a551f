"""Kinds of damage to a folder that a run wrote: `DAMAGES` of any file, and those of one file alone; and a disk that is full."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

Damage = Callable[[Path], None]


def flip(path: Path, place: float) -> None:
    """One bit, at a part of the file's length."""
    data = bytearray(path.read_bytes())
    data[min(len(data) - 1, int(len(data) * place))] ^= 4
    path.write_bytes(data)


def cut(path: Path, place: float) -> None:
    """Only the first part."""
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * place)])


def to_folder(path: Path) -> None:
    """A folder of the file's name."""
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Damage] = {
    "a bit at the begin": lambda path: flip(path, 0),
    "a bit in the middle": lambda path: flip(path, 0.5),
    "a bit at the end": lambda path: flip(path, 0.98),
    "cut": lambda path: cut(path, 0.6),
    "empty": lambda path: cut(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n{}\n"),
    "missing": lambda path: path.unlink(),
    "a folder": to_folder,
    "other bytes": lambda path: path.write_bytes(bytes(range(256)) * 3),
}
"""Of any file."""


def arrays(change: Callable[[dict[str, np.ndarray]], None], forget: bool = True) -> Damage:
    """A changed safetensors file; with `forget` in a folder without checksums, as earlier versions wrote it."""

    def damage(path: Path) -> None:
        found = load_file(path)
        change(found)
        save_file(found, path)
        if forget:
            older(path.parent)

    return damage


def older(folder: Path) -> None:
    """A state as earlier versions wrote it."""
    (folder / "checksums.json").unlink(missing_ok=True)
    notes = folder / "state.json"
    if notes.is_file():
        content = json.loads(notes.read_text())
        notes.write_text(json.dumps({key: value for key, value in content.items() if key not in ("format", "about")}))


def first(found: dict[str, np.ndarray], kind: str = "") -> str:
    """The first name of that kind whose array has two axes."""
    return next(name for name in sorted(found) if name.startswith(kind) and found[name].ndim == 2)


def reshape(found: dict[str, np.ndarray]) -> None:
    name = first(found)
    found[name] = found[name].reshape(-1)


def shrink(found: dict[str, np.ndarray]) -> None:
    name = first(found)
    found[name] = found[name][:1].copy()


def retype(found: dict[str, np.ndarray]) -> None:
    name = first(found)
    found[name] = found[name].astype(np.float64)


def rename(found: dict[str, np.ndarray]) -> None:
    name = first(found)
    found[name + "s"] = found.pop(name)


def drop(found: dict[str, np.ndarray]) -> None:
    del found[first(found)]


def add(found: dict[str, np.ndarray]) -> None:
    found["another"] = np.zeros(3, np.float32)


def spoil(found: dict[str, np.ndarray]) -> None:
    found[first(found)][0, 0] = np.nan


ARRAYS = {"shape": reshape, "rows": shrink, "type": retype, "name": rename, "dropped": drop, "added": add, "nan": spoil}
"""Of the arrays of a state without checksums."""


def noted(change: Callable[[dict], object]) -> Damage:
    """Changed notes of a state without checksums."""

    def damage(path: Path) -> None:
        older(path.parent)
        notes = json.loads(path.read_text())
        change(notes)
        path.write_text(json.dumps(notes))

    return damage


NOTES = {
    "step": lambda notes: notes.update(step=notes["step"] + 1),
    "no window": lambda notes: notes.pop("window"),
    "stage": lambda notes: notes.update(stage=7),
    "past": lambda notes: notes.update(past=[{}]),
    "tokens": lambda notes: notes.update(tokens="many"),
    "best_step": lambda notes: notes.update(best_step=10**6),
    "sum": lambda notes: notes["window"].update(sum=[1.0] * 40),
    "window": lambda notes: notes["window"].update(step=10**6),
}
"""Of `state.json` without checksums."""


def swap(one: str, other: str) -> Damage:
    """Two files change their names."""

    def damage(folder: Path) -> None:
        (folder / one).rename(folder / "swapped")
        (folder / other).rename(folder / one)
        (folder / "swapped").rename(folder / other)

    return damage


def copied(one: str, other: str) -> Damage:
    """A file is also there under another name."""
    return lambda folder: shutil.copy(folder / one, folder / other)


@contextlib.contextmanager
def full_disk(free: int):
    """No file can grow beyond `free` bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
