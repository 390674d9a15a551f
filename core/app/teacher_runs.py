"""What a teacher answers on dev, where the run that trained it has kept that: it need not be computed again."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checkpoint import WEIGHTS, Model
from ..checksums import Damaged, changed_files, noted_checksums
from ..engine import Engine
from ..errors import CrossdistilError
from ..predictions import are_of_student, read_predictions
from ..run_files import RESULT, STUDENT
from ..run_result import read_result
from ..task_data import MISMATCHED, TaskData


def answers_of_run(teacher: Model, data: TaskData, engine: Engine) -> np.ndarray | None:
    """The teacher's logits (examples, outputs) on dev by its run folder: of the same rows and length, by the same files of the
    model, computed by the same backend on such a device in the same precision. None where there are none such."""
    source, kind = teacher.source, data.spec.kind
    if source is None or source.name != STUDENT or not (source.parent / RESULT).is_file():
        return None
    if kind.over_tokens or kind.embeds or kind.ranks or not kind.has_targets or MISMATCHED in data.examples:
        return None  # what is kept are no logits, or not all
    try:
        result = read_result(source.parent)
        found = read_predictions(source.parent, result)
    except CrossdistilError:
        return None
    computed = [result.get(key) for key in ("backend", "device", "precision")] == [engine.name, engine.device, engine.precision]
    same = found is not None and found.rows == data.dev_rows and teacher.about.get("max_length") == data.buckets[-1]
    return found.logits if computed and same and _is_its_student(teacher, result) else None


def _is_its_student(teacher: Model, result: dict[str, Any]) -> bool:
    """Whether the model is the one that the run ended with. Its weights were compared with checksums.json when they were read,
    which may have been replaced with them: what the run noted of them beside its answers must be the same, and runs of earlier
    versions noted nothing. Its configuration and vocabulary, which people edit, only have a warning there."""
    run = result.get("recipe_digest"), (result.get("student") or {}).get("kept_step")
    if run != (teacher.about.get("recipe_digest"), teacher.about.get("step")):
        return False
    try:
        noted = noted_checksums(teacher.source)
        if noted is None or not are_of_student(teacher.source.parent, result):
            return False
        return not changed_files(teacher.source, noted, noted.keys() - {WEIGHTS})
    except Damaged:
        return False
