"""Latency of finished models on the CPU, a sentence at a time and in batches of 32.

    python benchmarks/latency.py --data data/SST-2 --runs runs/sst2
    python benchmarks/latency.py --data data/SST-2 runs/sst2/teacher runs/sst2/kd-42

One thread, float32, the sentences of dev in batches of one length bucket each, as `crossdistil predict` makes them. The
models take turns, each time another one first, so that whatever else the machine does hits all alike; what is told is the
median over the turns. Only the model's own time counts, from token ids to logits: tokenizing is the same for all of BERT's
kind. The first model says which task it is, and is what the others are compared with. `--runs` takes the teacher and one run
of each method from a folder whose runs are named METHOD-SEED: a seed changes no latency.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before the framework is loaded

import numpy as np
from run_names import REFERENCE, method_of
from tables import NEW_RESULTS, machine, summary, write_json

from crossdistil.backends.registry import load_engine
from crossdistil.core.app.inference import load_classifier
from crossdistil.core.data.batches import evaluation_batches, length_buckets
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.engine import EngineOptions
from crossdistil.core.task_data import logits_function
from crossdistil.core.task_section import TaskSection

BATCHES = (1, 32)


def model_folder(folder: Path) -> tuple[str, Path]:
    """What a run, or the model in it, is called, and where the model is."""
    if (folder / "student").is_dir():
        return folder.name, folder / "student"
    return (folder.parent.name if folder.name == "student" else folder.name), folder


def found_runs(folder: Path) -> list[Path]:
    """The teacher first, then the first complete run of each method."""
    complete = sorted(path.parent for path in folder.glob("*/result.json"))
    first = {method_of(run.name): run for run in reversed(complete)}
    reference = [first.pop(REFERENCE)] if REFERENCE in first else []
    return [*reference, *(first[method] for method in sorted(first))]


class Measured:
    """A model that takes turns."""

    def __init__(self, engine, folder: Path, texts: list[str], pairs: list[str] | None):
        model, tokenizer = load_classifier(folder)
        about = model.about
        length = int(about.get("max_length") or about.get("task", {}).get("max_length", 128))
        length = min(length, getattr(model.config, "max_position_embeddings", length))
        self.parameters = model.parameter_count
        self._infer = engine.infer(logits_function(model.config), model.parameters)
        self._tokens = tokenizer.encode_pairs(texts, pairs, length)
        self._buckets = length_buckets(length, engine.static_shapes)
        self._count = len(texts)
        self.mean_tokens = float(np.mean(self._tokens.lengths))
        self._batches = {
            size: [batch for _, batch in evaluation_batches(self._tokens, None, size, self._buckets)] for size in BATCHES
        }

    def turn(self, size: int, clock: Callable[[], float]) -> float:
        """Milliseconds a sentence."""
        started = clock()
        for batch in self._batches[size]:
            self._infer(batch)
        return (clock() - started) / self._count * 1000


def measure(models: dict[str, Measured], rounds: int, clock: Callable[[], float]) -> dict[str, dict[int, list[float]]]:
    """Milliseconds a sentence of each model and batch size in each round, after a round that warms up."""
    found: dict[str, dict[int, list[float]]] = {name: {size: [] for size in BATCHES} for name in models}
    names = list(models)
    for number in range(rounds + 1):
        start = number % len(names)
        for size in BATCHES:
            for name in names[start:] + names[:start]:
                taken = models[name].turn(size, clock)
                if number:
                    found[name][size].append(taken)
        print("warm-up" if number == 0 else f"round {number}/{rounds}", flush=True)
    return found


def result_of(models: dict[str, Measured], found: dict[str, dict[int, list[float]]]) -> dict[str, dict]:
    """The medians with their spread, and the speed-up over the first model: the median of the rounds' ratios."""
    first = next(iter(models))
    results = {}
    for name, model in models.items():
        results[name] = {"parameters": model.parameters, "mean_tokens": round(model.mean_tokens, 2)}
        for size, values in found[name].items():
            ratios = [base / own for base, own in zip(found[first][size], values)]
            results[name][f"batch_{size}"] = {
                "milliseconds": summary(values) | {"rounds": values},
                "speed_up": summary(ratios),
            }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="*", help="run folders or model folders; the first is the reference")
    parser.add_argument("--runs", type=Path, help="a folder of runs named METHOD-SEED, in place of models")
    parser.add_argument("--data", type=Path, required=True, help="folder with the task's dev.tsv")
    parser.add_argument("--sentences", type=int, default=256, help="the first ones of dev")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each model, without the warm-up")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is shared")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "latency.json")
    options = parser.parse_args()
    if bool(options.models) == bool(options.runs):
        parser.error("give either model folders or --runs")
    folders = dict(map(model_folder, options.models or found_runs(options.runs)))
    if not folders:
        parser.error(f"--runs: {options.runs} holds no complete run")
    reference, _ = load_classifier(next(iter(folders.values())))
    spec = resolve_task(TaskSection(**{**reference.about["task"], "data": options.data}))
    examples = read_split(spec, options.data, "dev")
    count = options.sentences
    texts, pairs = examples.texts[:count], None if examples.pairs is None else examples.pairs[:count]
    engine = load_engine(options.backend, EngineOptions("cpu"))
    models = {name: Measured(engine, folder, texts, pairs) for name, folder in folders.items()}
    clock = {"wall": time.perf_counter, "cpu": time.process_time}[options.clock]
    results = result_of(models, measure(models, options.rounds, clock))
    settings = {"sentences": len(texts), "rounds": options.rounds, "clock": options.clock, "precision": engine.precision}
    write_json(
        options.out,
        {
            "benchmark": "latency",
            "task": spec.name,
            "machine": machine() | {"threads": 1},
            "versions": engine.versions(),
            "settings": settings,
            "models": results,
        },
    )
    for name, result in results.items():
        told = ", ".join(
            f"batch {size}: {result[f'batch_{size}']['milliseconds']['median']:.2f} ms a sentence, "
            f"{result[f'batch_{size}']['speed_up']['median']:.2f} x"
            for size in BATCHES
        )
        print(f"{name}: {told}")


if __name__ == "__main__":
    main()
