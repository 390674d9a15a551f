"""That several processes give the numbers of one, for each backend and recipe, and what they cost.

    python benchmarks/processes.py proof [--backends torch,oneflow,mindspore] [--processes 2,4] [--steps 20]
    python benchmarks/processes.py resume [--backends ...]
    python benchmarks/processes.py speed [--backends ...] [--before COMMIT]

`proof` trains every recipe of the catalogue, all its stages, on tiny models and ragged batches, with accumulation 1 and 3 and
with dropout and 4 equal parts, by one process and by several, and compares each step's loss and the last weights. `resume` stops
a run of two stages and goes on with another number of processes: within an epoch and a window of the log, between the stages.
`speed` measures on this machine, which must be quiet (`processes_speed`). All keep what they find in `--out` beside what is
there; `pages.py` writes the tables.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import processes_speed
from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.backends.registry import BACKENDS, interpreters
from crossdistil.tests.several import differences, start
from crossdistil.tests.several_cases import LONG
from crossdistil.tests.several_files import write_files
from crossdistil.tests.several_resumed import PATHS, PHASES, end_of


def prove(backend: str, counts: list[int], steps: int, names: list[str]) -> dict[str, Any]:
    """Case -> number of processes -> largest difference of a loss, relative, and of a weight, relative to the largest one."""
    found: dict[str, Any] = {name: {} for name in names}
    asked = [f"{name} for {steps} steps" for name in names]
    with tempfile.TemporaryDirectory() as root:
        files = write_files(Path(root) / "files")
        alone: dict = {}
        for count in (1, *counts):
            started = time.perf_counter()
            arrays = start(backend, count, asked, files, Path(root) / str(count), seconds=7200)()
            alone = alone or arrays
            for name, key in zip(names, asked):
                if count > 1:
                    loss, weights, _ = differences(alone[key], arrays[key])
                    found[name][str(count)] = {"loss": loss, "weights": weights}
            worst = max((found[name][str(count)]["loss"] for name in names), default=0.0) if count > 1 else 0.0
            print(f"{backend}, {count} processes: {time.perf_counter() - started:.0f} s, losses within {worst:.1e}", flush=True)
    return found


def resume(backend: str) -> dict[str, float]:
    """Path, such as 2-1-2 processes -> largest difference of a weight from an unbroken run's. The texts of each step must be the
    same."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        files = write_files(Path(root) / "files")
        for number, phase in enumerate(PHASES):
            for count, names in phase:
                found |= start(backend, count, names, files, Path(root) / f"{number}-{count}", seconds=3600)()
        ends = {path: end_of(path, found) for path in PATHS}
    distances = {
        path: max(float(np.abs(end[name] - array).max()) for name, array in expected.items())
        for path, (expected, end) in ends.items()
    }
    print(f"{backend}, resumed: {distances}", flush=True)
    return distances


def _counted(cases: dict[str, Any]) -> str:
    """How many cases were run by how many processes."""
    counts = Counter(int(count) for case in cases.values() for count in case)
    return " and ".join(f"{number} cases by {count} processes" for count, number in sorted(counts.items()))


def _measured(proof: dict[str, Any]) -> str:
    """How many cases were measured where and when."""
    times: dict[tuple[str, str], dict[str, Any]] = {}
    for name, case in proof["cases"].items():
        own = proof.get("when", {}).get(name, proof)
        times.setdefault((own["machine"]["cpu"], own["date"]), {})[name] = case
    return ", ".join(f"{_counted(cases)} on {cpu}, {date}" for (cpu, date), cases in times.items())


def table(result: dict[str, Any]) -> str:
    """A row for each recipe, a column for each backend."""
    proof = result.get("proof", {})
    cases = {name: LONG[name].recipe for each in proof.values() for name in each["cases"]}
    rows = []
    for recipe in dict.fromkeys(cases.values()):
        row = [f"`{recipe}`"]
        for each in proof.values():
            pairs = [
                pair for name, counts in each["cases"].items() if cases[name] == recipe for pair in counts.values()
            ]
            loss, weights = (max((pair[key] for pair in pairs), default=None) for key in ("loss", "weights"))
            row.append("" if loss is None else f"{loss:.0e} / {weights:.0e}")
        rows.append(row)
    about = "; ".join(
        f"{backend} {each['version']}, {each['steps']} steps a stage: {_measured(each)}" for backend, each in proof.items()
    )
    pairs = [pair for each in proof.values() for case in each["cases"].values() for pair in case.values()]
    worst = max((pair["loss"] for pair in pairs), default=0.0)
    resumed = result.get("resume", {})
    paths = "; ".join(
        f"{backend} " + ", ".join(f"{path} {distance:.0e}" if distance else f"{path} 0" for path, distance in found.items())
        for backend, found in ((backend, each["paths"]) for backend, each in resumed.items())
    )
    told = f" Weights of runs resumed by other numbers of processes, from the unbroken run's: {paths}." if paths else ""
    return (
        f"{markdown(['recipe', *proof], rows)}\n\nLargest difference between several processes and one: of any loss value of any "
        "step, relative (a small term: to the total), and of a weight at the end, relative to the largest. Every stage, with "
        "accumulation 1 and 3, which several processes raise to their multiple, and with dropout on 4 parts; the last batch of "
        "an epoch is incomplete. AdamW's epsilon is 0.01: a small one makes a whole step of the sign of a gradient that is zero "
        f"but for rounding, as that of a key's bias, on which no loss depends. {about}. Largest of all: {worst:.0e}.{told}"
    )


def tables_of(result: dict[str, Any]) -> dict[str, str]:
    """Name -> table of what has been measured."""
    bodies = {}
    if "proof" in result:
        bodies["processes"] = table(result)
    if "speed" in result:
        bodies["processes_speed"] = processes_speed.table(result["speed"])
    return bodies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=["proof", "resume", "speed"])
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--processes", default="2,4", help="of proof")
    parser.add_argument("--steps", type=int, default=20, help="of each stage, of proof")
    parser.add_argument("--cases", help="of proof: some of them, separated by semicolons")
    parser.add_argument("--before", default=processes_speed.BEFORE, help="of speed: the commit that one process is compared with")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "processes.json", help="results, to which new ones are added")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.exists() else {"benchmark": "processes"}
    about = {"machine": machine(), "date": datetime.date.today().isoformat()}
    backends = options.backends.split(",")
    pythons = interpreters(backends)
    if options.work == "speed":
        result["speed"] = result.get("speed", {}) | processes_speed.measure(pythons, options.before, about)
    elif options.work == "resume":
        for backend in backends:
            result["resume"] = result.get("resume", {}) | {backend: {"paths": resume(backend), **about}}
            write_json(options.out, result)
    else:
        counts = [int(count) for count in options.processes.split(",")]
        for backend in backends:
            names = options.cases.split(";") if options.cases else [n for n, case in LONG.items() if backend in case.backends]
            cases = prove(backend, counts, options.steps, names)
            version = processes_speed.version_of(backend, pythons[backend])
            kept = result.get("proof", {}).get(backend, {})
            when = dict.fromkeys(cases, about)
            if (kept.get("steps"), kept.get("version")) == (options.steps, version):  # those of other cases and numbers stay
                cases = {name: kept["cases"].get(name, {}) | cases.get(name, {}) for name in {**kept["cases"], **cases}}
                found = {**kept, "cases": cases, "when": kept.get("when", {}) | when}
            else:
                found = {"cases": cases, "steps": options.steps, "version": version, **about}
            result["proof"] = result.get("proof", {}) | {backend: found}
            write_json(options.out, result)
    write_json(options.out, result)
    print(processes_speed.table(result["speed"]) if options.work == "speed" else table(result))


if __name__ == "__main__":
    main()
