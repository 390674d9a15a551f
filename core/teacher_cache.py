"""Teacher outputs on disk: computed once, by any backend, and read in every epoch by any other.

A cache is a folder with a flat file for each output, `identity.json` that says of which teacher, tokens and outputs it is,
`progress.bin` while it is being written, and `complete.json` with checksums at the end. It is written in place, by one process
or several, so that interrupted writers go on where they stopped; nothing reads it before it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .checkpoint import Model
from .errors import CrossdistilError, DamagedCache
from .files import clear_disk_errors, make_folder, write_arrays, write_text
from .flat_files import NumberWriter, checksum, reserve
from .json_files import read_object
from .locks import hold_folder, lock_file
from .shown import plain, shown
from .teacher_identity import CacheKey
from .teacher_outputs import Layout, load, make_layout, pieces
from .teacher_progress import Progress
from .workplaces import remove_dead

_SAVE_SECONDS = 20.0
_SHOWN_SECONDS = 60.0  # after which a network file system has shown what another machine wrote
_PROGRESS = "progress.bin"
_EARLIER = "progress.json"
"""What an earlier version counted its batches in."""
_MODEL, _SCORES, _ANSWERS = "model", "scores.json", "answers.safetensors"
DTYPES = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}

_AGAIN = "delete the folder to make the cache again"


Compute = Callable[[np.ndarray], list[np.ndarray]]
"""`f(rows)`: each output of a batch of rows, of which -1 only fills, padded as the model gave it."""


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
    return path / _MODEL if (path / "identity.json").is_file() and (path / _MODEL).is_dir() else path


class TeacherCache:
    """One teacher's outputs for the rows of a token table."""

    def __init__(self, folder: Path, key: CacheKey, model: Model, lengths: np.ndarray):
        self.folder, self.key, self.model = folder, key, model
        self._lengths = np.asarray(lengths)
        self.layouts = [make_layout(name, model.config, model.outputs, self._lengths, key.top_k) for name in key.outputs]
        self._dtype = DTYPES[key.precision]
        self._flat: list[np.ndarray] = []

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(layout.size for layout in self.layouts) * self._dtype.itemsize

    @property
    def missing(self) -> int:
        """Bytes that writing it will still take from the disk."""
        paths = [path for path in map(self.path, self.layouts) if path.is_file()]
        return 0 if self.complete else max(0, self.size - sum(path.stat().st_blocks * 512 for path in paths))

    @property
    def complete(self) -> bool:
        """Whether it was written to the end."""
        return (self.folder / "complete.json").is_file()

    def path(self, layout: Layout) -> Path:
        """The file of an output."""
        return self.folder / f"{layout.name.replace('/', '-')}.bin"

    def check_identity(self) -> None:
        """Raise CrossdistilError if the folder holds a cache of something else."""
        path = self.folder / "identity.json"
        try:
            found = read_object(path, DamagedCache)
        except FileNotFoundError:
            # It is written first: where there is anything else, someone removed it.
            if any((self.folder / name).is_file() for name in ("complete.json", _PROGRESS, _EARLIER)):
                raise DamagedCache(f"{path}: missing; {_AGAIN}") from None
            return
        except DamagedCache as error:
            raise DamagedCache(f"{error}; {_AGAIN}") from error
        words = {"teacher": "another teacher", "tokens": "other data or another tokenizer", "outputs": "other outputs"}
        words["top_k"] = "another number of the largest logits"
        for name, expected in ({"top_k": None} | self.key.as_json()).items():
            if found.get(name) != expected:
                what = words.get(name, f"{name} {shown(found.get(name))} instead of {shown(expected)}")
                remedy = "choose another teacher_cache.folder or delete it"
                if name == "computed_in":
                    remedy += f"; --set teacher_cache.computed_in={plain(str(found.get(name)))} takes it as it is"
                raise CrossdistilError(f"{self.folder}: is a teacher cache of {what}; {remedy}")

    def write(self, plan: np.ndarray, compute: Compute, tell: Callable[[int, int], None], processes: Processes = ALONE) -> None:
        """Fill the cache with what `compute` gives of each batch of `plan` (batches, batch size), which has every row once and -1
        where it only fills. All `processes` call this: each takes its share. `tell(rows, all)` is called at times."""
        progress, first = Progress(self.folder / _PROGRESS, plan), processes.rank == 0

        def each(function: Callable, *arguments: Any) -> Any:
            return processes.together(self._with_clear_errors, function, *arguments)

        with contextlib.ExitStack() as lock:
            each(self._begin if first else _nothing, progress, lock)
            # Read by all before any of them marks more.
            missing = each(self._missing_batches, progress)[processes.rank :: processes.size]
            each(self._fill, progress, missing, compute, tell if first else _nothing)
            each(self._finish if first else _nothing, progress)

    def open(self, checked: bool = False) -> None:
        """Map the files, after a look at every byte, unless that is `checked`. Raises CrossdistilError for anything that is not
        as it was written."""
        self.check_identity()
        try:
            sums = read_object(self.folder / "complete.json", DamagedCache)
        except (OSError, DamagedCache) as error:
            raise DamagedCache(f"{error}; {_AGAIN}") from error
        self._flat = []
        for layout in self.layouts:
            path, expected = self.path(layout), layout.size * self._dtype.itemsize
            found = path.stat().st_size if path.is_file() else None
            if found is None:
                raise DamagedCache(f"{path}: missing; {_AGAIN}")
            if found != expected:
                raise DamagedCache(f"{path}: has {found:,} bytes, expected {expected:,}; {_AGAIN}")
            if not checked and checksum(path) != sums.get(layout.name):
                raise DamagedCache(f"{path}: damaged (its checksum is wrong); {_AGAIN}")
            self._flat.append(np.asarray(np.memmap(path, self._dtype, "r")))

    def discard(self) -> None:
        """Remove what is there, so that it is made again. A process that has it open keeps what it has."""
        with clear_disk_errors(self.folder), self._locked():
            for name in ("complete.json", _PROGRESS, _EARLIER, "identity.json"):
                (self.folder / name).unlink(missing_ok=True)
            for path in (self.folder / _SCORES, self.folder / _ANSWERS, *map(self.path, self.layouts)):
                path.unlink(missing_ok=True)

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
        """The outputs of a batch of rows by name, padded to `length`, in float32."""
        return {layout.name: load(layout, flat, rows, length) for layout, flat in zip(self.layouts, self._flat)}

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

    def _begin(self, progress: Progress, stack: contextlib.ExitStack) -> None:
        """Lock the folder until the stack ends, and make the files in their full size."""
        make_folder(self.folder)
        while not self.hold():
            make_folder(self.folder)
        stack.enter_context(self._locked())
        self.check_identity()
        if self.complete:  # another process was faster
            return
        write_text(self.folder / "identity.json", json.dumps(self.key.as_json(), indent=2) + "\n")
        whole, made = True, []
        try:
            for layout in self.layouts:
                path = self.path(layout)
                if not path.exists():
                    made.append(path)
                whole &= reserve(path, layout.size * self._dtype.itemsize)
        except OSError:
            for path in made:  # a disk that is full should not stay so
                path.unlink(missing_ok=True)
            raise
        progress.begin(keep=whole)

    def _missing_batches(self, progress: Progress) -> np.ndarray:
        until = time.monotonic() + _SHOWN_SECONDS
        while "identity.json" not in (names := os.listdir(self.folder) if self.folder.is_dir() else ()):
            if time.monotonic() > until:
                raise CrossdistilError(
                    f"{self.folder}: is not seen by every process; choose a teacher_cache.folder on a disk that all share"
                )
            time.sleep(0.1)
        self.hold()
        return np.empty(0, np.int64) if "complete.json" in names else np.flatnonzero(~progress.done())

    def _fill(self, progress: Progress, batches: np.ndarray, compute: Compute, tell: Callable[[int, int], None]) -> None:
        if not len(batches):
            return
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(NumberWriter(self.path(layout), self._dtype)) for layout in self.layouts]
            written, saved = [], time.monotonic()
            for batch in batches:
                rows = progress.plan[batch]
                values, rows = compute(rows), rows[rows >= 0]
                for layout, file, value in zip(self.layouts, files, values):
                    self._store(layout, file, rows, value)
                written.append(int(batch))
                if time.monotonic() - saved < _SAVE_SECONDS and batch != batches[-1]:
                    continue
                for file in files:
                    file.flush()
                progress.mark(written)
                if batch != batches[-1]:
                    tell(progress.rows(), len(self._lengths))
                written, saved = [], time.monotonic()

    def _finish(self, progress: Progress) -> None:
        if self.complete:
            return
        if not progress.done().all():
            raise DamagedCache(f"{progress.path}: was changed while the cache was written; {_AGAIN}")
        sums = {layout.name: checksum(self.path(layout)) for layout in self.layouts}
        write_text(self.folder / "complete.json", json.dumps(sums, indent=2) + "\n")
        for name in (_PROGRESS, _EARLIER):
            (self.folder / name).unlink(missing_ok=True)

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
