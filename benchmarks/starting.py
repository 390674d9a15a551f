"""How much processor time a command takes that hardly computes: what it imports, opens and checks, and one short text.

    taskset -c 1 python benchmarks/starting.py --model runs/kd/student --before ../before/crossdistil --rounds 7

Each command is a process of its own, in turns with the others, and its user and system time from start to end is read from
the operating system; the fastest of all rounds counts, since other work can only add to it. `import torch` alone stands beside
them: what is ours is what comes on top. `--before` measures another checkout in the same turns. `--python BACKEND PYTHON` adds a
backend of another environment. Bytecode is kept (`PYTHONDONTWRITEBYTECODE` is not passed on): the first round makes it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tables import machine, markdown, measure

ROOT = Path(__file__).resolve().parent.parent
TEXT = "a fine film"
FRAMEWORK = "import of the framework alone"


def commands(options: argparse.Namespace) -> dict[str, list[str]]:
    """What it is called in the table -> the command."""
    program = [sys.executable, "-m", "crossdistil"]
    found = {
        "an option that is not there": [*program, "predict", "--no-such-option"],
        "run --help": [*program, "run", "--help"],
        f"torch: {FRAMEWORK}": [sys.executable, "-c", "import torch"],
        "torch: predict, one text": [*program, "predict", str(options.model), TEXT, "--backend", "torch"],
    }
    for backend, python in options.python:
        found[f"{backend}: {FRAMEWORK}"] = [python, "-c", f"import {backend}"]
        found[f"{backend}: predict, one text"] = [
            python, "-m", "crossdistil", "predict", str(options.model), TEXT, "--backend", backend
        ]  # fmt: skip
    return found


def seconds(command: list[str], checkout: Path) -> float:
    """User and system time of a process and its children, from its start to its end."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(checkout.parent)
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (2 if "--no-such-option" in command else 0):
        sys.exit(f"{' '.join(command)}: ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """The fastest of the rounds, by checkout and command."""
    sides = {"now": ROOT} | ({} if options.before is None else {"before": options.before.resolve()})
    named = commands(options)
    times: dict[str, dict[str, list[float]]] = {side: {name: [] for name in named} for side in sides}
    for number in range(options.rounds + 1):
        for name, command in named.items():
            for side, checkout in sides.items():
                found = seconds(command, checkout)
                if number:
                    times[side][name].append(found)
    return {
        "benchmark": "starting",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "rounds": options.rounds,
        "clock": "user and system time of the process, fastest of the rounds",
        "seconds": {side: {name: min(values) for name, values in each.items()} for side, each in times.items()},
    }


def table(result: dict[str, Any]) -> str:
    """A row a command, in milliseconds."""
    sides = [side for side in ("before", "now") if side in result["seconds"]]
    rows = [
        [name, *(f"{1000 * result['seconds'][side][name]:,.0f}" for side in sides)] for name in result["seconds"]["now"]
    ]
    return markdown(["processor time, ms", *sides], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder, or a finished run")
    parser.add_argument("--before", type=Path, help="another checkout, a folder called crossdistil")
    parser.add_argument("--python", nargs=2, action="append", default=[], metavar=("BACKEND", "PYTHON"))
    parser.add_argument("--rounds", type=int, default=7)
    measure(parser, "starting", measured, table)


if __name__ == "__main__":
    main()
