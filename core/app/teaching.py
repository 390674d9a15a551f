"""How the teachers take part in each stage of a run: computed in every step, or once and read from a cache."""

from __future__ import annotations

from rich.console import Console

from ..engine import Engine, Parameters
from ..job import Job
from ..stages import Stage


class Teaching:
    """The teachers of a run."""

    def __init__(self, job: Job, engine: Engine, console: Console):
        self._job, self._engine, self._console = job, engine, console

    def stage(self, index: int, done: bool) -> Stage:
        """Stage `index`, with the teachers' outputs attached to its batches where they are cached. A stage that is `done`
        needs none."""
        return self._job.stage(index)

    def frozen(self, stage: Stage) -> Parameters:
        """The tensors of the teachers that the stage runs, each name preceded by the teacher's."""
        return {
            f"{name}/{tensor}": array
            for name in stage.objective.teacher_outputs
            for tensor, array in self._job.teachers[name].parameters.items()
        }
