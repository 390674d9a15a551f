"""A comparison as tables: in the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..shown import plain

_SHOWN_KEYS = 24
"""Differences of recipes in the terminal and the Markdown; JSON and the report have all."""
_SHARES = ("accuracy", "f1", "macro_f1", "micro_f1", "exact_match", "answer_f1", "has_answer_f1", "no_answer_exact", "best_f1")
"""Metrics that are shown as percentages; all others, a plugin's too, as they are."""

_NARROW = 14
"""Characters of a text in the terminal that are kept together."""

Rows = list[list[str]]


def score_text(name: str, value: float | None) -> str:
    """A metric as it is written everywhere: `91.28%`, `0.8231`."""
    if value is None:
        return "–"
    return f"{value:.4f}" if is_number(name) else f"{100 * value:.2f}%"


def is_number(name: str) -> bool:
    """Whether a metric is shown as a number, not as a percentage."""
    return name.removesuffix("_mismatched") not in _SHARES


def spread_text(name: str, spread: dict[str, Any] | None) -> str:
    """`91.28% ± 0.21`: mean and standard deviation over the seeds."""
    if spread is None:
        return "–"
    deviation = spread["deviation"]
    scale, digits = (1, 4) if is_number(name) else (100, 2)
    return score_text(name, spread["mean"]) + ("" if deviation is None else f" ± {scale * deviation:.{digits}f}")


def count_text(value: float | None, digits: int = 0) -> str:
    """`11,171,074`."""
    return "–" if value is None else f"{value:,.{digits}f}"


def milliseconds_text(value: float | None) -> str:
    """`5.50 ms`, with three digits that count."""
    if value is None:
        return "–"
    return f"{value:,.{max(0, 2 - int(math.floor(math.log10(value)))) if value > 0 else 2}f} ms"


def group_rows(found: dict[str, Any]) -> tuple[list[str], Rows]:
    """Heading and a row a group: scores, sizes, time."""
    heading = ["", "runs", *(name.replace("_", " ") for name in found["metrics"])]
    heading += ["parameters", "steps", "seconds", "tokens/s"]
    has_latency = any(group["latency_milliseconds"] is not None for group in found["groups"])
    heading += ["ms a text"] if has_latency else []
    rows = []
    for group in found["groups"]:
        scores = [spread_text(name, group["metrics"][name]) for name in found["metrics"]]
        times = [count_text((group[key] or {}).get("mean"), digits) for key, digits in _TIMES]
        took = group["latency_milliseconds"]
        times += [milliseconds_text((took or {}).get("mean")).removesuffix(" ms")] if has_latency else []
        rows.append([group["group"], runs_text(group), *scores, count_text(group["parameters"]), *times])
    return heading, rows


_TIMES = (("steps", 0), ("wall_seconds", 1), ("tokens_per_second", 0))


def runs_text(group: dict[str, Any]) -> str:
    """The runs of a group, and how many seeds those are."""
    names = ", ".join(plain(name) for name in group["runs"])
    return names if len(group["runs"]) == 1 else f"{names} ({len(group['runs'])} seeds)"


def pair_rows(found: dict[str, Any]) -> tuple[list[str], Rows]:
    """Heading and a row for each pair and metric."""
    heading = ["pair", "metric", "difference", "95% interval", "p", "verdict"]
    rows = []
    for pair in found["pairs"]:
        name = pair["metric"]
        low, high = (_signed(name, pair[key]) for key in ("low", "high"))
        rows.append(
            [
                f"{pair['a']} − {pair['b']}",
                name.replace("_", " "),
                _signed(name, pair["difference"]) + ("" if is_number(name) else " points"),
                f"{low} to {high}",
                p_text(pair["p"]),
                verdict_text(pair),
            ]
        )
    return heading, rows


def _signed(name: str, value: float) -> str:
    return f"{value:+.4f}" if is_number(name) else f"{100 * value:+.2f}"


def p_text(p: float) -> str:
    """A p-value: `0.0312`, `< 0.0001`."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def verdict_text(pair: dict[str, Any]) -> str:
    """What may be said of a pair."""
    if pair["same"]:
        return "equal, the same answers"
    if pair["better"] is not None:
        return f"{pair['better']} is better"
    corrected = f" (p {p_text(pair['p_corrected'])} among all pairs)" if pair["p"] < 0.05 <= pair["p_corrected"] else ""
    return f"no difference shown{corrected}"


def difference_rows(found: dict[str, Any], most: int | None = _SHOWN_KEYS) -> tuple[list[str], Rows, int]:
    """Heading, a row for each key in which the recipes differ, and how many more there are."""
    letters = [group["group"] for group in found["groups"]]
    items = list(found["differences"].items())
    rows = [[key, *(setting_text(values, letter) for letter in letters)] for key, values in items[:most]]
    return ["recipe", *letters], rows, len(items) - len(rows)


def setting_text(values: dict[str, Any], letter: str) -> str:
    """A key's value in the recipe of a group."""
    if letter not in values:
        return "–"
    value = values[letter]
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 60)


def print_comparison(found: dict[str, Any], console: Console) -> None:
    """Print it as tables."""
    title = f"{found['task']}" + (f", {dev_text(found['dev'])}" if found["dev"] else "")
    heading, rows = group_rows(found)
    if _fits(heading, rows, 2, console.width):
        console.print(_table(title, heading, rows, 2, console.width))
    else:  # turned, with the names above: a number is never broken
        for row in rows:
            console.print(f"{row[0]}: {row[1]}", markup=False, highlight=False, soft_wrap=True)
        letters, _, *measures = zip(heading, *rows, strict=True)
        console.print(_table(title, letters, list(map(list, measures)), 1, console.width))
    heading, rows, more = difference_rows(found)
    if rows:
        console.print()
        console.print(_table("", heading, rows, len(heading), console.width))
        if more:
            console.print(f"and {more} more keys differ (--json has all)")
    if found["pairs"]:
        console.print()
        console.print(_table("", *pair_rows(found), 2, console.width))
        console.print(explained(found))
    for note in found["notes"]:
        console.print(f"note: {note}", markup=False)


def dev_text(dev: dict[str, Any]) -> str:
    """What the answers are of: `dev of 872 examples`, of words `dev of 2,000 texts with 76,909 words`."""
    if "texts" in dev:
        return f"dev of {dev['texts']:,} texts with {dev['examples']:,} words"
    return f"dev of {dev['examples']:,} examples"


def explained(found: dict[str, Any]) -> str:
    """What p and "better" mean."""
    if not found["pairs"]:
        return ""
    corrected = ", corrected for the number of pairs (Holm)" if len(found["groups"]) > 2 else ""
    tests = " or ".join(dict.fromkeys(pair["test"] for pair in found["pairs"]))
    return f"p: how often chance alone differs as much ({tests}). Better is one whose p is below 0.05{corrected}."


def _is_text(index: int, name: str, left: int) -> bool:
    return index < left or name == "verdict"


def _fits(heading: Sequence[str], rows: Rows, left: int, width: int) -> bool:
    """Whether a table has room for its numbers, and for some characters of each text, which may be broken."""
    widths = [max(map(cell_len, column)) for column in zip(heading, *rows, strict=True)]
    texts = [_is_text(index, name, left) for index, name in enumerate(heading)]
    narrow = [min(own, _NARROW) if is_text else own for own, is_text in zip(widths, texts, strict=True)]
    return sum(narrow) + 3 * len(heading) <= width


def _table(title: str, heading: Sequence[str], rows: Rows, left: int, width: int) -> Table:
    """A table whose first `left` columns are texts; where the `width` allows, its numbers are not broken."""
    table = Table(title=title or None, title_justify="left", title_style="bold", header_style="bold", show_edge=False)
    fits = _fits(heading, rows, left, width)
    for index, name in enumerate(heading):
        is_text = _is_text(index, name, left)
        least = min(max(cell_len(row[index]) for row in [heading, *rows]), _NARROW) if is_text and fits else None
        style = {"justify": "left" if is_text else "right", "no_wrap": fits and not is_text, "min_width": least}
        table.add_column(Text(name), overflow="fold", **style)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def as_markdown(found: dict[str, Any]) -> str:
    """The same tables for a document."""
    parts = [_markdown(*group_rows(found))]
    heading, rows, more = difference_rows(found)
    if rows:
        parts.append(_markdown(heading, rows) + (f"\n\nand {more} more keys differ" if more else ""))
    if found["pairs"]:
        parts += [_markdown(*pair_rows(found)), explained(found)]
    parts += [f"Note: {_cell(note)}" for note in found["notes"]]
    return "\n\n".join(parts) + "\n"


def _markdown(heading: Sequence[str], rows: Rows) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    for sign in "\\`*_|<[":
        text = text.replace(sign, f"\\{sign}")
    return text


def as_csv(found: dict[str, Any]) -> str:
    """A row a run, with the group it is in and its recipe's own values of the keys that differ."""
    own = ["name", "group", "seed", "method", "backend", "device", "precision", "parameters", "steps", "wall_seconds"]
    own += ["tokens_per_second", "latency_milliseconds"]
    keys = [key for key in found["differences"] if key not in own]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*own, *found["metrics"], *keys])
    for run in found["runs"]:
        settings = [found["differences"][key].get(run["group"]) for key in keys]
        values = [value if isinstance(value, str | None) else json.dumps(value) for value in settings]
        writer.writerow([*(run[key] for key in own), *(run["metrics"].get(name) for name in found["metrics"]), *values])
    return text.getvalue()
