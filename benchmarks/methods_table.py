"""The table of methods: a row each, from runs named METHOD-SEED, with what the students gain by their teacher and how fast
they are."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from run_names import REFERENCE, TITLES, TWINS, method_of, order_of
from tables import markdown

BYTES_PER_PARAMETER = 4  # model.safetensors is float32
Result = dict[str, Any]


def methods_table(results: Mapping[str, Result], latency: Result | None) -> str:
    """The table of results by the names of their runs, and a sentence on what they have in common. `latency` is the
    content of a file of `crossdistil latency`, or None."""
    groups = _groups(results)
    metrics = list(next(iter(groups.values()))[0]["student"]["metrics"])
    timed = _latencies(latency, results)
    headings = ["model", "parameters", "size, MB", *(f"{name.replace('_', ' ')}, %" for name in metrics), "runs", "gain"]
    headings += ["ms, batch 1", "ms, batch 32"] if timed else []
    headings += ["epochs"]
    rows = [
        [
            TITLES.get(method, f"`{method}`"),
            *_size(found[0]["student"]["parameters"]),
            *(spread([100 * result["student"]["metrics"][name] for result in found]) for name in metrics),
            str(len(found)),
            _gain(method, groups, metrics[0]),
            *(timed.get(method, ["", ""]) if timed else []),
            _epochs(found),
        ]
        for method, found in groups.items()
    ]
    return f"{markdown(headings, rows)}\n\n{_conditions(results, groups, metrics)}{_latency_conditions(latency, timed)}"


def _groups(results: Mapping[str, Result]) -> dict[str, list[Result]]:
    """Method -> its runs, in the table's order. A teacher whose own run is not there is taken from its students'."""
    groups: dict[str, list[Result]] = {}
    for name, result in sorted(results.items()):
        groups.setdefault(method_of(name), []).append(result)
    for method, found in groups.items():
        sizes = {result["student"]["parameters"] for result in found}
        if len(sizes) > 1:
            sys.exit(f"{method}: its runs have {len(sizes)} sizes; a row compares runs of one method and size")
    teachers = {json.dumps(result["teacher"], sort_keys=True) for result in results.values() if "teacher" in result}
    if len(teachers) > 1:
        sys.exit(f"the runs have {len(teachers)} different teachers; a table compares students of one")
    if teachers and REFERENCE not in groups:
        groups[REFERENCE] = [{"student": json.loads(teachers.pop())}]
    return {method: groups[method] for method in sorted(groups, key=order_of)}


def _size(parameters: int) -> list[str]:
    return [f"{parameters / 1e6:.1f}M", f"{parameters * BYTES_PER_PARAMETER / 1e6:.0f}"]


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation, of several values."""
    mean = statistics.mean(values)
    return f"{mean:.1f} ± {statistics.stdev(values):.1f}" if len(values) > 1 else f"{mean:.1f}"


def _gain(method: str, groups: dict[str, list[Result]], metric: str) -> str:
    """Points above the student of the same size that was trained on labels alone; empty where there is none."""

    def of(name: str) -> tuple[int, float]:
        found = groups[name]
        return found[0]["student"]["parameters"], statistics.mean(run["student"]["metrics"][metric] for run in found)

    parameters, score = of(method)
    for twin in TWINS:
        if twin in groups and method not in (*TWINS, REFERENCE) and of(twin)[0] == parameters:
            return f"{100 * (score - of(twin)[1]):+.1f}"
    return ""


def _epochs(found: Sequence[Result]) -> str:
    counts = sorted({f"{result['epochs']:g}" for result in found if "epochs" in result}, key=float)
    return " to ".join(counts[:: max(1, len(counts) - 1)])


def _latencies(latency: Result | None, results: Mapping[str, Result]) -> dict[str, list[str]]:
    """Method -> its cells. A measurement on another task is none of this table's."""
    if latency is None or latency["task"] not in {result["task"] for result in results.values()}:
        return {}
    cells = {}
    for name, found in latency["models"].items():
        sizes = ("batch_1", "batch_32")
        cells[method_of(name)] = [
            f"{found[size]['milliseconds']['median']:.2f} ({found[size]['speed_up']['median']:.1f}x)" for size in sizes
        ]
    return cells


def _conditions(results: Mapping[str, Result], groups: dict[str, list[Result]], metrics: list[str]) -> str:
    """What the runs have in common, in a sentence."""
    where = sorted({
        f"{result['backend']} {result['versions'][result['backend']]} on {result['device']} in {result['precision']}"
        for result in results.values()
    })  # fmt: skip
    seeds = sorted({result["seed"] for name, result in results.items() if method_of(name) != name})
    of_seeds = f" over the seeds ({', '.join(map(str, seeds))})" if seeds else ""
    text = f"Scores are those on dev, mean ± sample standard deviation{of_seeds}; {' and '.join(where)}."
    if any(twin in groups for twin in TWINS):
        text += (
            f" Gain: points of {metrics[0].replace('_', ' ')} above the model of the same architecture that was trained on "
            "labels alone."
        )
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
