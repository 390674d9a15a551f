"""The command `crossdistil check`: a plugin's losses and optimizers against their NumPy formulas, each backend in a process of
its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ...backends.registry import backend_named, interpreters, known_backends, load_engine
from ..errors import MESSAGE_PREFIX, CrossdistilError
from ..json_files import parse_json
from ..processes import child_environment, ending, python_command
from .progress import make_console


def check(
    plugin: Annotated[
        str, typer.Argument(metavar="FILE.py|MODULE", help="Your own code with losses or optimizers; it is executed.")
    ],
    backends: Annotated[
        str | None, typer.Option(help="Backends, with commas between them; default: all that are installed.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Compare a plugin's losses (values, gradients, padding, accumulation) and optimizers with their NumPy formulas; exit code 1
    if some differ."""
    from ..engine import EngineOptions
    from ..plugin_files import load_plugins, named_plugins
    from ..registered import RegisteredOptimizer
    from .launchers import refuse_place

    refuse_place("check")
    from .loss_check import (
        backend_rows,
        make_cases,
        optimizer_rows,
        reference_optimizer_rows,
        reference_rows,
        require_compared,
    )

    console = make_console(stderr=as_json)
    [section] = named_plugins({"plugins": [plugin]}, "check")
    registered = load_plugins([section])
    require_compared(registered, plugin)
    if backends is None:
        names = [name for name, backend in known_backends().items() if backend.python is not None]
        for name in sorted(known_backends().keys() - set(names)):
            console.print(f"{name}: not installed, and not checked: {backend_named(name).install}", markup=False, soft_wrap=True)
    else:
        names = [name.strip() for name in backends.split(",") if name.strip()]
    pythons = interpreters(names)
    cases = make_cases(registered)
    optimizers = registered.of(RegisteredOptimizer)
    for loss in (*registered.losses.values(), *optimizers.values()):
        if loss.numpy is None:
            what = "has no NumPy formula, and is compared with itself in NumPy float64: that says whether backends agree"
            console.print(f"{loss.name}: {what}, not whether it is right", markup=False, soft_wrap=True)
    rows = [row for name, (loss, case) in cases.items() for row in reference_rows(name, loss, case)]
    rows += [row for each in optimizers.values() for row in reference_optimizer_rows(each)]
    for name, python in pythons.items():
        if python == Path(sys.executable) and len(pythons) == 1:
            engine = load_engine(name, EngineOptions("cpu"))
            rows += [*backend_rows(cases, engine), *optimizer_rows(registered, engine)]
        else:
            rows += _elsewhere(section.plugin, name, python)
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print(rows, console)
    raise typer.Exit(0 if all(row["ok"] for row in rows) else 1)


def _elsewhere(plugin: str, backend: str, python: Path) -> list[dict[str, Any]]:
    """The figures of a backend, by a process that has it alone."""
    command = python_command(python, "crossdistil", "check", plugin, "--backends", backend, "--json")
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout.strip():
        lines = [line.removeprefix(MESSAGE_PREFIX) for line in done.stderr.splitlines() if line.startswith(MESSAGE_PREFIX)]
        raise CrossdistilError("\n".join(lines) or f"backend '{backend}': the check ended with {ending(done.returncode)}")
    return [row for row in parse_json(done.stdout, f"the check on {backend}") if row["where"] == backend]


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    """A line a figure; where all of a case's are within their limits on a backend, one line for them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (("name", "left"), ("case", "left"), ("on", "left"), ("what", "left")):
        table.add_column(heading, justify=justify, overflow="fold")
    table.add_column("difference", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    for row in rows:
        found = "no number" if row["difference"] is None else f"{row['difference']:.1e}"
        mark = "[green]✓[/]" if row["ok"] else "[bold red]✗ differs[/]"
        table.add_row(row["loss"], row["case"], row["where"], row["what"], found, f"{row['limit']:.0e}", mark)
    console.print(table)
    wrong = sum(not row["ok"] for row in rows)
    words = f"{wrong} of {len(rows)} figures differ" if wrong else f"all {len(rows)} figures agree"
    of = "the formula's value, to the largest entry of its gradient, and to the longest way of a parameter"
    console.print(f"{words}: relative to {of}")
