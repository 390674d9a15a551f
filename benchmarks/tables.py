"""What the benchmarks share: medians, Markdown tables, their machine, and the generated sections of README and docs/."""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from crossdistil.core.processor import processor

RESULTS = Path(__file__).resolve().parent / "results"
"""The kept results, which the figures of README and docs/ come from."""
NEW_RESULTS = Path("runs") / "benchmarks"
"""Where a benchmark writes unless `--out` says otherwise, so that only what is meant to be kept replaces what is."""


def machine() -> dict[str, Any]:
    """The processor and the Python of this measurement. What a hypervisor calls just AMD EPYC has its family and model told."""
    found = processor()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        told = dict(re.findall(r"^(cpu family|model)\s*: (\d+)$", lines, re.MULTILINE))
    except OSError:
        told = {}
    if len(told) == 2:
        found["cpu"] += f" (family {told['cpu family']}, model {told['model']})"
    return found


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are aligned to the right."""
    rule = ["---", *("---:" for _ in headings[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (headings, rule, *rows))


def measure(
    parser: argparse.ArgumentParser, name: str, measured: Callable[[argparse.Namespace], Any], table: Callable[[Any], str]
) -> None:
    """What a benchmark's command does: read its options, write what is measured into `--results`, and show the table."""
    parser.add_argument("--results", type=Path, default=NEW_RESULTS / f"{name}.json")
    options = parser.parse_args()
    found = measured(options)
    write_json(options.results, found)
    print(table(found))


def model_at(text: str) -> Path:
    """The type of an option that names a model folder or a run, wherever a run of the benchmark works later."""
    from crossdistil.core.app.models import model_folder  # which few benchmarks need

    return model_folder(Path(text).absolute())


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a benchmark's result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def replace_section(text: str, name: str, body: str) -> str:
    """`text` with `body` between the markers of the section `name`; raises ValueError if they are not there, once."""
    begin, end = f"<!-- results:begin {name} -->", f"<!-- results:end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise ValueError(f"expected the lines {begin} and {end}, each once and in this order")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{body.strip()}\n{end}{rest.split(end)[1]}"
