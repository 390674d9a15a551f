"""The cache folder, shared by all runs of a user: where it is, what kinds of entries it has, their sizes, and their removal.

An entry is a folder `KIND/NAME` that is made again when it is missing. One that is still being written, or was left by a killed
process, is a workplace (`workplaces`); teacher outputs are written in place, since they go on where they were interrupted.
A process holds what it uses (`locks.hold_folder`), and what is held is not removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from .errors import CrossdistilError
from .locks import claim_folder, forget_makers, is_maker
from .workplaces import is_workplace, remove_dead, workplace

KINDS = {
    "tokens": "tokens of tasks and raw text",
    "stores": "token stores of raw text, for masking",
    "masked": "records of masked examples",
    "records": "records of tasks",
    "teacher": "outputs of teachers",
    "converted": "checkpoints of other formats",
    "tables": "data of Python programs",
    "digests": "digests of teachers' weights",
}


def default_cache_folder() -> Path:
    """CROSSDISTIL_CACHE, or the platform's cache folder of the user."""
    folder = os.environ.get("CROSSDISTIL_CACHE") or platformdirs.user_cache_dir("crossdistil")
    if folder.startswith("~"):
        raise CrossdistilError(f"{folder}: there is no home folder of this user; name a folder for caches in CROSSDISTIL_CACHE")
    return Path(folder)


def kind_folder(kind: str, base: Path | None = None) -> Path:
    """Where the entries of one of `KINDS` are, in the default folder unless another is given."""
    assert kind in KINDS, kind
    return Path(base or default_cache_folder()) / kind


@dataclass(frozen=True)
class Entry:
    """One entry of the cache."""

    kind: str
    folder: Path
    size: int
    """Bytes that its files take on disk."""
    used: float
    """When one of its files was last read or written, as far as the file system tells; seconds since 1970."""

    @property
    def days_unused(self) -> float:
        """Days since then."""
        return max(0.0, (time.time() - self.used) / 86400)


def entries() -> list[Entry]:
    """Everything in the default cache folder, kind by kind, the longest unused first."""
    found = []
    for kind in KINDS:
        folder = kind_folder(kind)
        children = [child for child in folder.iterdir() if not is_maker(child.name)] if folder.is_dir() else ()
        found += sorted((_entry(kind, child) for child in children), key=lambda entry: entry.used)
    return found


def remove(chosen: Sequence[Entry]) -> list[Entry]:
    """Remove these but those that a process is making or using, which are returned. Raises CrossdistilError that names what
    could not be removed."""
    problems, kept = [], []
    for entry in chosen:
        try:
            if not _removed(entry.folder):
                kept.append(entry)
        except FileNotFoundError:  # another process was faster
            continue
        except OSError as error:
            problems.append(f"{entry.folder}: could not be removed: {error.strerror}")
    for folder in {entry.folder.parent for entry in chosen}:
        forget_makers(folder)
    if problems:
        raise CrossdistilError("\n".join(problems))
    return kept


def _removed(folder: Path) -> bool:
    """Remove an entry unless it is in use. Raises OSError."""
    if is_workplace(folder.name):
        remove_dead(folder.parent)
        return not folder.exists()
    if not folder.is_dir():
        folder.unlink()
        return True
    with claim_folder(folder) as free:
        if free:
            # First out of sight, in one step: a process that looks for the entry finds all of it or nothing.
            with workplace(folder) as working:
                os.rename(folder, working / folder.name)
    return free


def _entry(kind: str, folder: Path) -> Entry:
    size, used = 0, 0.0
    for path in [folder, *folder.rglob("*")]:
        try:
            state = path.lstat()
        except FileNotFoundError:
            continue
        if not path.is_dir():
            size += state.st_blocks * 512
            used = max(used, state.st_atime, state.st_mtime)
    return Entry(kind, folder, size, used or folder.stat().st_mtime)
