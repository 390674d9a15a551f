"""Whether a step on OneFlow is faster with the matrix kernels that crossdistil asks its OpenBLAS for than with those that it
takes by itself for this processor.

    python benchmarks/oneflow_kernels.py --model-folder models/minilm --data data/SST-2 --threads 1

The work and its processes are those of `backends_step_time.py`, by processor time: two processes with the same weights and
batches, one of which is told in OPENBLAS_CORETYPE to take what OneFlow takes when it is imported without crossdistil. They take
turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

import numpy as np
from backends_step_time import worker
from tables import NEW_RESULTS, machine, markdown, summary, write_json

from crossdistil.backends.registry import interpreters

SETTING = "OPENBLAS_CORETYPE"
_NAME = """
import ctypes, oneflow._oneflow_internal as internal
name = ctypes.CDLL(internal.__file__).gotoblas_corename
name.restype = ctypes.c_char_p
print(name().decode())
"""


def taken_by_itself(python: Path) -> str:
    """The name of the kernels that OneFlow's OpenBLAS takes where nobody asks for any."""
    environment = {key: value for key, value in os.environ.items() if key != SETTING}
    found = subprocess.run([str(python), "-c", _NAME], capture_output=True, text=True, check=True, env=environment)
    return found.stdout.split()[-1]


def table(result: dict) -> str:
    """The result as Markdown."""
    rows = []
    for found in result["sides"]:
        milliseconds = found["step_milliseconds"]
        spread = f"{milliseconds['median']:.0f} ({milliseconds['min']:.0f} to {milliseconds['max']:.0f})"
        rows.append([found["kernels"], found["asked_by"], spread, f"{found['peak_gflops']:,.0f}"])
    faster, settings = result["faster"], result["settings"]
    text = (
        f"{settings['rounds']} turns of {settings['steps']} steps, batches of {settings['batch_size']} x {settings['length']} "
        f"tokens, processor time, threads: {result['machine']['threads']}. A step is {faster['median']:.2f} times as fast "
        f"({faster['min']:.2f} to {faster['max']:.2f}, turn by turn); the losses of the first turn are the same within "
        f"{result['losses_relative_difference']:.1e}."
    )
    return f"{markdown(['kernels', 'taken', 'ms a step', 'GFLOP/s of its matrix products'], rows)}\n\n{text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-folder", type=Path, required=True, help="the teacher, or an encoder without a head")
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's train.tsv")
    parser.add_argument("--steps", type=int, default=1, help="optimizer steps of a turn")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side, without the first")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=32, help="tokens that every example is cut or padded to")
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "oneflow_kernels.json")
    options = parser.parse_args()
    settings = {"task": "sst-2", "device": "cpu", "clock": "cpu", "steps_per_call": None}
    settings |= {name: getattr(options, name) for name in ("steps", "rounds", "batch_size", "length")}
    places = {"model_folder": str(options.model_folder.absolute()), "data": str(options.data.absolute())}
    python = interpreters(["oneflow"])["oneflow"]
    asked = {"OneFlow": {SETTING: taken_by_itself(python)}, "crossdistil": {}}
    workers = {by: worker("oneflow", python, settings | places, options.threads, variables) for by, variables in asked.items()}
    turns: dict[str, list[dict]] = {by: [] for by in workers}
    for number in range(options.rounds + 1):
        for by in list(workers) if number % 2 else reversed(workers):
            turns[by].append(workers[by].turn())
    sides = []
    for by, each in workers.items():
        each.stop()
        milliseconds = [turn["seconds"] / options.steps * 1000 for turn in turns[by][1:]]
        peak = max(turn["gflops"] for turn in turns[by][1:])
        kernels = each.about["kernels"]["matrix products"]
        spread = summary(milliseconds) | {"rounds": milliseconds}
        sides.append({"kernels": kernels, "asked_by": f"by {by}", "peak_gflops": peak, "step_milliseconds": spread})
    first, second = ([turn["seconds"] for turn in turns[by][1:]] for by in workers)
    losses = [np.array(turns[by][0]["losses"]) for by in workers]
    result = {
        "benchmark": "oneflow_kernels",
        "machine": machine() | {"threads": options.threads},
        "settings": settings,
        "sides": sides,
        "faster": summary([a / b for a, b in zip(first, second)]),
        "losses_relative_difference": float(np.max(np.abs(losses[1] / losses[0] - 1))),
    }
    write_json(options.out, result)
    print(table(result))


if __name__ == "__main__":
    main()
