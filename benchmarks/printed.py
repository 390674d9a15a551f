"""What commands print, for the pages that show it: `compare`, `search` and `serve`, with small models on made sentences, and
`trim`, with a model and texts that are given.

    python benchmarks/printed.py compare|search|serve [--out FILE]
    python benchmarks/printed.py trim --model models/multilingual --data data/reviews [--data ...] [--out FILE]

The output is kept with its command, machine and date, and `pages.py` puts it into the page.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import NEW_RESULTS, machine, write_json

import crossdistil
from crossdistil.core.app.demo_data import write_demo_task

_WIDTH = 110
"""Columns of the terminal."""
_SERVICE = "http://127.0.0.1:8000/predict"


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


def search(folder: Path) -> dict[str, Any]:
    """Six trials of a small distillation, and other seeds of the best."""
    write_demo_task(folder / "data", 42, 2000, 400)
    _run(folder, "teacher", 1, [{"loss": "hard_label"}], None, steps=400, learning_rate=3e-3)
    terms = [{"loss": "kd_ce", "weight": 0.5, "temperature": 2}, {"loss": "hard_label", "weight": 0.5}]
    write_json(folder / "kd.yaml", _recipe(folder, "kd", 1, terms, "teacher", epochs=2, learning_rate=1e-3))
    space = {
        "stages.0.train.learning_rate": {"log": [1e-4, 1e-2]},
        "stages.0.train.batch_size": {"choice": [16, 32, 64]},
        "stages.0.objective.0.temperature": {"float": [1, 8]},
    }
    write_json(folder / "space.yaml", space)
    return _printed(folder, "search", "kd.yaml", "--space", "space.yaml", "--trials", "6", "--seeds", "2", "--out", "runs/search")


def serve(folder: Path) -> dict[str, Any]:
    """The service of a small exported model, and its answer to one text."""
    write_demo_task(folder / "data", 42, 2000, 120)
    _run(folder, "kd", 1, [{"loss": "hard_label"}], None, steps=400, learning_rate=3e-3)
    _printed(folder, "export", "kd", "exported", "--data", "data")
    command, posted = ["serve", "exported"], json.dumps({"text": "a charming film"})
    with subprocess.Popen(_command(command), cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline()
            request = urllib.request.Request(_SERVICE, posted.encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = response.read().decode()
        finally:
            process.terminate()
    asked = f"$ curl -H 'Content-Type: application/json' -d '{posted}' {_SERVICE}"
    return _kept(command, [ready, asked, answer])


def trim(folder: Path, model: Path, data: Sequence[Path]) -> dict[str, Any]:
    """A model's vocabulary cut to texts, under the paths that are given."""
    for path in (model, *data):
        if path.is_absolute() or not path.exists():
            sys.exit(f"{path}: expected a folder that is there, as a relative path, since the page shows it")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).symlink_to(path.absolute(), target_is_directory=True)
    return _printed(folder, "trim", str(model), "models/trimmed", *(word for path in data for word in ("--data", str(path))))


def _run(folder: Path, name: str, seed: int, objective: list[dict], teacher: str | None, **train: Any) -> None:
    write_json(folder / f"{name}.yaml", _recipe(folder, name, seed, objective, teacher, **train))
    crossdistil.run(folder / f"{name}.yaml", out=folder / name, backend="torch", quiet=True)


def _recipe(folder: Path, name: str, seed: int, objective: list[dict], teacher: str | None, **train: Any) -> dict[str, Any]:
    about = {} if teacher is None else {"teacher": {"model": str(folder / teacher / "student")}}
    return {
        "method": name.partition("-")[0],
        "task": {"name": "sst-2", "data": str(folder / "data")},
        **about,
        "student": {"architecture": {"model_type": "bilstm", "hidden_size": 32}, "init": {"from": "random"}},
        "stages": [{"name": "distil", "objective": objective, "train": {"batch_size": 32, **train}}],
        "seed": seed,
    }


def _printed(folder: Path, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "COLUMNS": str(_WIDTH)}
    done = subprocess.run(_command(arguments), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return _kept(arguments, done.stdout.replace(f"{folder}/", "").splitlines())  # as from a folder of one's own


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "crossdistil", *arguments]


def _kept(arguments: Sequence[str], lines: Sequence[str]) -> dict[str, Any]:
    return {
        "benchmark": "printed",
        "crossdistil": crossdistil.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": " ".join(["crossdistil", *arguments]),
        "lines": [line.rstrip() for line in lines],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["compare", "search", "serve", "trim"])
    parser.add_argument("--model", type=Path, help="of trim")
    parser.add_argument("--data", type=Path, action="append", help="of trim")
    parser.add_argument("--out", type=Path, help="default: runs/benchmarks/printed_WHAT.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "trim":
            if options.model is None or options.data is None:
                parser.error("trim: name --model and --data")
            found = trim(Path(folder), options.model, options.data)
        else:
            found = {"compare": compare, "search": search, "serve": serve}[options.what](Path(folder))
    path = options.out or NEW_RESULTS / f"printed_{options.what}.json"
    write_json(path, found)
    print("\n".join(found["lines"]))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
