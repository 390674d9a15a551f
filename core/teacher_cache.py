"""Teacher outputs on disk: computed once, by any backend, and read in every epoch by any other.

A cache is a folder with `identity.json`, which says of which teacher and tokens it is, and of each output that was ever asked for
a flat file NAME.bin, NAME.progress while it is being written, and NAME.sums with checksums at the end. Who needs other outputs
adds those that are not there (`core.teacher_writing`); nothing reads one before it is complete.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from .block_sums import CheckedNumbers
from .cached_teacher import IDENTITY, MODEL
from .checkpoint import Model
from .errors import CrossdistilError, DamagedCache
from .files import clear_disk_errors
from .json_files import read_object
from .locks import hold_folder, lock_file
from .shown import plain, shown
from .teacher_identity import CacheKey
from .teacher_outputs import Layout, load, make_layout
from .teacher_scores import SCORED, TeacherScores
from .workplaces import remove_dead

NUMBERS, PROGRESS, SUMS = ".bin", ".progress", ".sums"
"""How the files of an output end."""
DTYPES = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}

AGAIN = "delete the folder to make the cache again"


class TeacherCache:
    """One teacher's outputs for the rows of a token table."""

    def __init__(self, folder: Path, key: CacheKey, model: Model, lengths: np.ndarray):
        self.folder, self.key, self.model = folder, key, model
        self.lengths = np.asarray(lengths)
        """Of the rows, in tokens."""
        self.layouts = [make_layout(name, model.config, model.outputs, self.lengths, key.top_k) for name in key.outputs]
        self.dtype = DTYPES[key.precision]
        """Of the numbers on the disk."""
        self.scored = TeacherScores(folder)
        """What it scored on dev, and answered there."""
        self._numbers: list[CheckedNumbers] = []

    @property
    def size(self) -> int:
        """Bytes on the disk, of the outputs of the key."""
        return self.bytes_of(self.layouts)

    def bytes_of(self, layouts: Iterable[Layout]) -> int:
        """The same of some of them."""
        return sum(layout.size for layout in layouts) * self.dtype.itemsize

    @property
    def missing(self) -> dict[Path, int]:
        """The files of its outputs that are not whole -> bytes that writing them will still take from the disk."""
        files = [(self.path(layout), self.bytes_of([layout])) for layout in self.absent]
        return {path: max(0, size - (path.stat().st_blocks * 512 if path.is_file() else 0)) for path, size in files}

    @property
    def absent(self) -> list[Layout]:
        """The outputs of the key that were not written to the end, or are gone."""
        there = [self.path(layout, SUMS).is_file() and self.path(layout).is_file() for layout in self.layouts]
        return [layout for layout, whole in zip(self.layouts, there) if not whole]

    @property
    def complete(self) -> bool:
        """Whether all outputs of the key were written to the end."""
        return not self.absent

    def path(self, layout: Layout, ending: str = NUMBERS) -> Path:
        """A file of an output."""
        kept = "" if layout.kept is None else f"-top-{layout.kept[1]}"
        return self.folder / f"{layout.name.replace('/', '-')}{kept}{ending}"

    def check_identity(self) -> None:
        """Raise CrossdistilError if the folder holds a cache of something else."""
        path = self.folder / IDENTITY
        try:
            found = read_object(path, DamagedCache)
        except FileNotFoundError:
            # It is written first: where there is anything else, someone removed it.
            if self._of_outputs():
                raise DamagedCache(f"{path}: missing; {AGAIN}") from None
            return
        except DamagedCache as error:
            raise DamagedCache(f"{error}; {AGAIN}") from error
        words = {"teacher": "another teacher", "tokens": "other data or another tokenizer", "format": "another version"}
        for name, expected in self.key.as_json().items():
            if found.get(name) != expected:
                what = words.get(name, f"{name} {shown(found.get(name))} instead of {shown(expected)}")
                remedy = "choose another teacher_cache.folder or delete it"
                if name == "computed_in":
                    remedy += f"; --set teacher_cache.computed_in={plain(str(found.get(name)))} takes it as it is"
                raise CrossdistilError(f"{self.folder}: is a teacher cache of {what}; {remedy}")

    def open(self) -> None:
        """Map the files; what they hold is compared with its checksums when it is used (`batch`). Raises CrossdistilError for
        anything else that is not as it was written."""
        self.check_identity()
        self._numbers = []
        for layout in self.layouts:
            paths = self.path(layout), self.path(layout, SUMS)
            missing = next((path for path in paths if not path.is_file()), None)
            if missing is not None:
                raise DamagedCache(f"{missing}: missing; {AGAIN}")
            self._numbers.append(CheckedNumbers(*paths, self.dtype, layout.size, f"delete {paths[0]} to make it again"))

    def discard(self) -> None:
        """Remove what is not as it was written, so that it is made again; where that is what says whose the outputs are, all of
        them. A process that has it open keeps what it has."""
        with clear_disk_errors(self.folder), self.locked():
            try:
                self.check_identity()
            except DamagedCache:
                gone = [self.folder / name for name in (IDENTITY, *SCORED)] + self._of_outputs()
            else:
                gone = [self.path(layout, ending) for layout in self._damaged() for ending in (SUMS, PROGRESS, NUMBERS)]
            for path in gone:
                path.unlink(missing_ok=True)

    def _damaged(self) -> list[Layout]:
        """The outputs of the key that cannot be opened."""
        found = []
        for layout in self.layouts:
            try:
                CheckedNumbers(self.path(layout), self.path(layout, SUMS), self.dtype, layout.size, "")
            except (DamagedCache, OSError):
                found.append(layout)
        return found

    def _of_outputs(self) -> list[Path]:
        """All files of outputs, whoever asked for them, the last written first."""
        return [path for ending in (SUMS, PROGRESS, NUMBERS) for path in sorted(self.folder.glob(f"*{ending}"))]

    @property
    def card(self) -> Path:
        """A folder that stands for the teacher where its weights are not (`core.checkpoint.save_card`)."""
        return self.folder / MODEL

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The outputs of a batch of rows by name, padded to `length`, in float32. Raises DamagedCache."""
        real, found = rows[rows >= 0], {}
        for layout, numbers in zip(self.layouts, self._numbers):
            numbers.check(layout.starts[real], layout.starts[real + 1])
            found[layout.name] = load(layout, numbers.flat, rows, length)
        return found

    def hold(self) -> bool:
        """Say that this process uses the folder, until it ends; False where there is none."""
        remove_dead(self.folder)
        return hold_folder(self.folder)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """No other process writes to the folder meanwhile."""
        lock = lock_file(self.folder / ".lock", wait=True)  # for another process that is writing
        try:
            yield
        finally:
            lock.release()
