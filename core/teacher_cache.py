"""Teacher outputs on disk: computed once, by any backend, and read in every epoch by any other.

A cache is a folder with `identity.json`, which says of which teacher and tokens it is, and of each output that was ever asked for
a flat file NAME.bin, NAME.progress while it is being written, and NAME.sums with checksums at the end. Who needs other outputs
adds those that are not there. They are written in place, by one process or several, so that interrupted writers go on where they
stopped; nothing reads one before it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .block_sums import CheckedNumbers, write_sums
from .checkpoint import Model
from .errors import CrossdistilError, DamagedCache
from .files import clear_disk_errors, make_folder, write_arrays, write_text
from .flat_files import NumberWriter, reserve
from .json_files import read_object
from .locks import hold_folder, lock_file
from .shown import plain, shown
from .teacher_identity import CacheKey
from .teacher_outputs import Layout, load, make_layout, pieces
from .teacher_progress import Progress
from .workplaces import remove_dead

_SAVE_SECONDS = 20.0
_SHOWN_SECONDS = 60.0  # after which a network file system has shown what another machine wrote
_IDENTITY = "identity.json"
_NUMBERS, _PROGRESS, _SUMS = ".bin", ".progress", ".sums"
"""How the files of an output end."""
_MODEL, _SCORES, _ANSWERS = "model", "scores.json", "answers.safetensors"
DTYPES = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}

_AGAIN = "delete the folder to make the cache again"


Compute = Callable[[np.ndarray], list[np.ndarray]]
"""`f(rows)`: each output of a batch of rows, of which -1 only fills, padded as the model gave it."""
Computing = Callable[[tuple[str, ...]], Compute]
"""`f(outputs)`: what computes these."""


class Processes(Protocol):
    """Those that write one cache together."""

    rank: int
    size: int

    def together(self, function: Callable, *arguments: Any) -> Any:
        """Call it in each process, and wait for all; an error in one is raised in all."""


class _Alone:
    rank, size = 0, 1

    def together(self, function: Callable, *arguments: Any) -> Any:
        return function(*arguments)


ALONE = _Alone()


def _nothing(*_: Any) -> None:
    """The part of those that are not the first."""


def card_of(path: Path) -> Path:
    """The folder in a teacher cache that says which teacher it is of, where that is given in place of the teacher; any other path
    as it is."""
    return path / _MODEL if (path / _IDENTITY).is_file() and (path / _MODEL).is_dir() else path


class TeacherCache:
    """One teacher's outputs for the rows of a token table."""

    def __init__(self, folder: Path, key: CacheKey, model: Model, lengths: np.ndarray):
        self.folder, self.key, self.model = folder, key, model
        self._lengths = np.asarray(lengths)
        self.layouts = [make_layout(name, model.config, model.outputs, self._lengths, key.top_k) for name in key.outputs]
        self._dtype = DTYPES[key.precision]
        self._numbers: list[CheckedNumbers] = []

    @property
    def size(self) -> int:
        """Bytes on the disk, of the outputs of the key."""
        return self.bytes_of(self.layouts)

    def bytes_of(self, layouts: Iterable[Layout]) -> int:
        """The same of some of them."""
        return sum(layout.size for layout in layouts) * self._dtype.itemsize

    @property
    def missing(self) -> int:
        """Bytes that writing it will still take from the disk."""
        absent = self.absent
        paths = [path for path in map(self.path, absent) if path.is_file()]
        return max(0, self.bytes_of(absent) - sum(path.stat().st_blocks * 512 for path in paths))

    @property
    def absent(self) -> list[Layout]:
        """The outputs of the key that were not written to the end, or are gone."""
        there = [self.path(layout, _SUMS).is_file() and self.path(layout).is_file() for layout in self.layouts]
        return [layout for layout, whole in zip(self.layouts, there) if not whole]

    @property
    def complete(self) -> bool:
        """Whether all outputs of the key were written to the end."""
        return not self.absent

    def path(self, layout: Layout, ending: str = _NUMBERS) -> Path:
        """A file of an output."""
        kept = "" if layout.kept is None else f"-top-{layout.kept[1]}"
        return self.folder / f"{layout.name.replace('/', '-')}{kept}{ending}"

    def check_identity(self) -> None:
        """Raise CrossdistilError if the folder holds a cache of something else."""
        path = self.folder / _IDENTITY
        try:
            found = read_object(path, DamagedCache)
        except FileNotFoundError:
            # It is written first: where there is anything else, someone removed it.
            if self._of_outputs():
                raise DamagedCache(f"{path}: missing; {_AGAIN}") from None
            return
        except DamagedCache as error:
            raise DamagedCache(f"{error}; {_AGAIN}") from error
        words = {"teacher": "another teacher", "tokens": "other data or another tokenizer", "format": "another version"}
        for name, expected in self.key.as_json().items():
            if found.get(name) != expected:
                what = words.get(name, f"{name} {shown(found.get(name))} instead of {shown(expected)}")
                remedy = "choose another teacher_cache.folder or delete it"
                if name == "computed_in":
                    remedy += f"; --set teacher_cache.computed_in={plain(str(found.get(name)))} takes it as it is"
                raise CrossdistilError(f"{self.folder}: is a teacher cache of {what}; {remedy}")

    def write(
        self, plan: np.ndarray, computing: Computing, tell: Callable[[int, int], None], processes: Processes = ALONE
    ) -> None:
        """Add the outputs that are absent, as what `computing` gives computes them of each batch of `plan` (batches, batch size),
        which has every row once and -1 where it only fills. All `processes` call this: each takes its share. `tell(rows, all)` is
        called at times."""
        first = processes.rank == 0

        def each(function: Callable, *arguments: Any) -> Any:
            return processes.together(self._with_clear_errors, function, *arguments)

        with contextlib.ExitStack() as lock:
            each(self._begin if first else _nothing, plan, lock)
            # Read by all before any of them marks more.
            absent, batches = each(self._left, plan)
            each(self._fill, plan, absent, batches[processes.rank :: processes.size], computing, tell if first else _nothing)
            each(self._finish if first else _nothing, plan, absent)

    def open(self) -> None:
        """Map the files; what they hold is compared with its checksums when it is used (`batch`). Raises CrossdistilError for
        anything else that is not as it was written."""
        self.check_identity()
        self._numbers = []
        for layout in self.layouts:
            paths = self.path(layout), self.path(layout, _SUMS)
            missing = next((path for path in paths if not path.is_file()), None)
            if missing is not None:
                raise DamagedCache(f"{missing}: missing; {_AGAIN}")
            self._numbers.append(CheckedNumbers(*paths, self._dtype, layout.size, f"delete {paths[0]} to make it again"))

    def discard(self) -> None:
        """Remove what is not as it was written, so that it is made again; where that is what says whose the outputs are, all of
        them. A process that has it open keeps what it has."""
        with clear_disk_errors(self.folder), self._locked():
            try:
                self.check_identity()
            except DamagedCache:
                gone = [self.folder / name for name in (_IDENTITY, _SCORES, _ANSWERS)] + self._of_outputs()
            else:
                gone = [self.path(layout, ending) for layout in self._damaged() for ending in (_SUMS, _PROGRESS, _NUMBERS)]
            for path in gone:
                path.unlink(missing_ok=True)

    def _damaged(self) -> list[Layout]:
        """The outputs of the key that cannot be opened."""
        found = []
        for layout in self.layouts:
            try:
                CheckedNumbers(self.path(layout), self.path(layout, _SUMS), self._dtype, layout.size, "")
            except (DamagedCache, OSError):
                found.append(layout)
        return found

    def _of_outputs(self) -> list[Path]:
        """All files of outputs, whoever asked for them, the last written first."""
        return [path for ending in (_SUMS, _PROGRESS, _NUMBERS) for path in sorted(self.folder.glob(f"*{ending}"))]

    @property
    def card(self) -> Path:
        """A folder that stands for the teacher where its weights are not (`core.checkpoint.save_card`)."""
        return self.folder / _MODEL

    def scores(self, of: str) -> dict[str, float] | None:
        """The teacher's scores on what has the digest `of`, where they were kept."""
        with contextlib.suppress(OSError, CrossdistilError):
            found = read_object(self.folder / _SCORES, CrossdistilError)
            if found.get("of") == of and isinstance(found.get("metrics"), dict):
                return found["metrics"]
        return None

    def answers(self, of: str) -> np.ndarray | None:
        """The teacher's logits on what has the digest `of`, where they were kept."""
        with contextlib.suppress(OSError, SafetensorError, KeyError):
            found = load_file(self.folder / _ANSWERS)
            if found["of"].tobytes().decode(errors="replace") == of:
                return found["logits"]
        return None

    def keep_scores(self, of: str, metrics: dict[str, float], logits: np.ndarray | None = None) -> None:
        """Keep the teacher's scores, and its logits on what was scored, with its outputs. Raises RunFolderError."""
        with clear_disk_errors(self.folder):
            if logits is not None:
                write_arrays(self.folder / _ANSWERS, {"logits": logits, "of": np.frombuffer(of.encode(), np.uint8)})
            write_text(self.folder / _SCORES, json.dumps({"of": of, "metrics": metrics}, indent=2) + "\n")

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

    def _with_clear_errors(self, function: Callable, *arguments: Any) -> Any:
        with clear_disk_errors(self.folder):
            return function(*arguments)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = lock_file(self.folder / ".lock", wait=True)  # for another process that is writing
        try:
            yield
        finally:
            lock.release()

    def _begin(self, plan: np.ndarray, stack: contextlib.ExitStack) -> None:
        """Lock the folder until the stack ends, and make the files of what is absent in their full size."""
        make_folder(self.folder)
        while not self.hold():
            make_folder(self.folder)
        stack.enter_context(self._locked())
        self.check_identity()
        absent = self.absent  # another process may have been faster
        if not absent:
            return
        if not (self.folder / _IDENTITY).is_file():
            write_text(self.folder / _IDENTITY, json.dumps(self.key.as_json(), indent=2) + "\n")
        made, kept = [], []
        try:
            for layout in absent:
                path = self.path(layout)
                self.path(layout, _SUMS).unlink(missing_ok=True)  # where only the numbers were removed
                if not path.exists():
                    made.append(path)
                kept.append(reserve(path, layout.size * self._dtype.itemsize))
        except OSError:
            for path in made:  # a disk that is full should not stay so
                path.unlink(missing_ok=True)
            raise
        for layout, whole in zip(absent, kept):
            self._progress(layout, plan).begin(keep=whole)

    def _progress(self, layout: Layout, plan: np.ndarray) -> Progress:
        return Progress(self.path(layout, _PROGRESS), plan)

    def _left(self, plan: np.ndarray) -> tuple[list[Layout], np.ndarray]:
        """The outputs that are absent, and the batches of `plan` that some of them lack."""
        until = time.monotonic() + _SHOWN_SECONDS
        while _IDENTITY not in (os.listdir(self.folder) if self.folder.is_dir() else ()):
            if time.monotonic() > until:
                raise CrossdistilError(
                    f"{self.folder}: is not seen by every process; choose a teacher_cache.folder on a disk that all share"
                )
            time.sleep(0.1)
        self.hold()
        absent, left = self.absent, np.zeros(len(plan), bool)
        for layout in absent:
            left |= ~self._progress(layout, plan).done()
        return absent, np.flatnonzero(left)

    def _fill(
        self, plan: np.ndarray, absent: list[Layout], batches: np.ndarray, computing: Computing, tell: Callable[[int, int], None]
    ) -> None:
        if not len(batches):
            return
        compute, records = computing(tuple(layout.name for layout in absent)), [self._progress(layout, plan) for layout in absent]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(NumberWriter(self.path(layout), self._dtype)) for layout in absent]
            written, saved = [], time.monotonic()
            for batch in batches:
                rows = plan[batch]
                values, rows = compute(rows), rows[rows >= 0]
                for layout, file, value in zip(absent, files, values):
                    self._store(layout, file, rows, value)
                written.append(int(batch))
                if time.monotonic() - saved < _SAVE_SECONDS and batch != batches[-1]:
                    continue
                for file, record in zip(files, records):
                    file.flush()
                    record.mark(written)
                if batch != batches[-1]:
                    tell(min(record.rows() for record in records), len(self._lengths))
                written, saved = [], time.monotonic()

    def _finish(self, plan: np.ndarray, absent: list[Layout]) -> None:
        for layout in absent:
            progress = self._progress(layout, plan)
            if not progress.done().all():
                raise DamagedCache(f"{progress.path}: was changed while the cache was written; {_AGAIN}")
            write_sums(self.path(layout), self.path(layout, _SUMS))
            progress.path.unlink(missing_ok=True)

    def _store(self, layout: Layout, file: NumberWriter, rows: np.ndarray, values: np.ndarray) -> None:
        try:
            with np.errstate(over="raise"):
                for start, piece in pieces(layout, rows, self._lengths[rows], values):
                    file.write(start, piece)
        except FloatingPointError:
            largest = np.abs(values).max()
            raise CrossdistilError(
                f"teacher_cache.precision: {self.key.precision} cannot hold {layout.name}, up to {largest:.3g}; use fp32"
            ) from None
