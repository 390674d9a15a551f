"""The autopilot of `crossdistil search`: which students of a teacher there could be, which of them are within the limit, and the
search over those that are.

Latency is measured with the weights that a student starts from, before anything is trained: it depends on the sizes of a model
and not on what it learned. What is over the limit is told, and never trained.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ..checkpoint import Model
from ..checkpoint_saving import save_model
from ..data.tasks import resolve_task
from ..errors import CrossdistilError, did_you_mean
from ..hub_names import hub_folder
from ..losses.layers import even_layers
from ..models.architectures import is_encoder, shares_layers
from ..recipe import Recipe, load_recipe, overridden
from ..shown import counted
from ..threads import processors
from .exporting import task_section
from .finished_model import load_classifier
from .options import given_plugins
from .preparing import check_fit, prepared
from .run_student import student_of
from .search_latency import measured
from .search_settings import Settings
from .search_space import Dimension, Space

RECIPES = ("kd", "minilm", "tinybert_td")
_RATES = (2e-5, 1e-3)
_HALVINGS = 2
"""Of the width: a student is at narrowest a quarter as wide."""
_FLOAT_BYTES = 4
_FAR = 2
"""So many times the limit of latency is more than other work on the machine explains."""


@dataclass(frozen=True)
class Student:
    """One size, and where its weights start."""

    name: str
    size: str
    """Of its architecture, which several may share."""
    settings: tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Limits:
    """What a student must keep."""

    milliseconds: float | None
    size: int | None
    """Bytes of the weights in float32."""

    def refusal(self, milliseconds: float, size: int) -> str:
        """Why a student is not trained; empty if it is."""
        over = []
        if self.milliseconds is not None and milliseconds > self.milliseconds:
            over.append(f"{self.milliseconds:g} ms")
        if self.size is not None and size > self.size:
            over.append(f"{self.size / 1e6:g} MB")
        return f"over the limit{'s' * (len(over) > 1)} of {' and '.join(over)}: not trained" if over else ""


def limits_of(latency: str | None, size: str | None) -> Limits:
    """The limits as they were typed. Raises CrossdistilError."""
    if latency is None and size is None:
        raise CrossdistilError("--teacher: the autopilot needs a limit: --max-latency 2ms or --max-size 20MB")
    milliseconds = None if latency is None else _number("--max-latency", latency, {"ms": 1.0, "s": 1000.0}, "2ms")
    most = None if size is None else int(_number("--max-size", size, {"kB": 1e3, "MB": 1e6, "GB": 1e9}, "20MB"))
    return Limits(milliseconds, most)


def _number(option: str, text: str, units: dict[str, float], example: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-zµ]+)\s*", text)
    if found is None or found[2] not in units or float(found[1]) <= 0:
        raise CrossdistilError(f"{option} {text[:40]}: expected a number above 0 with {' or '.join(units)}, like {example}")
    return float(found[1]) * units[found[2]]


def choose(
    teacher: Path,
    data: Path,
    task: str | None,
    limits: tuple[str | None, str | None, int],
    overrides: list[str],
    plugins: list[str],
    metric: str | None,
    known: dict[str, Any],
    console: Console,
) -> Settings:
    """The search of the best student of a teacher: measure what could be, drop what is over the limit, and make a space of the
    rest. Raises CrossdistilError where there is none."""
    limit, threads = limits_of(*limits[:2]), limits[2]
    data = hub_folder(data, "--data", True)
    if not data.is_dir():
        raise CrossdistilError(f"--data {data}: no such folder")
    base = _base(teacher, data, task, overrides, plugins)
    spec = resolve_task(base.task, base.registered)
    if metric is not None and metric not in spec.metrics:
        names = ", ".join(spec.metrics)
        raise CrossdistilError(f"--metric {metric}: the task has {names}{did_you_mean(metric, spec.metrics)}")
    model, _ = load_classifier(teacher)
    students = list(students_of(model))
    if not students:
        raise CrossdistilError(f"{teacher}: has one layer and no width to halve: there is no smaller student of it")
    number = counted(len(students), "student")
    console.print(f"{number} of {_sizes(model)}; their latencies are measured before anything is trained")
    load, here = os.getloadavg()[0], processors()
    if load > here:
        busy = f"load {load:.1f}, {counted(here, 'processor')}"
        console.print(f"warning: the machine is busy ({busy}), so that latencies are longer than alone")
    table, kept = _measured(base, students, limit, threads, known, console)
    if not kept:
        fastest = min(table, key=lambda row: (row["latency_ms"], row["bytes"]))
        smallest = min(row["bytes"] for row in table)
        raise CrossdistilError(
            f"no student is within the limit: the fastest, {fastest['name']}, takes {fastest['latency_ms']:.2f} ms with "
            f"{counted(threads, 'thread')}, and the smallest has {_megabytes(smallest)}"
        )
    base = overridden(base, [_set(key, value) for key, value in kept[0].settings])
    recipes = _fitting_recipes(base, kept, console)
    dimensions = (
        Dimension("student", "choice", choices=tuple((student.name, student.settings) for student in kept)),
        Dimension("recipe", "choice", choices=recipes),
        Dimension("stages.*.train.learning_rate", "log", *_RATES),
    )
    pilot = {
        "max_latency_ms": limit.milliseconds,
        "max_bytes": limit.size,
        "threads": threads,
        "students": table,
        "latency_ms": {
            architecture_key(overridden(base, [_set(key, value) for key, value in student.settings])): row["latency_ms"]
            for student, row in zip(students, table, strict=True)
        },
    }
    return Settings(base, str(teacher), Space(dimensions), metric or spec.metrics[0], autopilot=pilot, **known)


def architecture_key(recipe: Recipe) -> str:
    """What tells the sizes of students apart."""
    return json.dumps(recipe.student.architecture, sort_keys=True)


def students_of(teacher: Model) -> Iterator[Student]:
    """Sizes from the largest down: layers that divide the teacher's, at its width from its own layers, at halves of its width
    from random weights."""
    config = teacher.config
    if not is_encoder(config):
        raise CrossdistilError(f"{teacher.source}: is no encoder, so that no smaller students of it are known")
    layers, width, heads = config.num_hidden_layers, config.hidden_size, config.num_attention_heads
    counts = [count for count in range(layers, 0, -1) if layers % count == 0]
    for halving in range(_HALVINGS + 1):
        own = width >> halving
        if own << halving != width or own % heads:
            return
        for count in counts:
            if own == width and count == layers:
                continue
            size = f"{counted(count, 'layer')} x {own}"
            sizes: dict[str, Any] = {"num_hidden_layers": count}
            if own == width:
                for how, chosen in _starts(layers, count, shares_layers(config)):
                    init = {"from": "teacher"} | ({} if chosen is None else {"layers": chosen})
                    yield Student(f"{size}, {how}", size, (("student.architecture", sizes), ("student.init", init)))
                continue
            sizes |= {"hidden_size": own, "intermediate_size": max(1, config.intermediate_size >> halving)}
            settings = (("student.architecture", sizes), ("student.init", {"from": "random"}))
            yield Student(f"{size}, random", size, settings)


def _starts(layers: int, count: int, shared: bool) -> list[tuple[str, list[int] | None]]:
    if shared:
        return [("from the teacher", None)]
    spread, first = even_layers(layers, count), list(range(count))
    chosen = [spread] if first == spread else [spread, first]
    return [(f"from layer{'s' * (count > 1)} {' '.join(map(str, own))}", own) for own in chosen]


def _base(teacher: Path, data: Path, task: str | None, overrides: list[str], plugins: list[str]) -> Recipe:
    """Plain distillation for the teacher's own task, before anything is chosen."""
    model, _ = load_classifier(teacher)
    section: dict[str, Any] = {"name": task, "data": str(data)} if task is not None else {}
    if task is None:
        found = task_section(student_of(teacher), model, data, given_plugins("search", plugins))
        section = found.model_dump(mode="json", exclude_defaults=True) | {"name": found.name, "data": str(data)}
    settings = [_set("task", section), _set("teacher.model", str(teacher)), _set("student.init.layers", None)]
    settings.append(_set("student.architecture", {}))
    return load_recipe("kd", [*settings, *overrides], None, plugins)


def _set(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e6:.3g} MB"


def _sizes(model: Model) -> str:
    config = model.config
    layers = counted(config.num_hidden_layers, "layer")
    return f"a teacher of {layers} x {config.hidden_size}, {model.parameter_count:,} parameters"


def _measured(
    base: Recipe, students: list[Student], limit: Limits, threads: int, known: dict[str, Any], console: Console
) -> tuple[list[dict[str, Any]], list[Student]]:
    """What is known of each student, and those that are within the limit."""
    with tempfile.TemporaryDirectory(prefix="crossdistil-") as folder:
        first, counts, places = {}, {}, {}
        for student in students[::-1]:  # the smallest first
            first.setdefault(student.size, student)
        for number, (size, student) in enumerate(first.items()):
            job = prepared(_of(base, student), student.name)
            counts[size], places[size] = job.student.parameter_count, Path(folder) / f"student-{number}"
            save_model(dataclasses.replace(job.student, new=()), places[size], job.data.tokenizer)
            if not number:
                alone = functools.partial(measured, {size: places[size]}, base, known["backend"], known["precision"], threads)
                _refuse_hopeless(student, _FLOAT_BYTES * counts[size], alone, limit, threads)
        times = measured(dict(reversed(places.items())), base, known["backend"], known["precision"], threads)
    table, kept = [], []
    for student in students:
        count, milliseconds = counts[student.size], times[student.size]
        refusal = limit.refusal(milliseconds, _FLOAT_BYTES * count)
        table.append(
            {"name": student.name, "parameters": count, "bytes": _FLOAT_BYTES * count, "latency_ms": milliseconds}
            | {"verdict": refusal or "within the limit"}
        )
        kept += [] if refusal else [student]
        console.print(f"  {student.name}: {milliseconds:.2f} ms, {_megabytes(_FLOAT_BYTES * count)}{refusal and f'; {refusal}'}")
    return table, kept


def _refuse_hopeless(
    smallest: Student, size: int, alone: Callable[[], dict[str, float]], limit: Limits, threads: int
) -> None:
    """Refuse limits that even the smallest student is far over, before the others are measured; `alone` measures it."""
    what = f"the smallest, {smallest.name},"
    if limit.size is not None and size > limit.size:
        raise CrossdistilError(f"no student is within the limit of {limit.size / 1e6:g} MB: {what} has {_megabytes(size)}")
    if limit.milliseconds is None:
        return
    milliseconds = alone()[smallest.size]
    if milliseconds > _FAR * limit.milliseconds:
        raise CrossdistilError(
            f"no student is within the limit of {limit.milliseconds:g} ms: {what} takes {milliseconds:.2f} ms with "
            f"{counted(threads, 'thread')}; the others were not measured"
        )


def _of(base: Recipe, student: Student) -> Recipe:
    """The recipe of a student."""
    return overridden(base, [_set(key, value) for key, value in student.settings])


def _fitting_recipes(
    base: Recipe, students: list[Student], console: Console
) -> tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]:
    """The recipes that all these students can be trained by, each with what makes it of the base."""
    widths: dict[str, Student] = {}
    for student in students:
        widths.setdefault(student.size.partition(" x ")[2], student)
    found = []
    for name in RECIPES:
        settings = _as_settings(load_recipe(name))
        try:
            for student in widths.values():
                check_fit(_of(overridden(base, [_set(key, value) for key, value in settings]), student), student.name, False)
        except CrossdistilError as error:
            console.print(f"note: {name} is left out: {str(error).splitlines()[0]}", markup=False)
            continue
        found.append((name, settings))
    return tuple(found)


def _as_settings(recipe: Recipe) -> tuple[tuple[str, Any], ...]:
    resolved = recipe.resolved()
    for stage in resolved["stages"]:
        for term in stage["objective"]:
            if term["loss"] == "hidden_mse":  # students may be narrower
                term["projection"] = {"kind": "linear", "name": "fit_dense"}
    return ("method", resolved["method"]), ("description", resolved["description"]), ("stages", resolved["stages"])
