"""The report of a run: one HTML file in its folder, made of what the folder holds and of the task's dev texts."""

from __future__ import annotations

import datetime
import shlex
from pathlib import Path
from typing import Any

from ..checkpoint import WEIGHTS
from ..errors import CrossdistilError
from ..files import write_text
from ..registered import NOTHING, Registered
from ..run_files import METRICS, RECIPE, REPORT, STUDENT
from .compare import metric_values
from .compared_runs import Ask, ComparedRun, read_all
from .comparison_view import count_text, milliseconds_text, score_text
from .data_report import one_answer
from .dev_texts import dev_texts
from .pages import page
from .run_answers import answers_content
from .run_curves import curves
from .run_kept import kept_content
from .run_latency import STUDENT_NAME, TEACHER_NAME


def write_run_report(folder: Path, ask: Ask, registered: Registered = NOTHING) -> tuple[Path, list[str]]:
    """Write `folder`/report.html of a finished run; returns its path, and what is missing in it, a line each. `ask` lets the
    student of a run answer that kept no answers; its task may be `registered` by a plugin. Raises CrossdistilError."""
    (run,) = read_all([folder], None, None, ask)
    if run.recipe is None:
        raise CrossdistilError(f"{folder}: is no finished run")
    content, notes = _content(folder, run, registered)
    filters = {"count": count_text, "score": score_text, "megabytes": megabytes, "milliseconds": milliseconds_text}
    filters["percent"] = lambda value: f"{100 * value:.1f}%"
    path = folder / REPORT
    write_text(path, page("run_report.html", content, filters))
    return path, notes


def _content(folder: Path, run: ComparedRun, registered: Registered) -> tuple[dict[str, Any], list[str]]:
    result, recipe, notes, warnings = run.result, run.recipe, [], []
    examples, answers = None, None
    if run.predictions is not None:
        examples, missing = dev_texts(recipe, run.predictions.rows, registered)
        notes += [missing] if missing else []
        answers, found = answers_content(run.predictions, examples), run.predictions
        same = one_answer(found.kind, found.label_names, found.logits, found.labels, "dev")
        warnings += [] if same is None else [f"Warning: {same}."]
    elif run.untested:
        notes.append(run.untested)
    names = list(run.metrics)
    times = {} if run.latency is None else run.latency.milliseconds
    student = {"metrics": run.metrics, "parameters": run.parameters, "bytes": _size(folder / STUDENT)}
    student["milliseconds"] = times.get(STUDENT_NAME)
    teachers = [_teacher(name, found, recipe, times) for name, found in _teachers(result).items()]
    charts = curves(folder / METRICS, result.get("stages") or []) if (folder / METRICS).is_file() else []
    written = datetime.datetime.fromtimestamp((folder / "result.json").stat().st_mtime)
    return {
        "who": _who(recipe),
        "headline": _headline(recipe, names, student, teachers),
        "date": f"{written:%d %B %Y}".lstrip("0"),
        "method": recipe.get("method"),
        "description": recipe.get("description"),
        "start": _start(recipe, _who(recipe)),
        "task": result.get("task"),
        "names": names,
        "student": student,
        "teachers": teachers,
        "tiles": _tiles(result, recipe, names, student, teachers),
        "files": kept_content(_teachers(result), student["milliseconds"]),
        "charts": charts,
        "answers": answers,
        "latency": run.latency,
        "notes": [*warnings, *notes],  # the run itself has told those
        "result": result,
        "recipe_text": (folder / RECIPE).read_text(encoding="utf-8"),
        "command": _command(result),
    }, notes


def _teachers(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"Teacher": result["teacher"]} if result.get("teacher") else dict(result.get("teachers") or {})


def _teacher(name: str, found: dict[str, Any], recipe: dict[str, Any], times: dict[str, float]) -> dict[str, Any]:
    section = recipe.get("teacher") or (recipe.get("teachers") or {}).get(name) or {}
    size = _size(Path(section["model"])) if section.get("model") else None
    time = times.get(TEACHER_NAME if recipe.get("teacher") else f"{TEACHER_NAME}/{name}")
    title = name if name == "Teacher" else f"Teacher {name}"
    about = {"name": title, "metrics": metric_values(found), "parameters": found.get("parameters")}
    return about | {"bytes": size, "milliseconds": time}


def _size(model: Path) -> int | None:
    """Bytes of a model's weights; None where they are not at hand."""
    places = (model / WEIGHTS, model / STUDENT / WEIGHTS, model)
    found = next((place for place in places if place.is_file()), None)
    return None if found is None else found.stat().st_size


def _who(recipe: dict[str, Any]) -> str:
    """What the trained model is called, who is nobody's student without a teacher."""
    return "student" if recipe.get("teacher") or recipe.get("teachers") else "model"


def _headline(recipe: dict[str, Any], names: list[str], student: dict[str, Any], teachers: list[dict[str, Any]]) -> str:
    if not names:
        return f"A {_who(recipe)} by {recipe.get('method')}, which was not scored."
    main = names[0]
    text = f"{score_text(main, student['metrics'][main])} {main.replace('_', ' ')} on dev"
    best = [teacher for teacher in teachers if teacher["metrics"].get(main)]
    if len(best) != 1 or not student["parameters"] or not best[0]["parameters"]:
        return f"{text}."
    ratio = best[0]["parameters"] / student["parameters"]
    size = f"with {ratio:.1f} times fewer parameters" if ratio > 1.05 else "with as many parameters"
    return f"{text} {size}; its teacher has {score_text(main, best[0]['metrics'][main])}."


def _start(recipe: dict[str, Any], who: str) -> str:
    """Where the first weights are from, as the resolved recipe says."""
    init = (recipe.get("student") or {}).get("init") or {}
    source, layers = init.get("from"), init.get("layers")
    if source is None:
        return ""
    if source == "random":
        return f"The {who} starts from random weights."
    named = [] if recipe.get("teacher") else list(recipe.get("teachers") or {})
    teacher = f"teacher {named[0]}{', the first' if len(named) > 1 else ''}" if named else "the teacher"
    where = teacher if source == "teacher" else str(source)
    if not layers:
        return f"The {who} starts from the weights of {where}."
    which = f"layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))}"
    return f"The {who} starts from {which} of {where}, counted from 0."


def _tiles(
    result: dict[str, Any], recipe: dict[str, Any], names: list[str], student: dict[str, Any], teachers: list[dict[str, Any]]
) -> list[dict[str, str]]:
    tiles = []
    if names:
        main, value = names[0], student["metrics"][names[0]]
        scored = [found for found in teachers if found["metrics"].get(main)]
        best = max(scored, key=lambda found: found["metrics"][main], default=None)
        whose = "the teacher’s" if len(scored) < 2 else f"that of {_small(best['name'])}, the best"
        kept = f"{100 * value / best['metrics'][main]:.1f}% of {whose}" if best else ""
        what = f"{_who(recipe).capitalize()}’s {main.replace('_', ' ')} on dev"
        tiles.append({"what": what, "value": score_text(main, value), "more": kept})
    count = count_text(student["parameters"])
    tiles.append({"what": "Parameters", "value": count, "more": _times(student, teachers, "parameters")})
    if student["bytes"]:
        size = {"what": "Weights on disk", "value": megabytes(student["bytes"]), "more": _times(student, teachers, "bytes")}
        tiles.append(size)
    if student["milliseconds"]:
        took = milliseconds_text(student["milliseconds"])
        tiles.append({"what": "Time for one text", "value": took, "more": _times(student, teachers, "milliseconds")})
    epochs = f"{result.get('epochs', 0):.2f} epochs, {count_text(result.get('steps'))} steps"
    tiles.append({"what": "Time from start to end", "value": _duration(result.get("wall_seconds") or 0.0), "more": epochs})
    return tiles


def _small(name: str) -> str:
    return name[:1].lower() + name[1:]


def _times(student: dict[str, Any], teachers: list[dict[str, Any]], key: str) -> str:
    known = [teacher[key] for teacher in teachers if teacher[key]]
    return f"teacher’s / {known[0] / student[key]:.1f}" if len(known) == 1 and student[key] else ""


def megabytes(count: float | None) -> str:
    """`42.6 MB`, of 10^6 bytes; less than one in kB."""
    if count is None:
        return "–"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _command(result: dict[str, Any]) -> str:
    count = result.get("processes") or 1
    device = str(result.get("device", "cpu"))
    where = ["--devices", str(count), "--device", device.partition(":")[0]] if count > 1 else ["--device", device]
    options = ["--backend", str(result.get("backend")), *where, "--precision", str(result.get("precision")), "--out", "again"]
    return shlex.join(["crossdistil", "run", RECIPE, *options])
