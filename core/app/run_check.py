"""`run --check`: all that is wrong with a run, and nothing trained: recipe, plugins, data, models, backend, run folder.

Each part is looked at even where another one is wrong, as far as it can be understood alone: configurations, vocabularies,
headers and all rows, but no weights. Token caches and converted models are made as a run makes them, which then finds them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from ...backends.registry import interpreter, known_backends, load_engine
from ..data.tasks import check_files, read_split, resolve_task
from ..engine import Engine, EngineOptions
from ..errors import CrossdistilError, DataError, Errors, RecipeError
from ..held_run import check_place
from ..hub_names import is_hub_name
from ..job import Job
from ..log_section import with_sinks
from ..model_sections import TeacherSection
from ..recipe import Recipe, parse_recipe, settled
from ..recipe_errors import without_problems
from ..registered import NOTHING
from ..task_section import TaskSection, with_folder
from ..world import World
from .announce import announce
from .models import model_folder
from .plugin_trial import plugin_errors, try_losses, try_optimizers
from .preparing import prepared_job


@dataclass(frozen=True)
class Checked:
    """What is looked at."""

    backend: str
    engine: EngineOptions
    out: Path
    resume: bool


def check_recipe(
    source: str,
    tree: Any,
    overrides: Sequence[str],
    preset: Sequence[str] | None,
    plugins: Sequence[str],
    log: Sequence[str],
    folder: Path,
) -> tuple[Recipe | None, Errors]:
    """A recipe's plain data as a recipe, and what is wrong with it. Without the keys that are wrong in themselves the rest may be
    one; it is then looked at like any other. Where it is none, the files are looked at that its sections name."""
    errors = Errors()
    tree, _ = settled(tree, source, overrides, preset, folder)
    if log:
        tree = {**tree, "log": with_sinks(tree.get("log"), log)}
    try:
        return parse_recipe(tree, source, plugins=plugins), errors
    except RecipeError as error:
        errors.append(error)
        cause = error.__cause__
    if isinstance(cause, ValidationError) and any(problem["loc"][:1] == ("log",) for problem in cause.errors()):
        # Nothing else depends on `log`, and what is wrong with several sections together is only seen without it.
        tree = {key: value for key, value in tree.items() if key != "log"}
        try:
            return parse_recipe(tree, source, plugins=plugins), errors
        except RecipeError as error:
            errors.append(error)
            cause = error.__cause__
    rest = without_problems(cause, Recipe, tree) if isinstance(cause, ValidationError) else None
    if rest is not None:
        with contextlib.suppress(RecipeError):
            return parse_recipe(rest, source, plugins=plugins), errors
    errors.collect(_check_sections, tree, bool(plugins or tree.get("plugins")))
    return None, errors


def _check_sections(tree: dict[str, Any], has_plugins: bool) -> None:
    """`has_plugins`: names that are not known may be of plugins, which are told themselves where they are wrong."""
    errors = Errors()
    teachers = tree.get("teachers") if isinstance(tree.get("teachers"), dict) else {}
    sections = {"teacher": tree.get("teacher"), **{f"teachers.{name}": each for name, each in teachers.items()}}
    task = _section(TaskSection, tree.get("task"))
    if task is not None:
        taught = any(isinstance(value, dict) and value.get("file") for value in sections.values())
        errors.collect(_check_task, task, has_plugins, taught)
    for key, value in sections.items():
        section = _section(TeacherSection, value)
        if section is not None and section.model is not None:
            errors.collect(_check_model, section, f"{key}.model", has_plugins)
    errors.throw()


def _check_task(task: TaskSection, has_plugins: bool, taught: bool) -> None:
    """Raise CrossdistilError for what is wrong with the files of a task whose recipe is none; where it is `taught` by a file,
    they may lack labels."""
    task, errors = with_folder(task), Errors()
    spec = (Errors() if has_plugins else errors).collect(resolve_task, task, NOTHING, taught)
    if spec is None and task.metrics is not None:  # what else is wrong does not hang on them
        with contextlib.suppress(CrossdistilError):
            spec = resolve_task(task.model_copy(update={"metrics": None}), taught=taught)
    if spec is None:
        errors.collect(check_files, task)
    elif spec.kind.has_targets:
        for split in ("train", "dev"):
            errors.collect(read_split, spec, task.data, split)
    errors.throw()


def _section(kind: type, value: Any) -> Any:
    try:
        return kind.model_validate(value)
    except ValidationError:
        return None  # told with the recipe


def _check_model(section: TeacherSection, where: str, has_plugins: bool) -> None:
    if not is_hub_name(section.model) and not section.model.exists():
        raise DataError(f"{where}: {section.model}: no such file or folder")
    if not has_plugins:  # else its family may be a plugin's
        model_folder(section.model, where, section.read)


def check_run(recipe: Recipe | None, source: str, options: Checked, console: Console, errors: Errors) -> None:
    """Print what a run would do. Raises CrossdistilError with a line for each problem, those that were found before among them,
    also where the recipe is none; trains nothing."""
    asked = engine = None
    identity: dict[str, str] = {}
    if errors.collect(interpreter, options.backend) is not None:
        asked = engine = errors.collect(load_engine, options.backend, options.engine)
    if engine is not None:
        identity = {"backend": engine.name, "device": engine.device, "precision": engine.precision}
    errors.collect(check_place, options.out, recipe, identity, options.resume)
    if engine is None and recipe is not None:  # what else is wrong can be found with another one
        engine = _any_engine(options.backend)
    if engine is not None and recipe is not None:
        job = errors.collect(_prepare, recipe, source, engine, console)
        if job is not None:
            errors.collect(_try, recipe, job, engine)
            errors.collect(announce, job, asked, console)
    errors.throw()


def _any_engine(backend: str) -> Engine | None:
    for name in (backend, *known_backends()):
        with contextlib.suppress(CrossdistilError):
            return load_engine(name, EngineOptions("cpu", "fp32"))
    return None


def _prepare(recipe: Recipe, source: str, engine: Engine, console: Console) -> Job:
    with plugin_errors(recipe.registered):
        return prepared_job(recipe, source, engine, World(), console, weights=False)[0]


def _try(recipe: Recipe, job: Job, engine: Engine) -> None:
    with plugin_errors(recipe.registered):
        errors = Errors()
        errors.collect(try_losses, recipe, job.context, engine)
        errors.collect(try_optimizers, recipe, engine)
        errors.throw()
