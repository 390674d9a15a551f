"""Whether a step of distillation takes longer in one version of this package than in another.

    python benchmarks/two_versions.py --before ../before/crossdistil --after . --model-folder models/minilm --data data/SST-2

A student of every second layer learns from its teacher (`benchmarks/kd_job.py` of each version) on one thread, in batches of one
shape, or with `--own-lengths` in those that training makes. Each version runs in a process of its own, which waits while the
other takes its turn: before, after, after, before. What is told is processor time, which other programs change less than the
clock's, and the median of the ratios of neighbours, with its 95 % interval (bootstrap over the pairs).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from turns import TurnTaker

WORKER = """
import json, sys, time
from itertools import islice
from pathlib import Path
tree, backend, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
sys.path[:0] = [str(Path(tree).parent), str(Path(tree) / "benchmarks")]
from kd_job import OPTIMIZER, kd_job
from crossdistil.backends.registry import load_engine
from crossdistil.core.engine import EngineOptions
import crossdistil
assert Path(crossdistil.__file__).resolve().parent == Path(tree).resolve(), crossdistil.__file__
length = settings["length"]
given = Path(settings["model"]), Path(settings["data"]), "sst-2", settings["batch"], length
buckets = {"length_step": 1} if settings["own_lengths"] else {"buckets": (length,)}
job = kd_job(*given, **buckets)
engine = load_engine(backend, EngineOptions("cpu", settings["precision"]))
step = engine.train_step(job.objective.function, job.student.parameters, job.frozen, OPTIMIZER)
steps = list(islice(job.steps(0), settings["steps"]))
def turn():
    started = time.process_time()
    values = step.run(iter(steps), len(steps)).fetch()
    return time.process_time() - started, [float(value) for value in values[:, 0]]
first = turn()[1]
turn()
print("answer " + json.dumps(first), flush=True)
for _ in sys.stdin:
    print("answer " + json.dumps(turn()[0]), flush=True)
"""


def version(tree: Path, python: str, backend: str, settings: dict) -> TurnTaker:
    """A process that runs one version; its answers are seconds of the processor."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [python, "-c", WORKER, tree.absolute(), backend, json.dumps(settings)]
    return TurnTaker(str(tree), command, environment, tree)


def compared(before: TurnTaker, after: TurnTaker, rounds: int, steps: int) -> dict:
    """The median ratio of after to before, its interval, and milliseconds of a step of each."""
    ratios, seconds = [], {"before": [], "after": []}
    for number in range(rounds):
        order = (before, after) if number % 2 == 0 else (after, before)
        took = {id(side): side.turn() for side in order}
        seconds["before"].append(took[id(before)])
        seconds["after"].append(took[id(after)])
        ratios.append(took[id(after)] / took[id(before)])
    drawn = np.random.default_rng(0).choice(ratios, (2000, rounds))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    apart = max(abs(a / b - 1) for a, b in zip(after.about, before.about))
    return {
        "ratio": round(float(np.median(ratios)), 4),
        "interval": [round(float(low), 4), round(float(high), 4)],
        "rounds": rounds,
        "cpu_milliseconds": {name: round(1000 * float(np.median(found)) / steps, 2) for name, found in seconds.items()},
        "first_losses_relative_difference": apart,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the package of one version; its folder is named crossdistil")
    parser.add_argument("--after", type=Path, required=True, help="that of the other")
    parser.add_argument("--model-folder", type=Path, action="append", required=True, help="a teacher; may be given repeatedly")
    parser.add_argument("--data", type=Path, required=True, help="folder with SST-2's train.tsv")
    parser.add_argument("--backend", action="append", nargs=2, metavar=("NAME", "PYTHON"), help="default: torch in this Python")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--own-lengths", action="store_true", help="batches of similar length, each of its own")
    parser.add_argument("--precision", action="append", help="fp32 or bf16; may be given repeatedly; default: fp32")
    parser.add_argument("--out", type=Path, help="a file for the figures as JSON")
    given = parser.parse_args()
    results = []
    for backend, python in given.backend or [("torch", sys.executable)]:
        for model in given.model_folder:
            settings = {"model": str(model.absolute()), "data": str(given.data.absolute())}
            settings |= {key: getattr(given, key) for key in ("steps", "batch", "length", "own_lengths")}
            for settings["precision"] in given.precision or ["fp32"]:
                sides = [version(tree, python, backend, settings) for tree in (given.before, given.after)]
                found = compared(*sides, given.rounds, given.steps)
                for side in sides:
                    side.stop()
                described = {"backend": backend, "model": model.name, "precision": settings["precision"]}
                results.append(described | found)
                print(json.dumps(results[-1]), flush=True)
                if given.out is not None:
                    given.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
