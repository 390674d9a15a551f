"""Writing a teacher's outputs into its cache: in place, by one process or several, so that interrupted writers go on where they
stopped."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from .block_sums import write_sums
from .cached_teacher import IDENTITY
from .errors import CrossdistilError, DamagedCache
from .files import clear_disk_errors, make_folder, write_text
from .flat_files import NumberWriter, reserve
from .teacher_cache import AGAIN, PROGRESS, SUMS, TeacherCache
from .teacher_outputs import Layout, pieces
from .teacher_progress import Progress

_SAVE_SECONDS = 20.0
_SHOWN_SECONDS = 60.0  # after which a network file system has shown what another machine wrote

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


def write_outputs(
    cache: TeacherCache, plan: np.ndarray, computing: Computing, tell: Callable[[int, int], None], processes: Processes = ALONE
) -> None:
    """Add the outputs that are absent, as what `computing` gives computes them of each batch of `plan` (batches, batch size),
    which has every row once and -1 where it only fills. All `processes` call this: each takes its share. `tell(rows, all)` is
    called at times."""
    _Writing(cache, plan).run(computing, tell, processes)


class _Writing:
    def __init__(self, cache: TeacherCache, plan: np.ndarray):
        self._cache, self._plan = cache, plan

    def run(self, computing: Computing, tell: Callable[[int, int], None], processes: Processes) -> None:
        first = processes.rank == 0

        def each(function: Callable, *arguments: Any) -> Any:
            return processes.together(self._with_clear_errors, function, *arguments)

        with contextlib.ExitStack() as lock:
            each(self._begin if first else _nothing, lock)
            # Read by all before any of them marks more.
            absent, batches = each(self._left)
            each(self._fill, absent, batches[processes.rank :: processes.size], computing, tell if first else _nothing)
            each(self._finish if first else _nothing, absent)

    def _with_clear_errors(self, function: Callable, *arguments: Any) -> Any:
        with clear_disk_errors(self._cache.folder):
            return function(*arguments)

    def _begin(self, stack: contextlib.ExitStack) -> None:
        """Lock the folder until the stack ends, and make the files of what is absent in their full size."""
        make_folder(self._cache.folder)
        while not self._cache.hold():
            make_folder(self._cache.folder)
        stack.enter_context(self._cache.locked())
        self._cache.check_identity()
        absent = self._cache.absent  # another process may have been faster
        if not absent:
            return
        if not (self._cache.folder / IDENTITY).is_file():
            write_text(self._cache.folder / IDENTITY, json.dumps(self._cache.key.as_json(), indent=2) + "\n")
        made, kept = [], []
        try:
            for layout in absent:
                path = self._cache.path(layout)
                self._cache.path(layout, SUMS).unlink(missing_ok=True)  # where only the numbers were removed
                if not path.exists():
                    made.append(path)
                kept.append(reserve(path, layout.size * self._cache.dtype.itemsize))
        except OSError:
            for path in made:  # a disk that is full should not stay so
                path.unlink(missing_ok=True)
            raise
        for layout, whole in zip(absent, kept):
            self._progress(layout).begin(keep=whole)

    def _progress(self, layout: Layout) -> Progress:
        return Progress(self._cache.path(layout, PROGRESS), self._plan)

    def _left(self) -> tuple[list[Layout], np.ndarray]:
        """The outputs that are absent, and the batches that some of them lack."""
        until = time.monotonic() + _SHOWN_SECONDS
        while IDENTITY not in (os.listdir(self._cache.folder) if self._cache.folder.is_dir() else ()):
            if time.monotonic() > until:
                raise CrossdistilError(
                    f"{self._cache.folder}: is not seen by every process; choose a teacher_cache.folder on a disk that all share"
                )
            time.sleep(0.1)
        self._cache.hold()
        absent, left = self._cache.absent, np.zeros(len(self._plan), bool)
        for layout in absent:
            left |= ~self._progress(layout).done()
        return absent, np.flatnonzero(left)

    def _fill(
        self, absent: list[Layout], batches: np.ndarray, computing: Computing, tell: Callable[[int, int], None]
    ) -> None:
        if not len(batches):
            return
        compute, records = computing(tuple(layout.name for layout in absent)), [self._progress(layout) for layout in absent]
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(NumberWriter(self._cache.path(layout), self._cache.dtype)) for layout in absent]
            written, saved = [], time.monotonic()
            for batch in batches:
                rows = self._plan[batch]
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
                    tell(min(record.rows() for record in records), len(self._cache.lengths))
                written, saved = [], time.monotonic()

    def _finish(self, absent: list[Layout]) -> None:
        for layout in absent:
            progress = self._progress(layout)
            if not progress.done().all():
                raise DamagedCache(f"{progress.path}: was changed while the cache was written; {AGAIN}")
            write_sums(self._cache.path(layout), self._cache.path(layout, SUMS))
            progress.path.unlink(missing_ok=True)

    def _store(self, layout: Layout, file: NumberWriter, rows: np.ndarray, values: np.ndarray) -> None:
        try:
            with np.errstate(over="raise"):
                for start, piece in pieces(layout, rows, self._cache.lengths[rows], values):
                    file.write(start, piece)
        except FloatingPointError:
            largest = np.abs(values).max()
            raise CrossdistilError(
                f"teacher_cache.precision: {self._cache.key.precision} cannot hold {layout.name}, up to {largest:.3g}; use fp32"
            ) from None
