"""How the teachers take part in each stage of a run: computed in every step, or once and read from a cache.

A cache pays where the training passes over the data more than once. It must be where a student has another tokenizer than
its teacher, whose tokens are then not in the student's batches.

Several processes fill it together and have it checked by the first, whose disk and cache folder decide for all: whatever depends
on the machine (is there room, is it complete, can it be written) is asked of that one only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from ..cache_folder import kind_folder
from ..checkpoint import save_card
from ..data.batches import evaluation_rows
from ..engine import Engine, Frozen
from ..errors import CrossdistilError, DamagedCache, RunFolderError
from ..files import clear_disk_errors, make_folder
from ..job import Job
from ..stages import Stage
from ..task_data import EVALUATION_BATCH
from ..teacher_cache import TeacherCache
from ..teacher_identity import CacheKey, examples_digest, model_digest, tokens_digest
from ..teacher_memory import TeacherMemory
from .loaded_teachers import LoadedTeachers
from .memory import weight_bytes

LARGEST = 64 << 30
"""Bytes above which `auto` does not make a cache, whatever the room."""
LARGEST_IN_MEMORY = 8 << 30
WORTHWHILE_PASSES = 1.5
_LONGEST_NAME = 120
_SEEN_SECONDS = 5.0
"""How long another machine may take to see a new file of the cache."""


@dataclass(frozen=True)
class _Need:
    """What a stage needs of its teachers."""

    stage: str
    outputs: dict[str, tuple[str, ...]]
    """Of each teacher."""
    obstacle: str | None
    """Why they cannot be cached."""


class Teaching:
    """The teachers of a run. Raises CrossdistilError where a stage's teachers cannot be used as the recipe wants."""

    def __init__(self, job: Job, engine: Engine, console: Console):
        self._job, self._engine, self._console, self._world = job, engine, console, job.data.world
        self._loaded = LoadedTeachers(job, engine)
        # On some machines there may be only a folder that stands for the teacher.
        self._with_weights = {name: not self._world.any(not teacher.has_weights) for name, teacher in job.teachers.items()}
        self._made: dict[tuple, TeacherCache] = {}
        self._digests: dict[str, tuple[str, str]] = {}
        self._memories: dict[tuple, TeacherMemory] = {}
        self._scored: dict[str, dict[str, float]] = {}
        # Now, and not when the stages before it are done.
        self._needs = [self._check(job.stage(index)) for index in range(len(job.recipe.stages))]

    def stage(self, index: int, done: bool) -> Stage:
        """Stage `index`, with the teachers' outputs attached to its batches where they are cached. A stage that is `done`
        needs none."""
        plain = self._job.stage(index)
        if done or not plain.objective.needs_teacher:
            return plain
        sources = self._sources(plain)
        later = self._running(self._needs[index + 1 :])
        if sources is None:
            self._loaded.keep(later | plain.objective.teacher_outputs.keys())
            return plain
        self._loaded.keep(later)
        stage = self._job.stage(index, cached=True)

        def outputs(rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
            return {
                f"{name}/{output}": array
                for name, source in sources.items()
                for output, array in source.batch(rows, length).items()
            }

        stage.batches.attach(outputs)
        return stage

    def frozen(self, stage: Stage) -> Frozen:
        """The tensors of the teachers that the stage runs, on the device, each name preceded by the teacher's."""
        if stage.objective.cached:
            return {}
        return {
            f"{name}/{tensor}": value
            for name in stage.objective.teacher_outputs
            for tensor, value in self._loaded.parameters(name).items()
        }

    def scores(self) -> dict[str, dict[str, float]]:
        """The metrics of each teacher on dev: a wrong teacher is seen before the first step. Those of a teacher whose outputs are
        all cached are taken from there, so that it need not be loaded."""
        for name in self._job.teachers:
            self._scored[name] = self._score(name)
        self._loaded.keep(self._running(self._needs))
        return self._scored

    def memory(self) -> str:
        """What the teachers take of the device's memory now, and how it is spared, for a sentence that goes on; empty where
        they take none."""
        words = self.weights_on_device()
        if words and any(need.outputs and not need.obstacle for need in self._needs):
            unread = " and teacher_cache.use: always" if self._job.recipe.teacher_cache.use == "never" else ""
            words += f"with its outputs cached before, by `crossdistil cache teacher RECIPE` on any machine{unread}, none of that; "
        return words

    def weights_on_device(self) -> str:
        """The first part of that."""
        sizes = {name: weight_bytes(self._job.teachers[name], self._engine.precision) for name in sorted(self._loaded.names)}
        return "".join(
            f"the weights of '{name}' take {size:,} bytes of it in {self._engine.precision}; " for name, size in sizes.items()
        )

    def fill(self) -> list[tuple[str, TeacherCache]]:
        """Fill the caches of all stages that can read one, and say in each of which teacher it is, for machines without its
        weights. Returns (teacher, cache) of each."""
        if self._job.recipe.teacher_cache.use == "never":
            raise CrossdistilError("teacher_cache.use: 'never': no run of this recipe would read the cache")
        filled: dict[tuple, tuple[str, TeacherCache]] = {}
        for need in self._needs:
            if need.outputs and need.obstacle:
                self._console.print(f"stage {need.stage}: its teachers run in every step: {need.obstacle}", markup=False)
                continue
            for key in need.outputs.items():
                if key not in filled:
                    filled[key] = key[0], self._cache(*key)
                    self._fill_or_repair(*filled[key])
        if not filled:
            raise CrossdistilError("no stage of the recipe reads its teachers' outputs from a cache")
        self.scores()
        for name, cache in filled.values():
            self._world.lead(self._describe, name, cache)
        return list(filled.values())

    def _score(self, name: str) -> dict[str, float]:
        data, teacher = self._job.teacher_data[name], self._job.teachers[name]
        if "dev" not in data.examples or (data.spec.masked and teacher.missing_words):
            return {}
        caches = self._complete(name)
        of, known = examples_digest(data, self._computed_in), None
        for cache in caches:
            known = cache.scores(of) if known is None else known
        known = json.loads(self._world.first(json.dumps(known).encode()))
        if known is not None:
            return known
        if not self._with_weights[name]:
            self._console.print(f"note: {name}: its scores on this dev split are not known, since its weights are elsewhere")
            return {}
        self._scored[name] = self._loaded.score(name)
        for cache in caches:
            with contextlib.suppress(RunFolderError):
                self._world.lead(self._keep_scores, name, cache)
        return self._scored[name]

    def _keep_scores(self, name: str, cache: TeacherCache) -> None:
        """Where they were computed as the outputs were."""
        metrics = self._scored.get(name)
        if metrics and cache.key.computed_in == self._engine.precision:
            of = examples_digest(self._job.teacher_data[name], self._engine.precision)
            if cache.scores(of) != metrics:
                cache.keep_scores(of, metrics)

    def _describe(self, name: str, cache: TeacherCache) -> None:
        teacher = self._job.teachers[name]
        if teacher.has_weights and not cache.card.is_dir():
            save_card(teacher, cache.card, self._job.teacher_data[name].tokenizer, cache.key.teacher)
        self._keep_scores(name, cache)

    def _complete(self, name: str) -> list[TeacherCache]:
        """The caches of all that the run needs of a teacher, or none if it needs anything that is not in one."""
        needs = [need for need in self._needs if name in need.outputs]
        return [] if name in self._running(needs) else [self._cache(name, need.outputs[name]) for need in needs]

    def _running(self, needs: list[_Need]) -> set[str]:
        """The teachers that have to compute something for these."""
        found, use = set(), self._job.recipe.teacher_cache.use
        for need in needs:
            for name, outputs in need.outputs.items():
                if use == "never" or need.obstacle or not self._agreed(self._cache(name, outputs).complete):
                    found.add(name)
        return found

    def _agreed(self, flag: bool) -> bool:
        """What the first process found."""
        return self._world.first(b"\1" if flag else b"\0") == b"\1"

    @property
    def _computed_in(self) -> str:
        return self._job.recipe.teacher_cache.computed_in or self._engine.precision

    def _check(self, stage: Stage) -> _Need:
        asked, obstacle, apart = self._job.recipe.teacher_cache, self._obstacle(stage), self._apart(stage)
        outputs = {name: tuple(sorted(names)) for name, names in stage.objective.teacher_outputs.items()}
        need = _Need(stage.name, outputs, obstacle)
        self._check_weights(stage, need)
        if not stage.objective.needs_teacher:
            return need
        if asked.use == "always" and obstacle:
            raise CrossdistilError(f"teacher_cache.use: 'always', but {obstacle}")
        if apart and obstacle:
            raise CrossdistilError(f"teacher: '{apart[0]}' has another tokenizer than the student, but {obstacle}")
        if asked.folder is not None and asked.use != "never" and not obstacle:
            for cache in self._caches(stage).values():
                self._world.lead(cache.check_identity)
        return need

    def _check_weights(self, stage: Stage, need: _Need) -> None:
        """Raise CrossdistilError where a stage needs weights that are elsewhere."""
        names = set(need.outputs)
        if stage.objective.replacement is not None:
            names.add(self._job.context.teacher(None))
        for name in sorted(names):
            teacher, use = self._job.teachers[name], self._job.recipe.teacher_cache.use
            if self._with_weights[name]:
                continue
            if stage.objective.replacement is not None:
                why = "replaces its layers"
            elif use == "never" or need.obstacle:
                why = f"runs it in every step: {need.obstacle or 'teacher_cache.use is never'}"
            elif not self._agreed((cache := self._cache(name, need.outputs[name])).complete):
                self._world.lead(cache.check_identity)
                why = f"reads {cache.folder}, which is not there or not complete; `crossdistil cache teacher RECIPE` fills it"
            else:
                continue
            raise CrossdistilError(f"{teacher.source}: holds no weights of '{name}', but stage '{stage.name}' {why}")

    def _apart(self, stage: Stage) -> list[str]:
        """The teachers with another tokenizer than the student's, whose tokens are not in its batches."""
        return [name for name in stage.objective.teacher_outputs if self._job.teacher_data[name] is not self._job.data]

    def _sources(self, stage: Stage) -> dict[str, TeacherCache | TeacherMemory] | None:
        """Where each teacher's outputs come from, or None if the teachers are run in every step."""
        asked, wanted = self._job.recipe.teacher_cache, stage.objective.teacher_outputs
        apart = self._apart(stage)
        if asked.use == "never" or self._obstacle(stage):
            return {name: self._in_memory(name, tuple(sorted(wanted[name]))) for name in wanted} if apart else None
        caches = self._caches(stage)
        if asked.use == "auto" and not apart and not self._agreed(self._pays(stage, caches)):
            return None
        try:
            for name, cache in caches.items():
                self._fill_or_repair(name, cache)
        except RunFolderError as error:
            if asked.use == "always":
                raise CrossdistilError(f"teacher_cache.use: 'always', but {error}") from error
            instead = "the teachers' outputs are kept in memory" if apart else "the teachers run in every step"
            self._console.print(f"teacher_cache: {error}; {instead}", markup=False)
            return {name: self._in_memory(name, tuple(sorted(wanted[name]))) for name in wanted} if apart else None
        return caches

    def _fill_or_repair(self, name: str, cache: TeacherCache) -> None:
        try:
            self._fill(name, cache)
        except DamagedCache:
            # One in the user's folder is the user's; in our own nothing is lost that can be made again.
            if self._job.recipe.teacher_cache.folder is not None or not self._with_weights[name]:
                raise
            self._console.print(f"{name}: {cache.folder} is damaged, and is made again")
            self._world.lead(cache.discard)
            self._fill(name, cache)

    def _obstacle(self, stage: Stage) -> str | None:
        """Why outputs cannot be cached."""
        if self._job.recipe.teacher_dropout:
            return "teacher_dropout makes its outputs different in every step"
        if self._job.data.spec.masked:
            return "it sees masked texts, which are masked anew in every epoch"
        padded = [term.loss for term in stage.objective.terms if term.unit in ("positions", "position_pairs")]
        return f"{padded[0]} with mask_padding: false compares padding, which is not cached" if padded else None

    def _pays(self, stage: Stage, caches: dict[str, TeacherCache]) -> bool:
        if all(cache.complete for cache in caches.values()):
            return True
        passes = stage.total / stage.batches.steps_per_epoch
        size = sum(cache.missing for cache in caches.values())
        folder = next(iter(caches.values())).folder
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.is_dir())).free
        pays = passes >= WORTHWHILE_PASSES and size <= min(LARGEST, free / 2)
        if not pays and passes >= WORTHWHILE_PASSES:
            room = f"{size / 1e9:.1f} GB, with {free / 1e9:.1f} GB free"
            self._console.print(f"stage {stage.name}: the teachers run in every step; a cache would take {room}")
        return pays

    def _caches(self, stage: Stage) -> dict[str, TeacherCache]:
        wanted = stage.objective.teacher_outputs
        return {name: self._cache(name, tuple(sorted(wanted[name]))) for name in wanted}

    def _cache(self, name: str, outputs: tuple[str, ...]) -> TeacherCache:
        if (name, outputs) in self._made:
            return self._made[name, outputs]
        asked, teacher, table = self._job.recipe.teacher_cache, self._job.teachers[name], self._table(name)
        if name not in self._digests:
            self._digests[name] = model_digest(teacher), tokens_digest(table)
        key = CacheKey(*self._digests[name], outputs, asked.precision, self._computed_in)
        if asked.folder is None:
            folder = kind_folder("teacher") / key.digest
        else:
            folder = Path(asked.folder) / name / _folder_name(outputs)
        if self._world.size > 1:  # the first process's, since the others may have another cache, or another current folder
            folder = Path(os.fsdecode(self._world.first(os.fsencode(folder.absolute()))))
        self._made[name, outputs] = TeacherCache(folder, key, teacher, table.lengths)
        return self._made[name, outputs]

    def _table(self, name: str):
        return self._job.teacher_data[name].tokens["train"]

    def _fill(self, name: str, cache: TeacherCache) -> None:
        outputs = ", ".join(cache.key.outputs)
        self._check_seen(cache)
        cache.hold()
        complete = self._agreed(cache.complete)
        if not complete:
            self._refuse_other_precision(cache)
            size = f"{cache.size / 1e6:,.1f} MB in {cache.key.precision}"
            self._console.print(f"{name}: {outputs} for {len(self._table(name).lengths):,} rows, {size}, go to {cache.folder}")

            def tell(done: int, total: int) -> None:
                self._console.print(f"{name}: {done:,} of {total:,} rows are cached")

            plan = evaluation_rows(self._table(name), EVALUATION_BATCH)
            cache.write(plan, self._loaded.outputs(name, cache.key.outputs), tell, self._world)
            with contextlib.suppress(RunFolderError):  # it is complete all the same
                self._world.lead(self._describe, name, cache)
        else:
            self._console.print(f"{name}: {outputs} from {cache.folder}")
        # One process looks at every byte, if none has just written them.
        self._world.together(cache.open, not complete or self._world.rank > 0)

    def _check_seen(self, cache: TeacherCache) -> None:
        """Raise RunFolderError, in all processes, where some do not see the first one's files: on another machine, whose disk is
        another one."""
        if self._world.size == 1:
            return
        name = self._world.first(f".seen-{os.getpid()}-{time.time_ns()}".encode()).decode()
        there = self._agreed(cache.complete)
        mark = cache.folder / ("complete.json" if there else name)

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

    def _in_memory(self, name: str, outputs: tuple[str, ...]) -> TeacherMemory:
        key = (name, outputs)
        if key not in self._memories:
            compute = self._loaded.outputs(name, outputs)

            def in_eights(rows: np.ndarray) -> list[np.ndarray]:
                return compute(np.append(rows, np.full(-len(rows) % 8, -1, rows.dtype)))

            memory = TeacherMemory(outputs, self._job.teachers[name], self._table(name).lengths, in_eights)
            if memory.size > LARGEST_IN_MEMORY:
                raise CrossdistilError(
                    f"teacher_cache.use: {self._job.recipe.teacher_cache.use!r}, but a teacher has another tokenizer than the "
                    f"student, and without a cache on the disk {name}'s outputs would take {memory.size / 1e9:.1f} GB of memory; "
                    "'auto' keeps them on the disk where it can be written"
                )
            self._console.print(f"{name}: {', '.join(outputs)} are kept in memory")
            self._memories[key] = memory
        return self._memories[key]


def _folder_name(outputs: tuple[str, ...]) -> str:
    """For people to read, and never longer than a file's name may be."""
    name = "+".join(output.replace("/", "-") for output in outputs)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}+{hashlib.sha256(name.encode()).hexdigest()[:16]}"
