"""What a finished student tells of its training beside its own score, in `config.json`: who reads it there is its model card."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Engine
from ..job import Job

_LEFT_OUT = "left out"


def recorded(job: Job, engine: Engine, teachers: dict[str, dict[str, Any]], steps: int) -> dict[str, Any]:
    """Seed, precision, steps of all stages, sizes of the data, and the teachers with their scores on dev."""
    limit, data = job.data.buckets[-1], {}
    for split, table in job.data.tokens.items():
        lengths = np.asarray(table.lengths)
        known: dict[str, Any] = {"rows": len(job.data.examples[split]), "at_limit": round(float((lengths >= limit).mean()), 4)}
        if notes := [note for note in job.data.examples[split].notes if _LEFT_OUT in note]:
            known["left_out"] = notes
        data[split] = known
    models = {name: "/".join(section.model.parts[-2:]) for name, section in job.recipe.model_teachers.items()}
    models |= {name: section.file.path.name for name, section in job.recipe.file_teachers.items()}
    told = {name: {"model": models.get(name, "unknown"), **result} for name, result in teachers.items()}
    about = {"seed": job.recipe.seed, "precision": engine.precision, "steps": steps, "data": data}
    return about | ({"teachers": told} if told else {})
