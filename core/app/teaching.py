"""How the teachers take part in each stage of a run: computed in every step, or once and read from a cache.

A cache pays where the training passes over the data more than once. It must be where a student has another tokenizer than
its teacher, whose tokens are then not in the student's batches.

Of several processes the first one's disk and cache folder decide for all: whatever depends on the machine (is there room, is it
complete, can it be written) is asked of that one only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from ..data.taught import Taught, TaughtTokens
from ..engine import Engine, Frozen
from ..errors import CrossdistilError, RunFolderError
from ..job import Job
from ..labelled.kept_answers import file_answers, file_scores
from ..stages import Stage
from ..teacher_cache import TeacherCache
from ..teacher_memory import TeacherMemory
from .cache_worth import is_worthwhile, obstacle_to_caching, room_for
from .loaded_teachers import LoadedTeachers
from .memory import weight_bytes
from .teacher_caches import TeacherCaches

LARGEST_IN_MEMORY = 8 << 30


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
        self._kept = TeacherCaches(job, engine, console, self._loaded)
        self._memories: dict[tuple, TeacherMemory] = {}
        self._files = frozenset(job.recipe.file_teachers)
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

        def outputs(rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
            return {
                f"{name}/{output}": array
                for name, source in sources.items()
                for output, array in source.batch(rows, length).items()
            }

        return plain.from_cache(outputs)

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
        found = {name: self._kept.score(name, self._complete(name)) for name in self._job.teachers}
        found |= {name: file_scores(self._job.data, name) for name in self._files}
        self._loaded.keep(self._running(self._needs))
        return found

    def answers(self) -> dict[str, np.ndarray]:
        """The logits on dev (examples, outputs) of each teacher that `scores` has scored, as far as they are known and what the
        student answers too: what a reranker scores pairs with is no cosine."""
        kept = {name: logits for name, logits in self._kept.answers.items() if name not in self._job.recipe.rerankers}
        return kept | {
            name: logits for name in sorted(self._files) if (logits := file_answers(self._job.data, name)) is not None
        }

    def memory(self) -> str:
        """What the teachers take of the device's memory now, and how it is spared, for a sentence that goes on; empty where
        they take none."""
        words = self.weights_on_device()
        if words and any(need.outputs and not need.obstacle for need in self._needs):
            unread = " and teacher_cache.use: always" if self._job.recipe.teacher_cache.use == "never" else ""
            words += (
                f"with its outputs cached before, by `crossdistil cache teacher RECIPE` on any machine{unread}, none of that; "
            )
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
        wanted: dict[str, set[str]] = {}
        for need in self._needs:
            if need.outputs and need.obstacle:
                self._console.print(f"stage {need.stage}: its teachers run in every step: {need.obstacle}", markup=False)
                continue
            for name, outputs in need.outputs.items():
                wanted.setdefault(name, set()).update(outputs)
        if not wanted:
            raise CrossdistilError("no stage of the recipe reads its teachers' outputs from a cache")
        filled = [(name, self._kept.cache(name, tuple(sorted(outputs)))) for name, outputs in wanted.items()]
        for name, cache in filled:
            self._kept.fill(name, cache, cache)
        self.scores()
        for name, cache in filled:
            self._world.lead(self._kept.describe, name, cache)
        return filled

    def _complete(self, name: str) -> list[TeacherCache]:
        """The caches of all that the run needs of a teacher, or none if it needs anything that is not in one."""
        needs = [need for need in self._needs if name in need.outputs]
        return [] if name in self._running(needs) else [self._kept.cache(name, need.outputs[name]) for need in needs]

    def _running(self, needs: list[_Need]) -> set[str]:
        """The teachers that have to compute something for these."""
        found, use = set(), self._job.recipe.teacher_cache.use
        for need in needs:
            for name, outputs in need.outputs.items():
                if use == "never" or need.obstacle or not self._world.decide(self._kept.cache(name, outputs).complete):
                    found.add(name)
        return found

    def _check(self, stage: Stage) -> _Need:
        asked, obstacle, apart = self._job.recipe.teacher_cache, obstacle_to_caching(self._job, stage), self._apart(stage)
        wanted = stage.objective.teacher_outputs
        outputs = {name: tuple(sorted(names)) for name, names in wanted.items() if name not in self._files}
        need = _Need(stage.name, outputs, obstacle if outputs else None)
        self._check_weights(stage, need)
        if not outputs or not stage.objective.needs_teacher:
            return need
        if asked.use == "always" and obstacle:
            raise CrossdistilError(f"teacher_cache.use: 'always', but {obstacle}")
        if apart and obstacle:
            what = "has another tokenizer than the student"
            if apart[0] in self._files:
                what = "is a file of answers"
            elif apart[0] in self._job.recipe.rerankers:
                what = "reads pairs of the student's texts"
            raise CrossdistilError(f"teacher: '{apart[0]}' {what}, but {obstacle}")
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
            if self._kept.with_weights[name]:
                continue
            if stage.objective.replacement is not None:
                why = "replaces its layers"
            elif use == "never" or need.obstacle:
                why = f"runs it in every step: {need.obstacle or 'teacher_cache.use is never'}"
            elif not self._world.decide((cache := self._kept.cache(name, need.outputs[name])).complete):
                self._world.lead(cache.check_identity)
                why = f"reads {cache.folder}, which is not there or not complete; `crossdistil cache teacher RECIPE` fills it"
            else:
                continue
            raise CrossdistilError(f"{teacher.source}: holds no weights of '{name}', but stage '{stage.name}' {why}")

    def _apart(self, stage: Stage) -> list[str]:
        """The teachers that cannot be run on the student's batches: with another tokenizer than the student's, whose tokens are
        not in them, and files of answers."""
        data, wanted = self._job.teacher_data, stage.objective.teacher_outputs
        return [name for name in wanted if name in self._files or data[name] is not self._job.data]

    def _sources(self, stage: Stage) -> dict[str, TeacherCache | TeacherMemory | Taught | TaughtTokens] | None:
        """Where each teacher's outputs come from, or None if the teachers are run in every step."""
        wanted, apart = stage.objective.teacher_outputs, self._apart(stage)
        taught, table = self._job.data.examples["train"].taught, self._job.data.tokens["train"]
        files = {name: taught[name].in_rows(table) for name in wanted if name in self._files}
        if files:
            rest = {name: outputs for name, outputs in wanted.items() if name not in files}
            return files | (self._sources_of(stage, rest, apart) or {})
        return self._sources_of(stage, wanted, apart)

    def _sources_of(
        self, stage: Stage, wanted: Mapping[str, frozenset[str]], apart: list[str]
    ) -> dict[str, TeacherCache | TeacherMemory] | None:
        """The same of some teachers, which are models; where any teacher is `apart`, none is run in every step."""
        asked = self._job.recipe.teacher_cache
        if not wanted:
            return {}
        if asked.use == "never" or obstacle_to_caching(self._job, stage):
            return {name: self._in_memory(name, tuple(sorted(wanted[name]))) for name in wanted} if apart else None
        caches = self._caches(stage)
        if asked.use == "auto" and not apart and not self._world.decide(self._pays(stage, caches)):
            return None
        try:
            for name, cache in self._with_later(stage, caches).items():
                self._kept.fill(name, cache, caches[name])
        except RunFolderError as error:
            if asked.use == "always":
                raise CrossdistilError(f"teacher_cache.use: 'always', but {error}") from error
            instead = "the teachers' outputs are kept in memory" if apart else "the teachers run in every step"
            self._console.print(f"teacher_cache: {error}; {instead}", markup=False)
            return {name: self._in_memory(name, tuple(sorted(wanted[name]))) for name in wanted} if apart else None
        return caches

    def _with_later(self, stage: Stage, caches: dict[str, TeacherCache]) -> dict[str, TeacherCache]:
        """The caches of a stage with what later stages will read as well, as far as there is room: each teacher then goes over
        the rows once, and not once for every stage."""
        for later in map(self._job.stage, range(stage.index + 1, len(self._needs))):
            need = self._needs[later.index]
            reads = self._job.recipe.teacher_cache.use == "always" or self._apart(later) or is_worthwhile(later)
            if not need.outputs or need.obstacle or not reads:
                continue
            names = {name: {*cache.key.outputs, *need.outputs.get(name, ())} for name, cache in caches.items()}
            more = {name: self._kept.cache(name, tuple(sorted(outputs))) for name, outputs in names.items()}
            if self._world.decide(room_for(more.values())[0]):
                caches = more
        return caches

    def _pays(self, stage: Stage, caches: dict[str, TeacherCache]) -> bool:
        if all(cache.complete for cache in caches.values()):
            return True
        if not is_worthwhile(stage):
            return False
        enough, room = room_for(caches.values())
        if not enough:
            self._console.print(f"stage {stage.name}: the teachers run in every step; a cache would take {room}")
        return enough

    def _caches(self, stage: Stage) -> dict[str, TeacherCache]:
        wanted = stage.objective.teacher_outputs
        return {name: self._kept.cache(name, tuple(sorted(wanted[name]))) for name in wanted if name not in self._files}

    def _in_memory(self, name: str, outputs: tuple[str, ...]) -> TeacherMemory:
        key = (name, outputs)
        if key not in self._memories:
            compute = self._loaded.outputs(name, outputs)

            def in_eights(rows: np.ndarray) -> list[np.ndarray]:
                return compute(np.append(rows, np.full(-len(rows) % 8, -1, rows.dtype)))

            memory = TeacherMemory(outputs, self._job.teachers[name], self._kept.table(name).lengths, in_eights)
            if memory.size > LARGEST_IN_MEMORY:
                raise CrossdistilError(
                    f"teacher_cache.use: {self._job.recipe.teacher_cache.use!r}, but a teacher has another tokenizer than the "
                    f"student, and without a cache on the disk {name}'s outputs would take {memory.size / 1e9:.1f} GB of memory; "
                    "'auto' keeps them on the disk where it can be written"
                )
            self._console.print(f"{name}: {', '.join(outputs)} are kept in memory")
            self._memories[key] = memory
        return self._memories[key]
