"""What a comparison reads of each run: its result, its recipe, and what its student answers on dev. A model folder, or a run of
an earlier version that kept no answers, is asked on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CrossdistilError, RecipeError
from ..metrics import CLM_LOSS, MLM_LOSS
from ..predictions import Predictions, are_of_student, kept_names, read_predictions
from ..run_files import MARKER, RECIPE, RESULT, STUDENT
from ..run_result import read_result
from ..shown import shown
from ..task_data import TaskData
from ..yaml_files import read_yaml
from .compare import metric_values
from .inference import Answered
from .run_latency import RunLatency, read_latency
from .run_student import student_of

Ask = Callable[[Path, dict[str, Any], Path, Callable[[TaskData], None]], Answered]
"""`f(model folder, task section, data folder, check)`: its answers on dev of the data, which `check(data)` may refuse."""


@dataclass(frozen=True)
class Rows:
    """What answers on dev are of."""

    name: str
    """The path of the run or model."""
    digest: str
    labels: tuple[str, ...] | None
    """None of a regression."""
    count: int

    def check(self, other: Rows) -> None:
        """Raise CrossdistilError for answers to other rows, or with other labels."""
        if other.labels != self.labels:
            names = [", ".join(found.labels or ("numbers",)) for found in (other, self)]
            raise CrossdistilError(f"{other.name}: its answers are {names[0]}, but those of {self.name} are {names[1]}")
        if other.digest != self.digest:
            counts = f"{other.count:,} and {self.count:,} examples"
            raise CrossdistilError(
                f"{other.name}: its dev rows are not those of {self.name} ({counts}); only answers to the same rows compare"
            )


@dataclass(frozen=True)
class ComparedRun:
    """A finished run, or a model folder."""

    name: str
    """The path as it was given."""
    metrics: dict[str, float]
    parameters: int | None
    task: str | None
    predictions: Predictions | None
    """None where there is nothing to compare row by row; `untested` then says why."""
    untested: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    """The content of result.json; empty of a model folder."""
    recipe: dict[str, Any] | None = None
    """The resolved recipe; None of a model folder."""
    latency: RunLatency | None = None
    """How fast it answers, where that was measured."""
    is_replaced: bool = False
    """Whether the weights in the run's folder are not those that gave its answers."""

    @property
    def rows(self) -> Rows | None:
        """What its answers are of, where it has any."""
        found = self.predictions
        return None if found is None else Rows(self.name, found.rows, found.label_names, len(found.labels))

    @property
    def seed(self) -> int | None:
        """The seed of a run."""
        return None if self.recipe is None else self.recipe.get("seed")


def is_finished_run(path: Path) -> bool:
    """Whether a path is the folder of a finished run, and no model or anything else."""
    return (path / RESULT).is_file() and (path / RECIPE).is_file()


def keeps_answers(path: Path) -> bool:
    """Whether nothing need be computed to compare what is at the path."""
    if not is_finished_run(path):
        return False
    return _keeps_answers(read_result(path))


def _keeps_answers(result: dict[str, Any]) -> bool:
    return "dev" in result or not _has_dev(result)


def read_resolved(folder: Path) -> dict[str, Any]:
    """The resolved recipe of a run. Raises RecipeError."""
    found = read_yaml(folder / RECIPE)
    if not isinstance(found, dict) or not isinstance(found.get("task"), dict):
        raise RecipeError(str(folder / RECIPE), [f"expected a recipe, got {shown(found, 60)}"])
    return found


def read_all(paths: Sequence[Path], data: Path | None, task: str | None, ask: Ask) -> list[ComparedRun]:
    """Runs and model folders, in the order given. Models are asked about `data`, else about the data of the first run; `task`
    is that of models which do not say theirs. Raises CrossdistilError for what is missing, unfinished, damaged or there twice."""
    seen: dict[Path, Path] = {}
    for path in paths:
        if path.resolve() in seen:
            other = seen[path.resolve()]
            raise CrossdistilError(f"{path}: is there twice" + (f", as {other}" if other != path else ""))
        seen[path.resolve()] = path
    finished = {path: (read_result(path), read_resolved(path)) for path in paths if is_finished_run(path)}
    section = next(({**recipe["task"], "name": result.get("task")} for result, recipe in finished.values()), {})
    described = {"name": task} if task is not None else section
    where = data or (Path(section["data"]) if section.get("data") else None)
    # Those that kept their answers come first: what does not compare with them is refused before it is asked.
    found = {path: _run(path, *each, data, ask) for path, each in finished.items() if _keeps_answers(each[0])}
    check_alike(list(found.values()))
    known = [run.rows for run in found.values() if run.rows is not None]
    for path in paths:
        if path in found:
            continue
        own = _asking_alike(ask, path, known)
        found[path] = _run(path, *finished[path], data, own) if path in finished else _model(path, described, where, own)
        known += [found[path].rows] if found[path].rows is not None else []
    return [found[path] for path in paths]


def check_alike(runs: Sequence[ComparedRun]) -> None:
    """Raise CrossdistilError for runs of different tasks, labels or dev rows."""
    first = next((run for run in runs if run.task is not None), None)
    for run in runs if first is not None else ():
        if run.task is not None and run.task.lower() != first.task.lower():
            raise CrossdistilError(f"{run.name}: is of task '{run.task}', but {first.name} of '{first.task}'; expected one task")
    rows = [run.rows for run in runs if run.rows is not None]
    for other in rows[1:]:
        rows[0].check(other)


def _asking_alike(ask: Ask, path: Path, known: Sequence[Rows]) -> Callable[[Path, dict[str, Any], Path], Answered]:
    """`ask` for what is at a path, whose rows must be those that are known, if any are."""

    def check(data: TaskData) -> None:
        if known and data.dev_rows is not None:
            names = kept_names(data.spec, data.examples["dev"])
            known[0].check(Rows(str(path), data.dev_rows, names, len(data.examples["dev"])))

    return lambda model, section, data: ask(model, section, data, check)


def _run(path: Path, result: dict[str, Any], recipe: dict[str, Any], data: Path | None, ask: Callable) -> ComparedRun:
    student, metrics = result["student"], metric_values(result["student"])
    predictions, untested = read_predictions(path, result), ""
    if predictions is None and _has_dev(result):
        place = data or Path(str(recipe["task"].get("data")))
        if place.is_dir():
            answer = ask(path / STUDENT, {}, place)
            predictions = answer.data.predictions(answer.logits)
        else:
            untested = f"kept no answers on dev, as runs of earlier versions, and {place} is not there; --data FOLDER lets"
            untested += " students answer now"
    elif predictions is None:
        untested = "has no answers on dev that could be compared row by row" if metrics else "was not scored on dev"
    about = (str(path), metrics, student.get("parameters"), result.get("task"))
    is_replaced = predictions is not None and are_of_student(path, result) is False
    return ComparedRun(*about, predictions, untested, result, recipe, read_latency(path), is_replaced)


def _has_dev(result: dict[str, Any]) -> bool:
    """Whether the student was scored on answers, and not on words or not at all."""
    return not {MLM_LOSS, CLM_LOSS} & metric_values(result["student"]).keys() and bool(metric_values(result["student"]))


def _model(path: Path, section: dict[str, Any], data: Path | None, ask: Callable) -> ComparedRun:
    if (path / MARKER).is_file():
        student_of(path)  # which says what is missing
    if not path.exists():
        raise CrossdistilError(f"{path}: no such run or model folder")
    student_of(path)
    if data is None:
        raise CrossdistilError(f"{path}: is no finished run but a model, which must be asked: name its data with --data")
    answer = ask(path, section, data)
    predictions = answer.data.predictions(answer.logits)
    return ComparedRun(str(path), answer.metrics, answer.model.parameter_count, answer.data.spec.name, predictions)
