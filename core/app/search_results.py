"""What a search found, as plain data: each trial, the front, and whether the best is better than the recipe as it is."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import CrossdistilError
from ..processor import processor
from ..run_files import STUDENT
from ..run_result import read_result
from ..shown import counted
from .compared_runs import read_all
from .comparison import compare_finished
from .comparison_view import is_number, score_text, spread_text
from .search import Search, value_text
from .search_latency import measured_students
from .search_settings import AS_IT_IS
from .search_study import TRIALS, Record, best_of
from .search_trial import score_of


def results(search: Search) -> dict[str, Any]:
    """The content of search.json."""
    settings, records = search.settings, search.study.records()
    best = best_of(records, settings.higher)
    default = next((record for record in records if search.is_default(record)), None)
    trials = [_trial(search, record, default) for record in records if record.state != "waiting"]
    measures = _latencies(search, trials)
    for trial in trials:
        trial["latency_ms"] = measures.get(trial["architecture"])
    axis = "latency_ms" if len({trial["latency_ms"] for trial in trials if trial["latency_ms"]}) > 1 else "parameters"
    comparison, seeds = _with_seeds(search, best)
    spent = round(search.study.seconds() / 60, 2)
    found: dict[str, Any] = {
        "search": settings.recipe.method,
        "task": settings.recipe.task.name,
        "metric": settings.metric,
        "higher_is_better": settings.higher,
        "backend": settings.backend,
        "machine": {**processor(), "host": platform.node()},
        "study": {"name": settings.study, "storage": settings.storage},
        "budget": {"minutes": settings.minutes, "trials": settings.trials, "spent_minutes": spent},
        "space": {dimension.name: dimension.text() for dimension in settings.space.dimensions},
        "choices": {each.name: list(each.probes) for each in settings.space.dimensions if each.kind == "choice"},
        "grid": settings.space.origin or None,
        "counts": {state: sum(trial["state"] == state for trial in trials) for state in _STATES},
        "trials": trials,
        "axis": axis,
        "front": front(trials, axis, settings.higher),
        "best": None if best is None else best.number,
        "default": None if default is None else default.number,
        "default_name": settings.default_name,
        "seeds": seeds,
        "comparison": comparison,
        "autopilot": settings.autopilot,
    }
    student = None if best is None else search.folder / TRIALS / f"{best.number:04d}" / STUDENT
    if settings.autopilot is not None and student is not None and student.is_dir():
        found["autopilot"] = settings.autopilot | {"check_ms": measured_students({"best": student}, settings)["best"]}
    found["verdict"] = verdict(found, settings.default_name)
    found["headline"], found["remark"] = _headline(found, best), _remark(found)
    return found


_STATES = ("complete", "pruned", "failed", "running")


def _trial(search: Search, record: Record, default: Record | None) -> dict[str, Any]:
    recipe = search.recipe_of(record) if record.state == "complete" else None
    architecture = None if recipe is None else json.dumps(recipe.student.architecture, sort_keys=True)
    return {
        "number": record.number,
        "state": record.state,
        "score": record.score,
        "point": record.point,
        "set": list(record.overrides),
        "seconds": record.seconds,
        "parameters": record.found.get("parameters"),
        "epochs": record.found.get("epochs"),
        "metrics": record.found.get("metrics"),
        "curve": [[position / 1000, score] for position, score in record.curve],
        "error": record.error or None,
        "is_default": default is not None and record.number == default.number,
        "architecture": architecture,
        "folder": f"{TRIALS}/{record.number:04d}" if record.here else None,
    }


def front(trials: Sequence[dict[str, Any]], axis: str, higher: bool) -> list[int]:
    """Numbers of the trials that no other beats in score at the same or a smaller latency or size, from the smallest on."""
    known = [trial for trial in trials if trial["score"] is not None and trial[axis] is not None]
    sign, found = 1 if higher else -1, []
    for trial in sorted(known, key=lambda each: (each[axis], -sign * each["score"], each["number"])):
        if not found or sign * trial["score"] > sign * found[-1]["score"]:
            found.append(trial)
    return [trial["number"] for trial in found]


def _latencies(search: Search, trials: list[dict[str, Any]]) -> dict[str, float]:
    """Architecture -> measured milliseconds: those of the autopilot; of a search over sizes, measured now, one student each."""
    different = {trial["architecture"]: trial for trial in trials if trial["state"] == "complete" and trial["folder"]}
    if search.settings.autopilot is not None:
        return {key: value for key, value in search.settings.autopilot["latency_ms"].items()}
    if len({trial["parameters"] for trial in different.values()}) < 2:
        return {}
    students = {key: search.folder / trial["folder"] / STUDENT for key, trial in different.items()}
    return measured_students({key: path for key, path in students.items() if path.is_dir()}, search.settings)


def _with_seeds(search: Search, best: Record | None) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The comparison of the runs with other seeds, and the scores of each side; None where there are none yet."""
    if best is None or not search.settings.seeds:
        return None, None
    sides: dict[str, list[Path]] = {}
    for name, _, folder in search.seed_runs(best):
        if (folder / "result.json").is_file():
            sides.setdefault(name, []).append(folder)
    if not sides:
        return None, None
    metric, recipe = search.settings.metric, search.settings.recipe
    seeds: dict[str, Any] = {}
    for name, folders in sides.items():
        values = [score_of(read_result(folder), metric, recipe) for folder in folders]
        deviation = statistics.stdev(values) if len(values) > 1 else None
        seeds[name] = {"scores": values, "mean": statistics.fmean(values), "deviation": deviation}
        seeds[name]["runs"] = [str(folder.relative_to(search.folder)) for folder in folders]
    if set(sides) != {"default", "best"}:
        return None, seeds
    chosen = (metric,) if "/" in metric else ()  # one of a class is not tested unless it is named
    return compare_finished(read_all([*sides["default"], *sides["best"]], None, None, _refuse), chosen), seeds


def _refuse(*_: Any) -> Any:
    raise CrossdistilError("seeds: a run kept no answers on dev")


def verdict(found: dict[str, Any], name: str = AS_IT_IS) -> dict[str, Any] | None:
    """Whether the best is better than the default, which is called `name`; None where that was not tried with other seeds.

    `better`: the mean is above the default's by more than the deviation of either, and the difference is no chance of the
    dev examples either. `above`: only the first. `not better`: neither.
    """
    seeds = found["seeds"]
    if not seeds or "best" not in seeds or "default" not in seeds:
        return None
    best, default = seeds["best"], seeds["default"]
    gain = (best["mean"] - default["mean"]) * (1 if found["higher_is_better"] else -1)
    deviations = [side["deviation"] for side in (best, default)]
    enough = None not in deviations and gain > max(deviations)
    pairs = [pair for pair in (found["comparison"] or {}).get("pairs", []) if pair["metric"] == found["metric"]]
    shown = bool(pairs) and pairs[0]["better"] == "B"
    word = "better" if enough and shown else "above" if enough else "not better"
    text = _verdict_text(found, name, word, gain, pairs)
    return {"word": word, "gain": gain, "p": pairs[0]["p"] if pairs else None, "text": text}


def _verdict_text(found: dict[str, Any], default: str, word: str, gain: float, pairs: list[dict[str, Any]]) -> str:
    name, seeds = found["metric"], found["seeds"]
    sides = {side: spread_text(name, seeds[side]) for side in ("best", "default")}
    count = len(seeds["best"]["scores"])
    than, its = ("the recipe's default", f" of {default}") if default == AS_IT_IS else (default, "")
    text = f"{sides['best']} against {sides['default']}{its}, over {counted(count, 'other seed')}"
    points = f"{gain:+.4f}" if is_number(name) else f"{100 * gain:+.2f} points"
    p = f" (p {pairs[0]['p']:.3f})" if pairs else ""
    if word == "better":
        return f"The best is better than {than}: {text}; {points}, more than the deviation{p}."
    if word == "above":
        chance = "dev was not compared row by row"
        chance = f"with dev's examples taken as a sample too, that may be chance{p}" if pairs else chance
        return f"The best is above {than} by more than its deviation: {text}; {points}; {chance}."
    return f"The best is not better than {than} by more than its deviation: {text}; {points}{p}."


def _headline(found: dict[str, Any], best: Record | None) -> str:
    counts = counts_text(found["counts"])
    if best is None:
        return f"No trial came to its end ({counts or 'none was started'})."
    what = ", ".join(f"{name.rpartition('.')[2]} {value_text(value)}" for name, value in best.point.items())
    score = score_text(found["metric"], best.score)
    same = f" ({found['default_name']})" if found["best"] == found["default"] else ""
    return f"Best of {counts}: {score} {found['metric'].replace('_', ' ')} on dev, trial {best.number}{same}: {what}."


def counts_text(counts: dict[str, int]) -> str:
    """`12 complete, 3 given up`."""
    words = {"pruned": "given up", "running": "begun"}
    return ", ".join(f"{number} {words.get(state, state)}" for state, number in counts.items() if number)


def _remark(found: dict[str, Any]) -> str:
    """What may be said of the best against the default."""
    if found["verdict"] is not None:
        return found["verdict"]["text"]
    if found["best"] is None or found["best"] == found["default"]:
        return ""
    which = "" if found["autopilot"] is None or found["default"] is None else f", trial {found['default']},"
    return f"Chosen by one seed; whether it is better than {found['default_name']}{which} takes --seeds 3."
