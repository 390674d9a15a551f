"""Time of a distillation step on each backend, side by side.

    python benchmarks/backends_step_time.py --model-folder runs/sst2/teacher/student --data data/SST-2

A student of every second layer learns from its teacher (`recipes/kd.yaml`) in float32, in batches of one shape, so that a
graph mode compiles once. Every backend gets the same weights and batches and runs in the Python that has it, in a process
that waits while the others take their turn. The first turn, with the compilation, is told apart from the others. Before each
turn a framework multiplies matrices of 1,024 x 1,024: the fastest of these is the peak that its step is told as a share of, by
a count of the products that a step is made of, for all places of a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
from gemm_peak import Products, step_operations
from kd_job import OPTIMIZER, kd_job
from tables import NEW_RESULTS, machine, markdown, summary, write_json
from turns import TurnTaker, answer

from crossdistil.backends.registry import BACKENDS, interpreters, load_engine
from crossdistil.core.data.batches import real_tokens
from crossdistil.core.engine import EngineOptions

_SIDE = 1024


def work(backend: str, settings: dict) -> None:
    """The process of one backend: takes a turn for each line of standard input, and answers with a line of JSON."""
    job = kd_job(
        Path(settings["model_folder"]),
        Path(settings["data"]),
        settings["task"],
        settings["batch_size"],
        settings["length"],
        buckets=(settings["length"],),
    )
    engine = load_engine(backend, EngineOptions(settings["device"], steps_per_call=settings["steps_per_call"]))
    step = engine.train_step(job.objective.function, job.student.parameters, job.frozen, OPTIMIZER)
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[settings["clock"]]
    products = Products(engine, _SIDE)
    places = settings["batch_size"] * settings["length"]
    about = {"versions": engine.versions(), "device": engine.device, "kernels": engine.kernels}
    answer(about | {"step_gflop": places * step_operations(job, settings["length"]) / 1e9})
    for epoch, _ in enumerate(sys.stdin):
        steps = list(islice(job.steps(epoch), settings["steps"]))
        tokens = sum(real_tokens(batch) for each in steps for batch in each.micro_batches)
        rate = products.rate(clock)
        started = clock()
        values = step.run(iter(steps), len(steps)).fetch()
        seconds = clock() - started
        answer({"seconds": seconds, "tokens": tokens, "gflops": rate / 1e9, "losses": np.asarray(values)[:, 0].tolist()})


def worker(
    backend: str, python: Path, settings: dict, threads: int | None, variables: dict[str, str] | None = None
) -> TurnTaker:
    """The other end of `work`; `variables` are of its environment, beside this process's own."""
    environment = {**os.environ, **(variables or {}), **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    command = [python, __file__, "--worker", backend, "--settings", json.dumps(settings)]
    return TurnTaker(backend, command, environment)


def table(result: dict) -> str:
    """The result as a Markdown table for docs/evidence.md."""
    rows = []
    for name, found in result["backends"].items():
        version = found["versions"][name]
        milliseconds, speed = found["step_milliseconds"], found["tokens_per_second"]
        share = f"{found['share_of_peak']:.0%} of {found['peak_gflops']:,.0f}"
        spread = f"{milliseconds['median']:.0f} ({milliseconds['min']:.0f} to {milliseconds['max']:.0f})"
        rows.append([f"{name} {version}", spread, f"{speed['median']:,.0f}", share, f"{found['first_turn_extra_seconds']:.1f}"])
    return markdown(["backend", "ms a step", "tokens/s", "of its matrix products' GFLOP/s", "start and compilation, s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-folder", type=Path, help="the teacher, or an encoder without a head")
    parser.add_argument("--data", type=Path, help="folder with the task's train.tsv")
    parser.add_argument("--task", default="sst-2")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each backend, without the first")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=32, help="tokens that every example is cut or padded to")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps-per-call", type=int, help="data sinking: steps that the device runs per call")
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is shared")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "backends_step_time.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options.worker, options.settings)
    if options.model_folder is None or options.data is None:
        parser.error("--model-folder and --data are needed")
    names = ("task", "steps", "rounds", "batch_size", "length", "device", "steps_per_call", "clock")
    settings = {name: getattr(options, name) for name in names}
    places = {"model_folder": str(options.model_folder.absolute()), "data": str(options.data.absolute())}
    pythons = interpreters(options.backends.split(","))
    workers = [worker(name, python, settings | places, options.threads) for name, python in pythons.items()]
    turns: dict[str, list[dict]] = {name: [] for name in pythons}
    for number in range(options.rounds + 1):
        start = number % len(workers)
        for each in workers[start:] + workers[:start]:
            turns[each.name].append(each.turn())
        latest = ", ".join(f"{name} {each[-1]['seconds'] / options.steps * 1000:.0f} ms" for name, each in turns.items())
        print(f"{'first turn' if number == 0 else f'round {number}/{options.rounds}'}: {latest}", flush=True)
    for each in workers:
        each.stop()
    backends = {}
    for each in workers:
        first, *timed = turns[each.name]
        milliseconds = [turn["seconds"] / options.steps * 1000 for turn in timed]
        peak = max(turn["gflops"] for turn in timed)
        backends[each.name] = each.about | {
            "peak_gflops": peak,
            "share_of_peak": each.about["step_gflop"] / (summary(milliseconds)["median"] / 1000) / peak,
            "step_milliseconds": summary(milliseconds) | {"rounds": milliseconds},
            "tokens_per_second": summary([turn["tokens"] / turn["seconds"] for turn in timed]),
            "first_turn_extra_seconds": max(0.0, first["seconds"] - summary(milliseconds)["median"] * options.steps / 1000),
            "first_loss": first["losses"][0],
        }
    result = {
        "benchmark": "backends_step_time",
        "machine": machine() | {"threads": options.threads},
        "settings": settings,
        "backends": backends,
    }
    write_json(options.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
