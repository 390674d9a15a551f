"""What commands print, for the pages that show it: `compare`, of runs on made sentences that take seconds.

    python benchmarks/printed.py compare [--out FILE]

The output is kept with its command, machine and date, and `pages.py` puts it into the page.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tables import NEW_RESULTS, machine, write_json

import crossdistil
from crossdistil.core.app.demo_data import write_demo_task

_WIDTH = 110
"""Columns of the terminal."""


def compare(folder: Path) -> dict[str, Any]:
    """Three short distillations and two longer trainings of a BiLSTM, compared."""
    write_demo_task(folder / "data", 42, 2000, 120)
    _run(folder, "teacher", 1, [{"loss": "hard_label"}], None, steps=400, learning_rate=3e-3)
    terms = [{"loss": "kd_ce", "weight": 0.5, "temperature": 2}, {"loss": "hard_label", "weight": 0.5}]
    for seed in (1, 2, 3):
        _run(folder, f"kd-{seed}", seed, terms, "teacher", steps=60, learning_rate=1e-3)
    for seed in (1, 2):
        _run(folder, f"long-{seed}", seed, [{"loss": "hard_label"}], "teacher", steps=400, learning_rate=3e-3)
    return _printed(folder, "compare", "kd-1", "kd-2", "kd-3", "long-1", "long-2")


def _run(folder: Path, name: str, seed: int, objective: list[dict], teacher: str | None, **train: Any) -> None:
    about = {} if teacher is None else {"teacher": {"model": str(folder / teacher / "student")}}
    recipe = {
        "method": name.partition("-")[0],
        "task": {"name": "sst-2", "data": str(folder / "data")},
        **about,
        "student": {"architecture": {"model_type": "bilstm", "hidden_size": 32}, "init": {"from": "random"}},
        "stages": [{"name": "distil", "objective": objective, "train": {"batch_size": 32, **train}}],
        "seed": seed,
    }
    write_json(folder / f"{name}.yaml", recipe)
    crossdistil.run(folder / f"{name}.yaml", out=folder / name, backend="torch", quiet=True)


def _printed(folder: Path, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "COLUMNS": str(_WIDTH)}
    command = [sys.executable, "-m", "crossdistil", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return {
        "benchmark": "printed",
        "crossdistil": crossdistil.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": " ".join(["crossdistil", *arguments]),
        "lines": [line.rstrip() for line in done.stdout.splitlines()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare"])
    parser.add_argument("--out", type=Path, help="default: runs/benchmarks/printed_WHAT.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare(Path(folder))
    path = options.out or NEW_RESULTS / f"printed_{options.what}.json"
    write_json(path, found)
    print("\n".join(found["lines"]))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
