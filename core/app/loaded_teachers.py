"""The weights of a run's teachers on its device: loaded when they are first needed, once for all that needs them, and given back
when nothing does any more."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from ..data.row_batches import RowBatches
from ..engine import Engine, Frozen
from ..job import Job
from ..models.architectures import make_forward


class LoadedTeachers:
    """The teachers of a job on the device of an engine."""

    def __init__(self, job: Job, engine: Engine):
        self._job, self._engine = job, engine
        self._loaded: dict[str, Frozen] = {}
        self.names: set[str] = set()
        """Of those that are on the device, or were to be."""

    def parameters(self, name: str) -> Frozen:
        """The weights of a teacher. Raises CheckpointError where they are elsewhere."""
        self.names.add(name)
        if name not in self._loaded:
            self._loaded[name] = self._engine.load_frozen(self._job.teachers[name].parameters)
        return self._loaded[name]

    def keep(self, names: Iterable[str]) -> None:
        """Give back the weights of all others."""
        kept = set(names)
        self.names &= kept
        self._loaded = {name: parameters for name, parameters in self._loaded.items() if name in kept}

    def score(self, name: str) -> tuple[dict[str, float], np.ndarray | None]:
        """The teacher's metrics on the task's dev split, and its logits there, of which masked words have none."""
        data, teacher = self._job.teacher_data[name], self._job.teachers[name]
        found = data.final(self._engine.infer(data.answers(teacher.config), self.parameters(name)))
        return found.metrics, found.logits

    def outputs(self, name: str, outputs: tuple[str, ...]) -> Callable[[np.ndarray], list[np.ndarray]]:
        """`f(rows)`: outputs of a teacher for a batch of training rows, of which -1 only fills. The first call loads it."""
        data, infer = self._job.teacher_data[name], None
        batches = RowBatches(data.tokens["train"], None, data.buckets)
        forward = make_forward(self._job.teachers[name].config.without_dropout(), frozenset(outputs))

        def function(ops, params, batch):
            made = forward(ops, params, batch)
            return [made[output] for output in outputs]

        def compute(rows: np.ndarray) -> list[np.ndarray]:
            nonlocal infer
            if infer is None:
                infer = self._engine.infer(function, self.parameters(name))
            return infer(batches.batch(rows))

        return compute
