"""The table of methods, from what `crossdistil compare` finds of runs named METHOD-SEED: a row each, with what the students keep
of their teacher's score, what they gain by it and whether that is real, and how fast they are."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run_names import REFERENCE, is_twin, method_of, order_of, title_of
from tables import markdown

from crossdistil.core.app.compare import metric_values
from crossdistil.core.app.compared_runs import ComparedRun
from crossdistil.core.app.comparison import ALPHA, compare_finished
from crossdistil.core.metrics import ENTITY_METRICS, WORD_ACCURACY
from crossdistil.core.significance import holm

BYTES_PER_PARAMETER = 4  # model.safetensors is float32
SAME_SIZE = 0.001
"""Share of its parameters in which a student may differ from one of the same size: a few positions more or less."""
FEWEST_SEEDS = 2
"""Runs of a method below which a difference is one of single students."""
Result = dict[str, Any]


def methods_table(found: Result, latency: Result | None) -> str:
    """The table of a comparison, and a sentence on what its runs have in common: `found` is what `crossdistil compare --json`
    gives of them, `latency` the content of a file of `crossdistil latency`, or None."""
    groups = _groups(found)
    metrics = found["metrics"]
    timed = _latencies(latency, found["task"], groups)
    real = real_differences(found, groups, metrics[0])
    headings = ["model", "parameters", "size, MB", *(f"{name.replace('_', ' ')}, %" for name in metrics), "of the teacher, %"]
    headings += ["runs", "gain"]
    headings += ["ms, batch 1", "ms, batch 32"] if timed else []
    headings += ["epochs"]
    rows = [
        [
            title_of(method),
            *_size(group["parameters"]),
            *(_spread_text(group["metrics"][name]) for name in metrics),
            _kept(method, groups, metrics[0]),
            str(len(group["runs"])),
            _gain(method, groups, metrics[0], real),
            *(timed.get(method, ["", ""]) if timed else []),
            _epochs([run for run in found["runs"] if run["group"] == group["group"]]),
        ]
        for method, group in groups.items()
    ]
    return f"{markdown(headings, rows)}\n\n{_conditions(found, groups, real)}{_latency_conditions(latency, timed)}"


def compared(results: Mapping[str, Result]) -> Result:
    """The same of results that were kept without their recipes, by the names of their runs, which say the method. A teacher whose
    own run is not there is taken from its students'."""
    teachers = {json.dumps(result["teacher"], sort_keys=True) for result in results.values() if "teacher" in result}
    if len(teachers) > 1:
        sys.exit(f"the runs have {len(teachers)} different teachers; a table compares students of one")
    kept = dict(results)
    if teachers and REFERENCE not in {method_of(name) for name in kept}:
        about = {key: value for key, value in next(iter(results.values())).items() if key not in ("epochs", "teacher", "seed")}
        kept[REFERENCE] = about | {"student": json.loads(teachers.pop())}
    return compare_finished([_run(name, kept[name]) for name in sorted(kept, key=lambda name: (order_of(method_of(name)), name))])


def _run(name: str, result: Result) -> ComparedRun:
    student, recipe = result["student"], {"method": method_of(name), "seed": result.get("seed")}
    about = (name, metric_values(student), student["parameters"], result["task"])
    return ComparedRun(*about, None, result=result, recipe=recipe)


def _groups(found: Result) -> dict[str, Result]:
    """Method -> its group, in the table's order."""
    groups: dict[str, Result] = {}
    for group in found["groups"]:
        method = method_of(Path(group["runs"][0]).name)
        sizes = {run["parameters"] for run in found["runs"] if run["group"] == group["group"]}
        if len(sizes) > 1:
            sys.exit(f"{method}: its runs have {len(sizes)} sizes; a row compares runs of one method and size")
        if method in groups:
            sys.exit(f"{method}: its runs differ in more than the seed: {groups[method]['runs'][0]} and {group['runs'][0]}")
        groups[method] = group
    return {method: groups[method] for method in sorted(groups, key=order_of)}


def _size(parameters: int) -> list[str]:
    return [f"{parameters / 1e6:.1f}M", f"{parameters * BYTES_PER_PARAMETER / 1e6:.0f}"]


def _spread_text(spread: Result) -> str:
    """Mean ± sample standard deviation in percent, of several values."""
    deviation = spread["deviation"]
    return f"{100 * spread['mean']:.1f}" + ("" if deviation is None else f" ± {100 * deviation:.1f}")


def _kept(method: str, groups: dict[str, Result], metric: str) -> str:
    """Percent of the teacher's score that a student has."""
    if method == REFERENCE or REFERENCE not in groups:
        return ""
    return f"{100 * groups[method]['metrics'][metric]['mean'] / groups[REFERENCE]['metrics'][metric]['mean']:.1f}"


def _twin(method: str, groups: dict[str, Result]) -> str | None:
    """The method whose students have the same size, but for the rows of a few positions, and were trained on labels alone."""
    if method == REFERENCE or is_twin(method):
        return None
    size = groups[method]["parameters"]
    alike = [other for other, group in groups.items() if is_twin(other) and abs(group["parameters"] - size) < size * SAME_SIZE]
    return min(alike, key=lambda other: abs(groups[other]["parameters"] - size), default=None)


def real_differences(found: Result, groups: dict[str, Result], metric: str) -> dict[str, float]:
    """Method -> p-value of its distance from the students of its size that were trained on labels alone, corrected for the number
    of such pairs in the table (Holm); of those whose runs kept their answers and are as many as the others."""
    p_values = {frozenset((pair["a"], pair["b"])): pair["p"] for pair in found["pairs"] if pair["metric"] == metric}
    own = {}
    for method, group in groups.items():
        twin = _twin(method, groups)
        if twin is None or len(groups[twin]["runs"]) < FEWEST_SEEDS or len(group["runs"]) < FEWEST_SEEDS:
            continue
        p_value = p_values.get(frozenset((group["group"], groups[twin]["group"])))
        if p_value is not None:
            own[method] = p_value
    return dict(zip(own, holm(list(own.values())), strict=True)) if own else {}


def _gain(method: str, groups: dict[str, Result], metric: str, real: dict[str, float]) -> str:
    """Points above the student of the same size that was trained on labels alone; empty where there is none."""
    twin = _twin(method, groups)
    if twin is None:
        return ""
    text = f"{100 * (groups[method]['metrics'][metric]['mean'] - groups[twin]['metrics'][metric]['mean']):+.1f}"
    if method not in real:
        return text
    text = f"{text} (p {real[method]:.2g})" if real[method] >= 0.001 else f"{text} (p < 0.001)"
    return f"**{text}**" if real[method] < ALPHA else text


def _epochs(runs: Sequence[Result]) -> str:
    counts = sorted({f"{run['epochs']:g}" for run in runs if run["epochs"] is not None}, key=float)
    return " to ".join(counts[:: max(1, len(counts) - 1)])


def _latencies(latency: Result | None, task: str | None, groups: dict[str, Result]) -> dict[str, list[str]]:
    """Method -> its cells. A measurement on another task, or of models of other sizes, is none of this table's."""
    if latency is None or latency["task"] != task:
        return {}
    cells = {}
    for name, found in latency["models"].items():
        method = method_of(name)
        if method in groups and groups[method]["parameters"] == found["parameters"]:
            sizes = ("batch_1", "batch_32")
            cells[method] = [
                f"{found[size]['milliseconds']['median']:.2f} ({found[size]['speed_up']['median']:.1f}x)" for size in sizes
            ]
    return cells


def _conditions(found: Result, groups: dict[str, Result], real: dict[str, float]) -> str:
    """What the runs have in common, in a sentence."""
    where = sorted({
        f"{run['backend']} {run['versions'][run['backend']]} on {run['device']} in {run['precision']}" for run in found["runs"]
    })  # fmt: skip
    seeds = sorted({run["seed"] for run in found["runs"] if method_of(Path(run["name"]).name) != Path(run["name"]).name})
    of_seeds = f" over the seeds ({', '.join(map(str, seeds))})" if seeds else ""
    text = f"Scores are those on dev, mean ± sample standard deviation{of_seeds}; {' and '.join(where)}."
    if REFERENCE in groups:
        text += f" Of the teacher: the student's {found['metrics'][0].replace('_', ' ')} over the teacher's."
    if any(map(is_twin, groups)):
        text += (
            f" Gain: points of {found['metrics'][0].replace('_', ' ')} above the model of the same architecture that was trained "
            "on labels alone."
        )
    if real:
        corrected = f", corrected for the {len(real)} gains tested (Holm)" if len(real) > 1 else ""
        of_texts = found["metrics"][0] in (*ENTITY_METRICS, WORD_ACCURACY)  # whose examples are words
        examples = f"{found['dev']['texts']:,} texts of dev" if of_texts else f"{found['dev']['examples']:,} examples of dev"
        text += f" p: paired bootstrap over the {examples} and the seeds{corrected}; bold below {ALPHA}: a real difference."
    return text


def _latency_conditions(latency: Result | None, timed: dict[str, list[str]]) -> str:
    if not timed:
        return ""
    settings, machine = latency["settings"], latency["machine"]
    clock = ", processor time" if settings["clock"] == "cpu" else ""
    versions = ", ".join(f"{name} {version}" for name, version in latency["versions"].items())
    return (
        f" Milliseconds a sentence, and the speed-up over the teacher: medians of {settings['rounds']} turns over "
        f"{settings['texts']} sentences of dev, {machine['cpu']}, 1 thread, {versions}, {settings['precision']}{clock}."
    )


def read_latency(path: Path) -> Result | None:
    """The content of a file of `crossdistil latency`, or None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
