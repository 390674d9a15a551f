"""How the teachers take part in each stage of a run: computed in every step, or once and read from a cache.

A cache pays where the training passes over the data more than once. It must be where a student has another tokenizer than
its teacher, whose tokens are then not in the student's batches.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console

from ..cache_folder import kind_folder
from ..data.batches import RowBatches, evaluation_rows
from ..engine import Engine, Parameters
from ..errors import CrossdistilError, RunFolderError
from ..job import Job
from ..models.architectures import make_forward
from ..stages import Stage
from ..task_data import EVALUATION_BATCH
from ..teacher_cache import DamagedCache, TeacherCache
from ..teacher_identity import CacheKey, model_digest, tokens_digest
from ..teacher_memory import TeacherMemory

LARGEST = 64 << 30
"""Bytes above which `auto` does not make a cache, whatever the room."""
LARGEST_IN_MEMORY = 8 << 30
WORTHWHILE_PASSES = 1.5
_LONGEST_NAME = 120


class Teaching:
    """The teachers of a run. Raises CrossdistilError where a stage's teachers cannot be used as the recipe wants."""

    def __init__(self, job: Job, engine: Engine, console: Console):
        self._job, self._engine, self._console = job, engine, console
        self._model_digests: dict[str, str] = {}
        self._memories: dict[tuple, TeacherMemory] = {}
        for index in range(len(job.recipe.stages)):  # now, and not when the stages before it are done
            self._check(job.stage(index))

    def stage(self, index: int, done: bool) -> Stage:
        """Stage `index`, with the teachers' outputs attached to its batches where they are cached. A stage that is `done`
        needs none."""
        plain = self._job.stage(index)
        if done or not plain.objective.needs_teacher:
            return plain
        sources = self._sources(plain)
        if sources is None:
            return plain
        stage = self._job.stage(index, cached=True)

        def outputs(rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
            return {
                f"{name}/{output}": array
                for name, source in sources.items()
                for output, array in source.batch(rows, length).items()
            }

        stage.batches.attach(outputs)
        return stage

    def frozen(self, stage: Stage) -> Parameters:
        """The tensors of the teachers that the stage runs, each name preceded by the teacher's."""
        if stage.objective.cached:
            return {}
        return {
            f"{name}/{tensor}": array
            for name in stage.objective.teacher_outputs
            for tensor, array in self._job.teachers[name].parameters.items()
        }

    def _check(self, stage: Stage) -> None:
        asked, obstacle, apart = self._job.recipe.teacher_cache, self._obstacle(stage), self._apart(stage)
        if not stage.objective.needs_teacher:
            return
        if asked.use == "always" and obstacle:
            raise CrossdistilError(f"teacher_cache.use: 'always', but {obstacle}")
        if apart and obstacle:
            raise CrossdistilError(f"teacher: '{apart[0]}' has another tokenizer than the student, but {obstacle}")
        if asked.folder is not None and asked.use != "never" and not obstacle:
            for cache in self._caches(stage).values():
                cache.check_identity()

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
        if asked.use == "auto" and not apart and not self._pays(stage, caches):
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
            if self._job.recipe.teacher_cache.folder is not None:  # the user's; in our own folder nothing is lost
                raise
            self._console.print(f"{name}: {cache.folder} is damaged, and is made again")
            cache.discard()
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
        job, asked = self._job, self._job.recipe.teacher_cache
        if name not in self._model_digests:
            self._model_digests[name] = model_digest(job.teachers[name])
        table = job.teacher_data[name].tokens["train"]
        key = CacheKey(self._model_digests[name], tokens_digest(table), outputs, asked.precision, self._engine.precision)
        if asked.folder is None:
            folder = kind_folder("teacher") / key.digest
        else:
            folder = Path(asked.folder) / name / _folder_name(outputs)
        return TeacherCache(folder, key, job.teachers[name], table.lengths)

    def _fill(self, name: str, cache: TeacherCache) -> None:
        outputs = ", ".join(cache.key.outputs)
        cache.hold()
        if not cache.complete:
            size = f"{cache.size / 1e6:,.1f} MB in {cache.key.precision}"
            self._console.print(f"{name}: {outputs} for {self._rows(name):,} rows, {size}, go to {cache.folder}")

            def tell(done: int, total: int) -> None:
                self._console.print(f"{name}: {done:,} of {total:,} rows are cached")

            plan = evaluation_rows(self._job.teacher_data[name].tokens["train"], EVALUATION_BATCH)
            cache.write(plan, self._batch_outputs(name, cache.key.outputs), tell)
        else:
            self._console.print(f"{name}: {outputs} from {cache.folder}")
        cache.open()

    def _in_memory(self, name: str, outputs: tuple[str, ...]) -> TeacherMemory:
        key = (name, outputs)
        if key not in self._memories:
            table = self._job.teacher_data[name].tokens["train"]
            memory = TeacherMemory(outputs, self._job.teachers[name], table.lengths, self._row_outputs(name, outputs))
            if memory.size > LARGEST_IN_MEMORY:
                raise CrossdistilError(
                    f"teacher_cache.use: {self._job.recipe.teacher_cache.use!r}, but a teacher has another tokenizer than the "
                    f"student, and without a cache on the disk {name}'s outputs would take {memory.size / 1e9:.1f} GB of memory; "
                    "'auto' keeps them on the disk where it can be written"
                )
            self._console.print(f"{name}: {', '.join(outputs)} are kept in memory")
            self._memories[key] = memory
        return self._memories[key]

    def _rows(self, name: str) -> int:
        return len(self._job.teacher_data[name].tokens["train"].lengths)

    def _infer(self, name: str, outputs: tuple[str, ...]) -> Callable[[dict[str, np.ndarray]], list[np.ndarray]]:
        teacher = self._job.teachers[name]
        forward = make_forward(teacher.config.without_dropout(), frozenset(outputs))

        def function(ops, params, batch):
            made = forward(ops, params, batch)
            return [made[output] for output in outputs]

        return self._engine.infer(function, teacher.parameters)

    def _batch_outputs(self, name: str, outputs: tuple[str, ...]) -> Callable[[np.ndarray], list[np.ndarray]]:
        """`f(rows)`: the teacher's outputs for some training rows, of which -1 only fills."""
        data, infer = self._job.teacher_data[name], self._infer(name, outputs)
        batches = RowBatches(data.tokens["train"], None, data.buckets)
        return lambda rows: infer(batches.batch(rows))

    def _row_outputs(self, name: str, outputs: tuple[str, ...]) -> Callable[[np.ndarray], list[np.ndarray]]:
        """The same in batches whose size is a multiple of 8."""
        compute = self._batch_outputs(name, outputs)
        return lambda rows: compute(np.append(rows, np.full(-len(rows) % 8, -1, rows.dtype)))


def _folder_name(outputs: tuple[str, ...]) -> str:
    """For people to read, and never longer than a file's name may be."""
    name = "+".join(output.replace("/", "-") for output in outputs)
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}+{hashlib.sha256(name.encode()).hexdigest()[:16]}"
