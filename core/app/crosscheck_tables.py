"""A cross-check's result as tables in the terminal: the same figures as in report.html."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..tolerances import PROCESS_TOLERANCES, TOLERANCES, Tolerance
from .comparison_view import score_text
from .crosscheck_files import display_name, parts_of_name


def print_crosscheck(result: dict[str, Any], console: Console) -> None:
    """Print the content of crosscheck.json: pairs beside their limits, backends, what failed, and the verdict."""
    for title, limits, pairs in _groups(result["pairs"]):
        console.print(_pairs_table(title, limits, pairs))
    console.print(_backends_table(result["backends"]))
    agree = result["verdict"] == "agree"
    for pair in result["pairs"]:
        for reason in pair["reasons"]:
            console.print(Text(f"  ✗ {reason}", style="red"))
    names = ", ".join(display_name(name) for name in result["backends"])
    verdict = Text(
        f"✓ {result['verdict']}" if agree else f"✗ {result['verdict']}", style=f"bold {'green' if agree else 'red'}"
    )
    console.print(verdict, names)


def _groups(pairs: list[dict[str, Any]]) -> list[tuple[str, tuple[Tolerance, ...], list[dict[str, Any]]]]:
    """(title, limits, pairs) of each table: of backends with the same number of processes, then of one backend with several."""
    between: dict[int, list[dict[str, Any]]] = {}
    within: dict[int, list[dict[str, Any]]] = {}
    for pair in pairs:
        (a, _), (b, count) = map(parts_of_name, (pair["a"], pair["b"]))
        (within if a == b else between).setdefault(count, []).append(pair)
    found = [("Pairs" if count == 1 else f"Pairs, {count} processes each", TOLERANCES, between[count]) for count in between]
    return found + [(f"The same with {count} processes", PROCESS_TOLERANCES, within[count]) for count in within]


def _pairs_table(title: str, limits: tuple[Tolerance, ...], pairs: list[dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", show_edge=False)
    table.add_column("figure")
    table.add_column("limit", justify="right", style="dim")
    for pair in pairs:
        table.add_column(f"{display_name(pair['a'])}\n{display_name(pair['b'])}", justify="right")
    for row in limits:
        if all(row.name in pair.get("not_applicable", ()) for pair in pairs):
            continue
        limit = f"{'<=' if row.bound == 'at most' else '>='} {_shown(row, row.limit)}"
        table.add_row(row.title, limit, *(_figure(row, pair.get(row.name)) for pair in pairs))
    return table


def _backends_table(backends: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="Backends", title_justify="left", title_style="bold", header_style="bold", show_edge=False)
    metrics = list(dict.fromkeys(name for result in backends.values() for name in _metrics(result)))
    table.add_column("backend")
    for title in ("device", "precision", *metrics, "seconds", "tokens/s", "peak MB"):
        table.add_column(title, justify="right")
    for name, result in backends.items():
        scores = [score_text(name, _metrics(result).get(name)) for name in metrics]
        table.add_row(
            display_name(name),
            str(result.get("device", "–")),
            str(result.get("precision", "–")),
            *scores,
            _count(result.get("wall_seconds"), 1),
            _count(result.get("tokens_per_second")),
            _count(result.get("peak_memory_mb")),
        )
    return table


def _figure(row: Tolerance, value: float | None) -> Text:
    passes = row.holds(value)
    return Text(f"{_shown(row, value)} {'✓' if passes else '✗'}", style="green" if passes else "bold red")


def _shown(row: Tolerance, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.2f}%" if row.bound == "at least" else f"{value:.1e}"


def _metrics(result: dict[str, Any]) -> dict[str, float | None]:
    return (result.get("student") or {}).get("metrics") or {}


def _count(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"
