"""Kills one process of a run of several at a random moment, and checks that all end in time, with one line that names it, that
nothing is left, and that `--resume` gives the weights of the unbroken run, bit for bit.

    python benchmarks/robustness/killed_ranks.py [--backend torch] [--devices 2] [--kills 20] [--seconds 5] [--seed 0]
        [--more] [--kind KIND]

The moments are drawn from the whole life of the run, start of the interpreters to end: every second one after the first line of
metrics, the others before. What the run was doing is told by what the first process had printed. The result is
`benchmarks/results/robustness_killed_ranks_BACKEND.json`; with `--more`, which wants another seed, the kills are added to those
that are there. `--kind` is a recipe of `tests/kind_recipes.py`, such as ner, and not kd's; those of all kinds are in
`robustness_killed_ranks_kinds_BACKEND.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ruamel.yaml import YAML
from tables import machine, write_json

from crossdistil.backends.registry import interpreter
from crossdistil.core.processes import python_command
from crossdistil.tests.kind_recipes import KIND_RECIPES, write_kind
from crossdistil.tests.wrong_input_files import recipe_tree, write_model, write_task

RESULTS = Path(__file__).resolve().parents[1] / "results"
_MARK = "CROSSDISTIL_KILL_TEST"
# Long enough that the moments fall into training, evaluations and saved states as often as into the start.
_TRAIN = {"steps": 240, "batch_size": 8, "gradient_accumulation": 4, "log_every": 20, "save_every": 20, "evaluate_every": 60}


class Bed:
    """A small task and its recipe, and how a run of it is started."""

    def __init__(self, folder: Path, backend: str, devices: int, kind: str | None):
        self.folder, self._backend, self._devices = folder, backend, devices
        if kind is not None:
            write_kind(folder, kind, **_TRAIN)
            return
        tree = recipe_tree(write_task(folder / "data", 48), write_model(folder / "teacher"))
        tree["stages"][0]["train"] |= _TRAIN
        with (folder / "recipe.yaml").open("w") as file:
            YAML().dump(tree, file)

    def start(self, out: Path, mark: str, *arguments: str) -> subprocess.Popen:
        """`crossdistil run --devices`, whose output goes beside `out`."""
        options = ["--backend", self._backend, "--device", "cpu", "--devices", str(self._devices), "--out", str(out)]
        recipe = [] if "--resume" in arguments else [str(self.folder / "recipe.yaml")]
        command = python_command(interpreter(self._backend), "crossdistil", "run", *recipe, *options, *arguments)
        environment = {**os.environ, _MARK: mark, "CROSSDISTIL_CACHE": str(self.folder / "cache")}
        with out.with_suffix(".out").open("w") as output, out.with_suffix(".err").open("w") as errors:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=errors, cwd=self.folder)


def digest(out: Path) -> str:
    """The SHA-256 of a run's student."""
    return hashlib.sha256((out / "student" / "model.safetensors").read_bytes()).hexdigest()


def marked(mark: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The processes that were started with this mark in their environment, and their environments."""
    for place in Path("/proc").iterdir():
        if place.name.isdecimal():
            with contextlib.suppress(OSError):
                pairs = (entry.partition("=") for entry in (place / "environ").read_bytes().decode(errors="replace").split("\0"))
                environment = {name: value for name, _, value in pairs}
                if environment.get(_MARK) == mark and (place / "stat").read_text().rpartition(") ")[2][:1] != "Z":
                    yield int(place.name), environment


def ranks(mark: str) -> dict[int, int]:
    """Process number by rank. A rank's own children have its environment too; they are younger."""
    found: dict[int, int] = {}
    for pid, environment in sorted(marked(mark)):
        if "CROSSDISTIL_LAUNCHED" in environment and environment.get("MS_ROLE") != "MS_SCHED":
            rank = environment.get("RANK") or environment.get("MS_NODE_ID") or environment.get("RANK_ID")
            if rank is not None:
                found.setdefault(int(rank), pid)
    return found


def phase(out: Path) -> str:
    """What the run was doing, by what it had printed."""
    lines = out.with_suffix(".out").read_text().splitlines()
    if (out / "result.json").exists():
        return "ended"
    if not lines:
        return "starting"
    if any(f"step {_TRAIN['steps']}, " in line for line in lines):
        return "finishing"
    if (out / "metrics.jsonl").exists():
        return "training"
    return "preparing"


def whole_run(bed: Bed, out: Path) -> tuple[float, float]:
    """A run that nothing disturbs: seconds until its first metrics, and from then to its end."""
    started, process, first = time.monotonic(), bed.start(out, "whole"), None
    while process.poll() is None:
        if first is None and (out / "metrics.jsonl").exists():
            first = time.monotonic()
        time.sleep(0.01)
    assert process.returncode == 0 and first is not None, out.with_suffix(".err").read_text()
    return first - started, time.monotonic() - first


def kill_once(bed: Bed, number: int, training: bool, after: float, rank: int, expected: str, seconds: float) -> dict:
    """One run, one kill some seconds after the start, or after the first metrics, one resumption; raises AssertionError."""
    out, mark = bed.folder / f"run-{number}", f"{os.getpid()}-{number}"
    started, process = time.monotonic(), bed.start(out, mark)
    while training and not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    begin = time.monotonic()
    while time.monotonic() < begin + after and process.poll() is None:
        time.sleep(0.01)
    while not (found := ranks(mark)).get(rank) and process.poll() is None:
        time.sleep(0.01)
    doing = phase(out)
    what = {"after_seconds": round(time.monotonic() - started, 2), "rank": rank, "phase": doing}
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[rank], signal.SIGKILL)
    killed = time.monotonic()
    code = process.wait()
    took = time.monotonic() - killed
    errors = out.with_suffix(".err").read_text().splitlines()
    left = [pid for pid, _ in marked(mark)]
    assert not left, f"{what}: still running: {left}"
    what |= {"exit_code": code, "ended_within_seconds": round(took, 2)}
    if code == 0:  # it was done already
        assert (out / "result.json").exists() and digest(out) == expected, f"{what}: another result"
        return what
    complete = (out / "result.json").exists()
    assert took <= seconds, f"{what}: took {took:.1f} s to end"
    assert code == 1, f"{what}: {errors}"
    assert len(errors) == 1 and f"rank {rank} of " in errors[0], f"{what}: {errors}"
    if not complete:
        again = bed.start(out, mark, "--resume") if (out / "run.json").exists() else bed.start(out, mark)
        assert again.wait() == 0, f"{what}: cannot be resumed: {out.with_suffix('.err').read_text()}"
    assert digest(out) == expected, f"{what}: other weights"
    left = [path.name for path in out.rglob("*") if "tmp" in path.name or path.name == ".lock"]
    assert not left, f"{what}: left behind: {left}"
    shutil.rmtree(out)
    return what | {"line": errors[0].partition("error: ")[2]}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long all may take to end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", action="store_true", help="add to the kills that are there")
    parser.add_argument("--kind", choices=KIND_RECIPES)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    of = "" if options.kind is None else "kinds_"
    path = options.out or RESULTS / f"robustness_killed_ranks_{of}{options.backend}.json"
    kept = json.loads(path.read_text()) if options.more else {"backend": options.backend, "processes": options.devices}
    if (kept["backend"], kept["processes"]) != (options.backend, options.devices) or options.seed in kept.get("seeds", []):
        parser.error(f"--more: {path} is of {kept['processes']} processes of {kept['backend']}, with seeds {kept['seeds']}")
    draw, kills, seeds = random.Random(options.seed), kept.get("kills", []), [*kept.get("seeds", []), options.seed]
    with tempfile.TemporaryDirectory() as folder:
        bed = Bed(Path(folder), options.backend, options.devices, options.kind)
        # The second one finds the caches filled, as the runs that are killed do.
        before, within = [whole_run(bed, bed.folder / f"whole-{number}") for number in range(2)][1]
        expected = digest(bed.folder / "whole-0")
        assert digest(bed.folder / "whole-1") == expected
        for number in range(options.kills):
            training = number % 2 == 0
            after, rank = draw.uniform(0, within if training else before), draw.randrange(options.devices)
            kill = kill_once(bed, number, training, after, rank, expected, options.seconds)
            kills.append(kill if options.kind is None else {"kind": options.kind, **kill})
            print(number + 1, kills[-1], flush=True)
            write_json(path, summary(options, seeds, before + within, kills))


def summary(options: argparse.Namespace, seeds: list[int], seconds: float, kills: list[dict]) -> dict:
    """What is kept of the kills so far."""
    return {
        "backend": options.backend,
        "processes": options.devices,
        "seeds": seeds,
        "whole_run_seconds": round(seconds, 1),
        "longest_end_seconds": max(kill["ended_within_seconds"] for kill in kills),
        "phases": {name: sum(kill["phase"] == name for kill in kills) for name in sorted({kill["phase"] for kill in kills})},
        "kills": kills,
        "machine": machine(),
        "load": round(os.getloadavg()[1], 1),
        "date": datetime.date.today().isoformat(),
    }


if __name__ == "__main__":
    main()
