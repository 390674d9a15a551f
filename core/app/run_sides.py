"""The models of a run that answer texts, and the texts of dev: from its job where it ends, or later from its folder. Their
latency is measured with them (`run_latency`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from ...backends.registry import load_engine
from ..checkpoint import load_model
from ..data.batches import length_buckets
from ..engine import Engine, EngineOptions, unheard
from ..errors import CrossdistilError
from ..job import Job
from ..model_inputs import trained_length
from ..registered import Registered
from ..run_files import LATENCY, STUDENT
from ..task_data import tokenize
from .dev_texts import read_dev
from .finished_model import load_classifier
from .run_latency import STUDENT_NAME, TEACHER_NAME, Side, measured, write_latency
from .waiting import told_if_long


def measure_finished(folder: Path, job: Job, engine: Engine, console: Console) -> None:
    """The latency of a run that has just ended, in its folder. The run is complete whatever becomes of it: what goes wrong is one
    line. Not for an engine that compiles each shape, which a batch of one text costs many seconds: there is `measure_later`."""
    try:
        sides = _of_job(folder, job)
        if sides:
            with told_if_long(console, f"{engine.name}: measuring the time for one text"):
                found = measured(sides, engine)
            write_latency(folder, found)
    except Exception as error:  # also what nobody foresaw: a figure is not worth the exit code of a finished training
        logging.getLogger(__name__).debug("the latency of %s", folder, exc_info=True)
        reason = str(error).partition("\n")[0] or type(error).__name__
        console.print(f"{folder / LATENCY}: not measured: {reason}; the run is complete", markup=False)


def _of_job(folder: Path, job: Job) -> dict[str, Side]:
    """The teachers whose weights are at hand, and the student as it was written; nothing where they answer no texts of dev."""
    if not job.data.spec.kind.has_targets or "dev" not in job.data.tokens:
        return {}
    sides = {}
    for name, teacher in job.teachers.items():
        data = job.teacher_data[name]
        if teacher.has_weights and data.spec.kind == job.data.spec.kind:  # else it does not take what the student takes
            given = job.recipe.model_teachers[name].model  # not the cache's folder that a converted one was read from
            sides[_key(name)] = Side(given, teacher, data.tokens["dev"], data.buckets[-1])
    student = load_model(folder / STUDENT, classifier=job.data.spec.kind.head)
    return sides | {STUDENT_NAME: Side(folder / STUDENT, student, job.data.tokens["dev"], job.data.buckets[-1])}


def _key(name: str) -> str:
    """What a teacher is called beside the student, whatever its own name is."""
    return name if name == TEACHER_NAME else f"{TEACHER_NAME}/{name}"


def measure_later(
    folder: Path,
    result: dict[str, Any],
    recipe: dict[str, Any],
    backend: str,
    registered: Registered,
    tell: Callable[[str], None],
) -> None:
    """The same of a run that ended before, with the texts that its task has now. Raises CrossdistilError."""
    spec, examples = read_dev(recipe, registered)
    head = None if spec.kind.embeds else spec.kind.head
    sections = {"teacher": recipe["teacher"]} if recipe.get("teacher") else recipe.get("teachers") or {}
    places = {_key(name): Path(found["model"]) for name, found in sections.items() if found.get("model")}
    sides = {}
    for name, place in {**places, STUDENT_NAME: folder / STUDENT}.items():
        try:
            model, tokenizer = load_classifier(place, unheard, head)
        except CrossdistilError as error:
            if name == STUDENT_NAME:
                raise
            tell(f"{name}: its latency is not measured: {str(error).splitlines()[0]}")
            continue
        if not model.kind.can_teach(spec.kind):
            continue
        length = trained_length(model, recipe["task"].get("max_length") if spec.kind.over_tokens else None)
        read = tokenize(spec, tokenizer, length_buckets(length, 1), {"dev": examples}, length)
        sides[name] = Side(place, model, read.tokens["dev"], length)
    write_latency(folder, measured(sides, load_engine(backend, EngineOptions(None, result.get("precision", "fp32")))))
