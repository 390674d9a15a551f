"""The report of a cross-check: one HTML file that opens offline and shows why the backends agree or where they part."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ..files import write_text
from ..tolerances import TOLERANCES, Tolerance, tolerance
from .charts import line_style, marker, round_number, scientific
from .compare import Pair, compare_runs, metric_values, read_runs
from .crosscheck_files import BackendRun, display_name, read_json
from .report_charts import (
    SLOTS,
    draw_charts,
    gradient_groups,
    hidden_label,
    hidden_states,
    pair_label,
    worst_of_group,
)

LISTED_ROWS = 12
REPORT = "report.html"


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from `folder`/crosscheck.json and the run folders beside it; return its path.

    Raises CrossdistilError for what is missing or unreadable.
    """
    folder = Path(folder)
    result = read_json(folder / "crosscheck.json")
    runs = read_runs(folder, list(result["backends"]))
    pairs = compare_runs(runs)
    path = folder / REPORT
    write_text(path, _template().render(_content(result, runs, pairs, folder)))
    return path


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "scientific": scientific,
        "percent": percent,
        "figure": figure_text,
        "limit": limit_text,
        "count": _count,
    }
    return environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))


def _content(result: dict[str, Any], runs: Sequence[BackendRun], pairs: Sequence[Pair], folder: Path) -> dict[str, Any]:
    names = [display_name(run.backend) for run in runs]
    metrics = [metric_values(run.result.get("student")) for run in runs]
    recipe = runs[0].recipe or {}
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
        "tolerances": _applicable(pairs),
        "worst": [_worst(row.name, pairs) for row in _applicable(pairs)],
        "runs": [
            {
                "name": name,
                "slot": f"b{i % SLOTS}",
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
                "slot": f"p{i % SLOTS}",
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
            {"label": hidden_label(state), "values": [pair.hidden.get(state) for pair in pairs]}
            for state in hidden_states(pairs)
        ],
        "groups": [
            {"label": group[1], "values": [worst_of_group(pair, group)[0] for pair in pairs]}
            for group in gradient_groups(pairs)
        ],
        "markers": [Markup(f'<path d="{marker(i, 8, 8, 4.5)}"/>') for i in range(max(len(runs), len(pairs)))],
        "matrix": _matrix(runs, pairs),
        "recipe_text": runs[0].recipe_text,
        "versions": list(dict.fromkeys(name for run in runs for name in run.result.get("versions") or {})),
        "fastest": max((run.result.get("tokens_per_second") or 0 for run in runs), default=0),
        "command": _command(runs),
    }


def _applicable(pairs: Sequence[Pair]) -> list[Tolerance]:
    """The figures that this kind of recipe has."""
    return [row for row in TOLERANCES if not all(row.name in pair.not_applicable for pair in pairs)]


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


def _worst(name: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    row = tolerance(name)
    known = [pair.figures[name] for pair in pairs]
    if None in known:
        return {"row": row, "value": None, "passes": False, "room": "could not be computed"}
    value = min(known) if row.bound == "at least" else max(known)
    return {"row": row, "value": value, "passes": row.holds(value), "room": _room(row, value)}


def _room(row: Tolerance, value: float) -> str:
    """How far a figure is from its limit."""
    limit, holds = limit_text(row), row.holds(value)
    if row.bound == "at least":
        return f"{100 * abs(value - row.limit):.2f} {'above' if holds else 'below'} {limit}"
    if value == 0:
        return f"identical; limit {limit}"
    ratio = row.limit / value if holds else value / row.limit
    shown = f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}" if ratio < 1e4 else round_number(ratio)
    return f"{shown}× {'below' if holds else 'above'} {limit}"


def _headline(runs: Sequence[BackendRun], pairs: Sequence[Pair]) -> str:
    """The verdict in one sentence; it names the odd one out where all the others agree."""
    names = _listing([display_name(run.backend) for run in runs])
    failed = [pair for pair in pairs if pair.reasons]
    if not failed:
        return f"{names} train the same model."
    if len(failed) == len(pairs):
        return f"{names} do not train the same model."
    for run in runs:
        own = [pair for pair in pairs if run.backend in (pair.a, pair.b)]
        if failed == own:
            others = _listing([display_name(other.backend) for other in runs if other is not run])
            return f"{display_name(run.backend)} does not train the same model as {others}."
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
    return [[by_names.get(frozenset((a.backend, b.backend))) for b in runs] for a in runs]


def _row_list(pair: Pair) -> str:
    if pair.disagreements is None:
        return "could not be compared"
    if not len(pair.disagreements):
        return "none"
    listed = ", ".join(str(row + 1) for row in pair.disagreements[:LISTED_ROWS])
    more = len(pair.disagreements) - LISTED_ROWS
    return f"{listed} and {more} more" if more > 0 else listed


def _listing(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _count(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}".replace(",", " ")


def _command(runs: Sequence[BackendRun]) -> str:
    backends = ",".join(run.backend for run in runs)
    steps = max(len(run.losses) for run in runs)
    recipe = f"{runs[0].backend}/recipe.yaml"
    options = ["--backends", backends, "--steps", str(steps), "--out", "again"]
    return shlex.join(["crossdistil", "crosscheck", recipe, *options])
