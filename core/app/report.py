"""The report of a cross-check: one HTML file that opens offline and shows why the runs agree or where they part."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..files import write_text
from ..registered import NOTHING, Registered
from ..run_files import REPORT
from ..tolerances import Tolerance, tolerance
from .chart_axes import round_number, scientific
from .charts import line_style, marker
from .compare import common_start, compare_runs, metric_values, read_runs
from .comparison_view import score_text
from .crosscheck_files import BackendRun, display_name, processes_text, read_json
from .crosscheck_rows import differing_rows
from .pages import page
from .pairs import Pair
from .report_charts import (
    draw_charts,
    gradient_groups,
    hidden_label,
    hidden_states,
    pair_colours,
    pair_label,
    run_colours,
    worst_of_group,
)

LISTED_ROWS = 12


def write_report(folder: Path, registered: Registered = NOTHING) -> Path:
    """Write `folder`/report.html from `folder`/crosscheck.json and the run folders beside it; return its path. The task, whose
    texts are shown where runs answer differently, may be `registered` by a plugin.

    Raises CrossdistilError for what is missing or unreadable.
    """
    folder = Path(folder)
    result = read_json(folder / "crosscheck.json")
    runs = read_runs(folder, list(result["backends"]))
    pairs = compare_runs(runs)
    path = folder / REPORT
    filters = {"scientific": scientific, "percent": percent, "figure": figure_text, "limit": limit_text, "count": _count}
    content = _content(result, runs, pairs, folder) | {"differing": differing_rows(runs, pairs, registered)}
    write_text(path, page("report.html", content, filters | {"score": score_text}))
    return path


def _content(result: dict[str, Any], runs: Sequence[BackendRun], pairs: Sequence[Pair], folder: Path) -> dict[str, Any]:
    names, between = [display_name(run.name) for run in runs], [pair for pair in pairs if not pair.one_backend]
    within = [pair for pair in pairs if pair.one_backend]
    metrics = [metric_values(run.result.get("student")) for run in runs]
    colours, slots, recipe = run_colours(runs), pair_colours(pairs), runs[0].recipe or {}
    written = datetime.datetime.fromtimestamp((folder / "crosscheck.json").stat().st_mtime)
    return {
        "agree": not any(pair.reasons for pair in pairs),
        "headline": _headline(runs, pairs),
        "date": f"{written:%d %B %Y}".lstrip("0"),
        "method": recipe.get("method") or runs[0].result.get("method"),
        "task": (recipe.get("task") or {}).get("name") or runs[0].result.get("task"),
        "description": recipe.get("description"),
        "digest": runs[0].recipe_digest,
        "steps": max(len(run.losses) for run in runs),
        "seed": runs[0].result.get("seed"),
        "counts": _listing(sorted({run.processes for run in runs})),
        "backend_count": len({run.backend for run in runs}),
        "several": max(run.processes for run in runs) > 1,
        "start": common_start(runs),
        "groups": _groups(pairs, runs),
        "worst": [_worst(row, own) for own in (between, within) for row in _applicable(own)],
        "runs": [
            {
                "name": name,
                "slot": colours[i],
                "line": line_style(i, len(runs)),
                "result": run.result,
                "metrics": metrics[i],
                "parameters": (run.result.get("student") or {}).get("parameters"),
            }
            for i, (name, run) in enumerate(zip(names, runs, strict=True))
        ],
        "metric_names": list(dict.fromkeys(name for found in metrics for name in found)),
        "teachers": _teachers(runs, names),
        "pairs": [
            {
                "label": pair_label(pair),
                "slot": slots[i],
                "one_backend": pair.one_backend,
                "processes": max(run.processes for run in runs if run.name in (pair.a, pair.b)),
                "summary": pair.summary(),
                "figures": pair.figures,
                "reasons": pair.reasons,
                "disagreements": _row_list(pair),
                "metric_differences": pair.metric_differences,
            }
            for i, pair in enumerate(pairs)
        ],
        "charts": draw_charts(runs, pairs),
        "layers": [
            {"label": hidden_label(state), "values": [pair.hidden.get(state) for pair in between]}
            for state in hidden_states(between)
        ],
        "parameters": [
            {"label": group[1], "values": [worst_of_group(pair, group)[0] for pair in between]}
            for group in gradient_groups(between)
        ],
        "markers": [Markup(f'<path d="{marker(i, 8, 8, 4.5)}"/>') for i in range(max(len(runs), len(pairs)))],
        "matrix": _matrix(runs, pairs),
        "recipe_text": runs[0].recipe_text,
        "versions": list(dict.fromkeys(name for run in runs for name in run.result.get("versions") or {})),
        "fastest": max((run.result.get("tokens_per_second") or 0 for run in runs), default=0),
        "command": _command(runs),
    }


def _applicable(pairs: Sequence[Pair]) -> list[Tolerance]:
    """The figures that this kind of recipe has, of pairs with the same limits."""
    limits = pairs[0].limits if pairs else ()
    return [row for row in limits if not all(row.name in pair.not_applicable for pair in pairs)]


def _groups(pairs: Sequence[Pair], runs: Sequence[BackendRun]) -> list[dict[str, Any]]:
    """The pairs table by table: backends with one number of processes, then a backend with one number and with another. `pairs`
    are numbers of pairs."""
    processes = {run.name: run.processes for run in runs}
    found: dict[tuple[bool, int], list[int]] = {}
    for index, pair in enumerate(pairs):
        found.setdefault((pair.one_backend, processes[pair.b]), []).append(index)
    several = max(processes.values()) > 1
    groups = []
    for (one_backend, count), numbers in found.items():
        title = None
        if one_backend:
            title = f"One backend, with {count} processes as with {processes[pairs[numbers[0]].a]}"
        elif several:
            title = f"Backend against backend, {processes_text(count)} each"
        groups.append({"title": title, "limits": _applicable([pairs[index] for index in numbers]), "pairs": numbers})
    return groups


def percent(value: float | None, decimals: int = 1) -> str:
    """A fraction as a percentage; never rounded up to 100% (nor down to 0%) when it is not."""
    if value is None:
        return "–"
    for digits in range(decimals, 8):
        text = f"{100 * value:.{digits}f}"
        if value in (0, 1) or float(text) not in (0.0, 100.0):
            return f"{text}%"
    return f"{100 * value:.8f}%"


def figure_text(value: float | None, name: str) -> str:
    """A pair's figure as the reader sees it."""
    return percent(value, 2) if tolerance(name).bound == "at least" else scientific(value)


def limit_text(row: Tolerance) -> str:
    """A limit as the reader sees it."""
    return f"{100 * row.limit:g}%" if row.bound == "at least" else round_number(row.limit)


def _worst(row: Tolerance, pairs: Sequence[Pair]) -> dict[str, Any]:
    known = [pair.figures[row.name] for pair in pairs]
    if None in known:
        return {"row": row, "value": None, "passes": False, "room": "could not be computed"}
    value = min(known) if row.bound == "at least" else max(known)
    return {"row": row, "value": value, "passes": row.holds(value), "room": _room(row, value)}


def _room(row: Tolerance, value: float) -> str:
    """How far a figure is from its limit."""
    limit, holds = limit_text(row), row.holds(value)
    if row.bound == "at least":
        return f"{100 * abs(value - row.limit):.2f} points {'above' if holds else 'below'} {limit}"
    if value == 0:
        return f"identical; limit {limit}"
    ratio = row.limit / value if holds else value / row.limit
    shown = f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}" if ratio < 1e4 else round_number(ratio)
    return f"{shown}× {'below' if holds else 'above'} {limit}"


def _headline(runs: Sequence[BackendRun], pairs: Sequence[Pair]) -> str:
    """The verdict in one sentence; it names the odd one out where all the others agree."""
    backends = list(dict.fromkeys(display_name(run.backend) for run in runs))
    counts = sorted({run.processes for run in runs})
    several = f", with {_listing(counts)} process{'es' if counts[-1] > 1 else ''}" if counts != [1] else ""
    train = "trains" if len(backends) == 1 else "train"
    failed = [pair for pair in pairs if pair.reasons]
    if not failed:
        return f"{_listing(backends)} {train} the same model{several}."
    if len(failed) < len(pairs) or len(pairs) == 1 < len(counts):
        for run in reversed(runs):
            own = [pair for pair in pairs if run.name in (pair.a, pair.b)]
            if failed == own:
                others = _listing([display_name(pair.a if pair.b == run.name else pair.b) for pair in own])
                return f"{display_name(run.name)} does not train the same model as {others}."
    if len(failed) == len(pairs):
        return f"{_listing(backends)} {'does' if len(backends) == 1 else 'do'} not train the same model{several}."
    names = _listing([display_name(run.name) for run in runs])
    return f"{names} do not all train the same model."


def _teachers(runs: Sequence[BackendRun], names: list[str]) -> list[dict[str, Any]]:
    """One row for the teacher where all backends measured the same, else one for each."""
    found = [
        (name, metric_values(run.result["teacher"]), run.result["teacher"].get("parameters"))
        for name, run in zip(names, runs, strict=True)
        if run.result.get("teacher")
    ]
    if found and all(entry[1:] == found[0][1:] for entry in found):
        found = [(None, *found[0][1:])]
    return [{"name": name, "metrics": metrics, "parameters": count} for name, metrics, count in found]


def _matrix(runs: Sequence[BackendRun], pairs: Sequence[Pair]) -> list[list[Pair | None]]:
    by_names = {frozenset((pair.a, pair.b)): pair for pair in pairs}
    return [[by_names.get(frozenset((a.name, b.name))) for b in runs] for a in runs]


def _row_list(pair: Pair) -> str:
    if pair.disagreements is None:
        return "could not be compared"
    if not len(pair.disagreements):
        return "none"
    listed = ", ".join(str(row + 1) for row in pair.disagreements[:LISTED_ROWS])
    more = len(pair.disagreements) - LISTED_ROWS
    return f"{listed} and {more} more" if more > 0 else listed


def _listing(items: Sequence[str | int]) -> str:
    *names, last = map(str, items)
    return f"{', '.join(names)} and {last}" if names else last


def _count(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}".replace(",", " ")


def _command(runs: Sequence[BackendRun]) -> str:
    backends = ",".join(dict.fromkeys(run.backend for run in runs))
    counts = ",".join(str(count) for count in sorted({run.processes for run in runs}))
    steps = max(len(run.losses) for run in runs)
    recipe = f"{runs[0].name}/recipe.yaml"
    devices = [] if counts == "1" else ["--devices", counts]
    options = ["--backends", backends, *devices, "--steps", str(steps), "--out", "again"]
    return shlex.join(["crossdistil", "crosscheck", recipe, *options])
