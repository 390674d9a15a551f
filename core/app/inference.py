"""A finished model's score on a task. Several processes share the batches out."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..checkpoint import Model
from ..data.batches import length_buckets
from ..data.tagged_tasks import without_numbers
from ..data.task_specs import GLUE_TASKS, glue_task
from ..data.tasks import resolve_task
from ..engine import Engine, EngineOptions
from ..errors import CrossdistilError, DataError, did_you_mean
from ..fit import fit_problems, teacher_problems
from ..kinds.kind import Kind
from ..metrics import is_known_metric
from ..model_answers import logits_function
from ..model_inputs import trained_length
from ..models.answer_heads import SENTENCES
from ..recipe_errors import describe
from ..registered import NOTHING, Registered
from ..run_files import RECIPE
from ..shown import plain
from ..task_data import TaskData, load_scored
from ..task_section import TaskSection, loaded_task_section, with_folder
from .data_report import data_lines, data_warnings, one_answer
from .exported import runtime_of
from .finished_model import load_classifier, warn
from .model_notes import told_engine
from .run_folders import plugins_of
from .sessions import Session, Tell, session


def evaluate(
    folder: Path,
    task: str | None,
    data: Path,
    split: str,
    backend: str,
    options: EngineOptions,
    max_length: int | None = None,
    columns: dict[str, str | None] | None = None,
    tell: Tell | None = None,
    registered: Registered = NOTHING,
) -> dict[str, float]:
    """The model's metrics on a split of a task: of the one that it was trained on, unless `task` names another, GLUE's or one
    whose `columns` (text, text_pair, label) are given. `tell` is told of the data and of the time from token ids to metrics;
    without it, what looks wrong is logged. Its metrics may be `registered` by plugins."""
    with session(backend, options) as own:
        tell = own.teller(tell)
        return answered(folder, task, data, split, own, max_length, columns, tell, registered).metrics


@dataclass(frozen=True)
class Answered:
    """A model that has answered a split."""

    model: Model
    data: TaskData
    metrics: dict[str, float]
    logits: np.ndarray
    """(examples, outputs), in the order of the file."""


def answered(
    folder: Path,
    task: str | None,
    data: Path,
    split: str,
    own: Session,
    max_length: int | None = None,
    columns: dict[str, str | None] | None = None,
    tell: Tell | None = None,
    registered: Registered | None = NOTHING,
    check: Callable[[TaskData], None] | None = None,
) -> Answered:
    """As `evaluate`, with all that it found, in a session. Without `registered`, metrics of a plugin are left out; `check` may
    refuse the data before any of them is answered."""
    model, loaded, engine = own.world.together(_prepared, folder, task, data, split, own, max_length, columns, tell, registered)
    if check is not None:
        check(loaded)
    loaded.world = own.world
    for line in data_lines(loaded) if tell is not None else ():
        tell(line)
    for line in data_warnings(loaded, split):
        warn(line, tell)
    infer, started = engine.infer(logits_function(model.config), model.parameters), time.perf_counter()
    metrics, logits = loaded.score(split, infer)
    seconds, count = time.perf_counter() - started, len(loaded.examples[split])
    if tell is not None:
        compiled = ", compilation included" if engine.length_step is None else ""
        what, one = ("queries", "query") if loaded.spec.kind.ranks else ("texts", "text")
        tell(f"evaluated {count:,} {what} in {seconds:.3f} s: {1000 * seconds / count:.3f} ms a {one}{compiled}")
    same = one_answer(loaded.spec.kind, loaded.spec.label_names, logits, loaded.examples[split].labels, split)
    if same is not None:
        warn(same, tell)
    return Answered(model, loaded, metrics, logits)


def _prepared(
    folder: Path,
    task: str | None,
    data: Path,
    split: str,
    processes: Session,
    max_length: int | None,
    columns: dict[str, str | None] | None,
    tell: Tell | None,
    registered: Registered | None,
) -> tuple[Model, TaskData, Engine]:
    """What `evaluate` needs, checked."""
    given = {key: name for key, name in (columns or {}).items() if name is not None}
    of_sentences = bool(given) or task is not None and glue_task(task) is not None
    model, tokenizer = load_classifier(folder, tell, None, SENTENCES if of_sentences else None)
    own = model.about.get("task", {})
    if given and not given.keys() >= {"text", "label"}:
        raise CrossdistilError(f"--{'label' if 'text' in given else 'text'}: needed beside --{next(iter(given))}")
    if task is None and not own and not given:
        raise CrossdistilError(f"{folder}: does not say what task it was trained on; name it with --task")
    other = task not in (None, own.get("name"))
    if other and glue_task(task) is None and not given:
        near = did_you_mean(task, GLUE_TASKS) or f"; there are {', '.join(GLUE_TASKS)}"
        raise CrossdistilError(
            f"--task {task}: neither a GLUE task nor the one that {folder} was trained on{near}; for a task of your own give "
            "--text and --label"
        )
    described = {"name": task} if other else own or {"name": "task"}
    if not other and not given and glue_task(described["name"]) is None and model.kind.has_classes:
        described = {"labels": model.labels, **described}  # there need be no train file beside the one to score on
    if model.kind.embeds:
        described = {**described, "kind": model.kind.name}
    described = _with_metrics(folder, described, registered, tell, model.kind)
    try:
        section = loaded_task_section()(**{**described, **given, "data": data, "max_length": trained_length(model, max_length)})
    except ValidationError as error:
        raise CrossdistilError("\n".join(f"{folder}: {line}" for line in describe(error, TaskSection, "task"))) from None
    section = with_folder(section, "--data")
    spec = resolve_task(section, registered or NOTHING)
    if "labels" not in own:
        spec = without_numbers(spec)
    problems = teacher_problems(model, spec, str(folder))
    problems += fit_problems(str(folder), model.config, tokenizer, section)
    if problems:
        raise CrossdistilError("\n".join(problems))
    engine = runtime_of(model) or told_engine(processes.engine(), tell)
    loaded = load_scored(spec, section, tokenizer, length_buckets(section.max_length, engine.length_step), split)
    if loaded.examples[split].labels is None:
        raise DataError(f"{data}: the split '{split}' has no labels to evaluate with; use predict")
    return model, loaded, engine


def _with_metrics(
    folder: Path, task: dict[str, Any], registered: Registered | None, tell: Tell | None, kind: Kind
) -> dict[str, Any]:
    """The task that a model was trained on, with metrics that are crossdistil's own or registered. Of others, which were a
    plugin's, raises CrossdistilError; without `registered`, leaves them out and says so."""
    given = task.get("metrics")
    own = (registered or NOTHING).metrics
    listed = given if isinstance(given, (list, tuple)) else []
    missing = [name for name in listed if name not in (*own, *kind.measures) and not is_known_metric(str(name))]
    if not missing:
        return task
    names = plain(", ".join(missing))
    what = f"the metric {names} of a plugin" if len(missing) == 1 else f"the metrics {names} of plugins"
    if registered is None:
        warn(f"{folder}: was trained with {what}, left out here", tell)
        return {**task, "metrics": [name for name in given if name not in missing] or None}
    files = next((plugins_of(place) for place in (folder, folder.parent) if (place / RECIPE).is_file()), [])
    need = " ".join(f"--plugin {shlex.quote(file)}" for file in files) or "--plugin FILE"
    raise CrossdistilError(f"{folder}: was trained with {what}, which evaluate needs: {need}")
