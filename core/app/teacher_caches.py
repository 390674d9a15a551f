"""The caches of a run's teachers: where each is, filling it, and what is kept beside the outputs: the teacher's scores, and what
stands for the teacher where its weights are not.

Several processes fill a cache together and have it checked by the first, whose disk and cache folder decide for all.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from ..cache_folder import kind_folder
from ..checkpoint_saving import save_card
from ..data.batches import evaluation_rows
from ..data.token_table import TokenTable
from ..engine import Engine
from ..errors import CrossdistilError, DamagedCache, RunFolderError
from ..files import clear_disk_errors, make_folder
from ..job import Job
from ..model_answers import EVALUATION_BATCH
from ..teacher_cache import TeacherCache
from ..teacher_identity import CacheKey, examples_digest, model_digest
from ..teacher_writing import Compute, write_outputs
from .loaded_teachers import LoadedTeachers
from .teacher_runs import answers_of_run
from .waiting import told_if_long

_SEEN_SECONDS = 5.0
"""How long another machine may take to see a new file of the cache."""


class TeacherCaches:
    """The caches of the teachers of a job."""

    def __init__(self, job: Job, engine: Engine, console: Console, loaded: LoadedTeachers):
        self._job, self._engine, self._console, self._loaded, self._world = job, engine, console, loaded, job.data.world
        self._made: dict[tuple, TeacherCache] = {}
        self._digests: dict[str, tuple[str, str]] = {}
        self._scored: dict[str, dict[str, float]] = {}
        self.answers: dict[str, np.ndarray] = {}
        """Teacher -> its logits on dev (examples, outputs), of those that were scored; in the first process at least."""
        # On some machines there may be only a folder that stands for the teacher.
        self.with_weights = {name: not self._world.any(not teacher.has_weights) for name, teacher in job.teachers.items()}

    def cache(self, name: str, outputs: tuple[str, ...]) -> TeacherCache:
        """That of some outputs of a teacher, which may not be there yet."""
        if (name, outputs) in self._made:
            return self._made[name, outputs]
        asked, teacher, table = self._job.recipe.teacher_cache, self._job.teachers[name], self.table(name)
        kept = asked.top_k if "logits" in outputs and asked.top_k is not None and asked.top_k < (teacher.outputs or 0) else None
        key = CacheKey(*self._digest(name), outputs, asked.precision, self._computed_in, kept)
        if asked.folder is None:
            folder = kind_folder("teacher") / key.digest
        else:
            # Of one teacher under several names one folder, as in the cache folder.
            folder = Path(asked.folder) / next(other for other in self._job.teachers if self._digest(other) == self._digest(name))
        if self._world.size > 1:  # the first process's, since the others may have another cache, or another current folder
            folder = Path(os.fsdecode(self._world.first(os.fsencode(folder.absolute()))))
        self._made[name, outputs] = TeacherCache(folder, key, teacher, table.lengths)
        return self._made[name, outputs]

    def _digest(self, name: str) -> tuple[str, str]:
        """Of a teacher and of its rows."""
        if name not in self._digests:
            self._digests[name] = model_digest(self._job.teachers[name]), self.table(name).digest
        return self._digests[name]

    def table(self, name: str) -> TokenTable:
        """The training rows as a teacher takes them."""
        return self._job.teacher_data[name].tokens["train"]

    def _fill(self, name: str, cache: TeacherCache, read: TeacherCache) -> None:
        """Fill the cache, and open the one that is `read`, whose outputs it has among others."""
        self._check_seen(cache)
        cache.hold()
        complete, absent = self._world.decide(cache.complete), cache.absent
        missing = {layout.name for layout in absent}
        there = [output for output in read.key.outputs if output not in missing]
        if there:
            self._console.print(f"{name}: {', '.join(there)} from {cache.folder}")
        if not complete:
            self._refuse_other_precision(cache)
            outputs = ", ".join(layout.name for layout in absent)
            size = f"{cache.bytes_of(absent) / 1e6:,.1f} MB in {cache.key.precision}"
            self._console.print(f"{name}: {outputs} for {len(self.table(name).lengths):,} rows, {size}, go to {cache.folder}")
            self._tell_of_earlier(cache)

            def tell(done: int, total: int) -> None:
                self._console.print(f"{name}: {done:,} of {total:,} rows are cached")

            def computing(outputs: tuple[str, ...]) -> Compute:
                return self._loaded.outputs(name, outputs)

            write_outputs(cache, evaluation_rows(self.table(name), EVALUATION_BATCH), computing, tell, self._world)
            with contextlib.suppress(RunFolderError):  # it is complete all the same
                self._world.lead(self.describe, name, cache)
        self._world.together(read.open)

    def _tell_of_earlier(self, cache: TeacherCache) -> None:
        """Say so where there are caches of versions that had a folder for each set of outputs."""
        for path in sorted(cache.folder.glob("*/complete.json")):
            self._console.print(f"note: {path.parent}: is of an earlier version, which is not read; it can be deleted")

    def _check_seen(self, cache: TeacherCache) -> None:
        """Raise RunFolderError, in all processes, where some do not see the first one's files: on another machine, whose disk is
        another one."""
        if self._world.size == 1:
            return
        name = self._world.first(f".seen-{os.getpid()}-{time.time_ns()}".encode()).decode()
        there = self._world.decide(cache.complete)
        mark = cache.folder / ("identity.json" if there else name)

        def leave() -> None:
            with clear_disk_errors(cache.folder):
                make_folder(cache.folder)
                mark.touch()

        if not there:
            self._world.lead(leave)
        until = time.monotonic() + _SEEN_SECONDS
        while not (seen := mark.exists()) and time.monotonic() < until:
            time.sleep(0.05)
        unseen = [str(rank) for rank, answer in enumerate(self._world.exchange(bytes([seen]))) if answer != b"\1"]
        if not there and self._world.rank == 0:
            mark.unlink(missing_ok=True)
        if unseen:
            ranks = f"rank{'s' if len(unseen) > 1 else ''} {', '.join(unseen)}"
            raise RunFolderError(
                f"{cache.folder}: is not seen by {ranks}; choose a teacher_cache.folder on a disk that all machines share"
            )

    def _refuse_other_precision(self, cache: TeacherCache) -> None:
        if cache.key.computed_in != self._engine.precision:
            raise CrossdistilError(
                f"teacher_cache.computed_in: {cache.key.computed_in}, but this computes in {self._engine.precision}, and "
                f"{cache.folder} is not there or not complete; `crossdistil cache teacher RECIPE --precision "
                f"{cache.key.computed_in}` fills it"
            )

    def fill(self, name: str, cache: TeacherCache, read: TeacherCache) -> None:
        """Fill the cache, or what is missing of it, in one pass over the rows, and open the one that is `read` now: the same,
        or one of some of its outputs. Raises RunFolderError where it cannot be written."""
        try:
            self._fill(name, cache, read)
        except DamagedCache:
            # One in the user's folder is the user's; in our own nothing is lost that can be made again.
            if self._job.recipe.teacher_cache.folder is not None or not self.with_weights[name]:
                raise
            self._console.print(f"{name}: {cache.folder} is damaged, and is made again")
            self._world.lead(cache.discard)
            self._fill(name, cache, read)

    def score(self, name: str, caches: list[TeacherCache]) -> dict[str, float]:
        """The metrics of a teacher on dev; from one of the `caches`, which are those of all that is needed of it, if it has
        them."""
        data, teacher = self._job.teacher_data[name], self._job.teachers[name]
        if "dev" not in data.examples or (data.spec.kind.guesses_words and teacher.missing_words):
            return {}
        of, known = examples_digest(data, self._computed_in), None
        for cache in caches:
            known = cache.scored.metrics(of) if known is None else known
        known = json.loads(self._world.first(json.dumps(known).encode()))
        if known is not None:
            self._scored[name] = known
            answers = next((found for cache in caches if (found := cache.scored.answers(of)) is not None), None)
            if answers is not None:
                self.answers[name] = answers
            return known
        if not self.with_weights[name]:
            self._console.print(f"note: {name}: its scores on this dev split are not known, since its weights are elsewhere")
            return {}
        logits = answers_of_run(teacher, data, self._engine)
        if not self._world.any(logits is None):
            labels = data.examples["dev"].labels
            self._scored[name] = data.spec.kind.score(data.spec.metrics, logits, labels, data.spec.own_metrics)
            self._console.print(f"{name}: its answers on dev are those that {teacher.source.parent} has kept", markup=False)
        else:
            with told_if_long(self._console, f"{name}: answering the {len(data.examples['dev']):,} texts of dev"):
                self._scored[name], logits = self._loaded.score(name)
        if logits is not None:
            self.answers[name] = logits
        for cache in caches:
            with contextlib.suppress(RunFolderError):
                self._world.lead(self._keep_scores, name, cache)
        return self._scored[name]

    def _keep_scores(self, name: str, cache: TeacherCache) -> None:
        """Where they were computed as the outputs were."""
        metrics = self._scored.get(name)
        if metrics and cache.key.computed_in == self._engine.precision:
            of = examples_digest(self._job.teacher_data[name], self._engine.precision)
            if cache.scored.metrics(of) != metrics:
                cache.scored.keep(of, metrics, self.answers.get(name))

    def describe(self, name: str, cache: TeacherCache) -> None:
        """Keep what stands for the teacher, and its scores, with the cache. Raises RunFolderError."""
        teacher = self._job.teachers[name]
        if teacher.has_weights and not cache.card.is_dir():
            save_card(teacher, cache.card, self._job.teacher_data[name].tokenizer, cache.key.teacher)
        self._keep_scores(name, cache)

    @property
    def _computed_in(self) -> str:
        return self._job.recipe.teacher_cache.computed_in or self._engine.precision
