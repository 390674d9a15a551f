"""From student to service: every export of some students beside the usual ways to run them, in turns in one process.

    python benchmarks/exports.py --data data/SST-2 --models runs/minilm runs/tinybert runs/bilstm --exports runs/exports

For each model: what each target and precision of `crossdistil export` gives, our own torch engine, transformers with SDPA,
transformers with torch.compile, and ONNX Runtime with what `torch.onnx.export` makes of the transformers model (by its
TorchScript exporter). All take the same batches of the texts of dev, padded alike, on OMP_NUM_THREADS threads (1 unless it is
set), from token ids to logits; what transformers needs converted is converted before. In each round the sides take turns, each
time another one first. Size, largest difference of a logit from NumPy's in float64, score on dev, and answers that are those of
the student in float32 come from the same run. Exports are kept in `--exports` and not made again. One that `crossdistil export`
would refuse, by its own limits of answers and score, is measured too, and marked; one that computes something else is a row that
says so. OpenVINO's bfloat16 is there where the processor has it. `--rounds 0` only makes the exports. The result is written
after each model, and one that `--out` has already, of the same rounds and texts, is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before the frameworks are loaded

import export_heads
import numpy as np
from export_sides import BATCHES, OURS, Batch, Settings, Side, exported_sides, own_side, rivals
from tables import NEW_RESULTS, machine, markdown, summary, write_json

from crossdistil.core import threads
from crossdistil.core.app.exporting import task_section
from crossdistil.core.app.finished_model import load_classifier
from crossdistil.core.data.batches import evaluation_batches, length_buckets
from crossdistil.core.data.row_batches import RowBatches
from crossdistil.core.data.tasks import resolve_task
from crossdistil.core.metrics import compute_metrics
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.architectures import is_encoder
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.task_data import TaskData, load_data

EVERY = 3  # so many batches of 32 are one that is timed: dev's lengths are spread over them
SAMPLE = 64  # texts that are compared with float64


def take_turns(sides: list[Side], data: TaskData, settings: Settings) -> dict[str, np.ndarray]:
    """Milliseconds a text of each side and batch size in each round; returns the logits of each for all of dev."""
    table = data.tokens["dev"]
    order = np.argsort(np.asarray(table.lengths), kind="stable")
    few = order[np.unique(np.linspace(0, len(order) - 1, min(settings.texts, len(order))).astype(int))]
    one_by_one = RowBatches(table, None, data.buckets)
    plan = {1: [(row[None], one_by_one.batch(row[None])) for row in few]}
    plan[32] = list(evaluation_batches(table, None, 32, data.buckets))
    prepared = {side.name: {size: [side.prepare(batch) for _, batch in plan[size]] for size in BATCHES} for side in sides}
    logits = {side.name: np.zeros(0) for side in sides}
    for number in range(settings.rounds + 1):
        first = number % len(sides)
        for size in BATCHES:
            for side in sides[first:] + sides[:first]:
                step = EVERY if number and size == 32 else 1
                answers, started = [], time.perf_counter()
                for batch in prepared[side.name][size][::step]:
                    answers.append(side.infer(batch))
                seconds, texts = time.perf_counter() - started, sum(len(rows) for rows, _ in plan[size][::step])
                if number:
                    side.milliseconds[size].append(1000 * seconds / texts)
                elif size == 32:
                    logits[side.name] = _in_order(plan[size], answers, len(table.lengths))
        print("warm-up" if number == 0 else f"round {number}/{settings.rounds}", flush=True)
    return logits


def _in_order(plan: list, answers: list[np.ndarray], count: int) -> np.ndarray:
    found = np.zeros((count, answers[0].shape[1]), np.float32)
    for (rows, _), values in zip(plan, answers, strict=True):
        found[rows] = values[: len(rows)]
    return found


def difference(side: Side, batches: list[Batch], expected: list[np.ndarray]) -> float:
    """The largest difference of a logit from the float64 reference, relative to the largest logit where that is above 1."""
    worst = 0.0
    for batch, reference in zip(batches, expected, strict=True):
        found = side.infer(side.prepare(batch)).astype(np.float64)
        worst = max(worst, float(np.abs(found - reference).max() / max(1.0, np.abs(reference).max())))
    return worst


def compare(name: str, source: Path, settings: Settings) -> dict[str, Any] | None:
    """The result of one model; None where only its exports are made."""
    folder = settings.exports / name
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_classifier(source, lambda line: None)
    section = task_section(source, model, settings.data)
    spec, buckets = resolve_task(section), length_buckets(section.max_length, 1)
    loaded = load_data(spec, section, tokenizer, buckets, ("dev",))
    sides, missing = exported_sides(source, model, folder, settings)
    if not settings.rounds:
        return None
    sides = [*(rivals(model, folder, settings) if is_encoder(model.config) else []), own_side(model), *sides]
    logits = take_turns(sides, loaded, settings)
    table = loaded.tokens["dev"]
    rows = np.array_split(np.random.default_rng(0).permutation(len(table.lengths))[:SAMPLE], 4)
    batches = [RowBatches(table, None, buckets).batch(part) for part in rows]
    function = logits_function(model.config)
    expected = [function(ReferenceOps(), model.parameters, batch)[0] for batch in batches]
    student, labels = logits[OURS].argmax(axis=1), loaded.examples["dev"].labels
    metric = spec.metrics[0]
    found = {}
    for side in sides:
        times = {size: summary(values) | {"rounds": values} for size, values in side.milliseconds.items()}
        ratios = {
            size: summary([base / own for base, own in zip(sides[0].milliseconds[size], values)])
            for size, values in side.milliseconds.items()
        }
        found[side.name] = {
            "bytes": side.bytes,
            "refused": side.refused,
            "difference": difference(side, batches, expected),
            metric: compute_metrics(spec.metrics, logits[side.name], labels)[metric],
            "agreement": float((logits[side.name].argmax(axis=1) == student).mean()),
            **{f"batch_{size}": {"milliseconds": times[size], "speed_up": ratios[size]} for size in BATCHES},
            "texts_per_second": 1000 / times[32]["median"],
        }
    about = {"parameters": model.parameter_count, "metric": metric, "texts": len(table.lengths), "first": sides[0].name}
    return about | {"mean_tokens": round(float(np.mean(table.lengths)), 1), "sides": found, "missing": missing}


def table(result: dict[str, Any]) -> str:
    """The Markdown table with what is to be said of it."""
    headings = ["student", "run by", "size, MB", "difference", "dev, %", "same answers, %"]
    headings += ["ms, batch 1", "ms, batch 32", "texts/s"]
    rows = []
    for name, model in result["models"].items():
        for side, own in model["sides"].items():
            times = [own[f"batch_{size}"] for size in BATCHES]
            rows.append(
                [
                    f"{name}, {model['parameters'] / 1e6:.1f}M",
                    side,
                    f"{own['bytes'] / 1e6:.1f}",
                    f"{own['difference']:.0e}",
                    f"{100 * own[model['metric']]:.1f}",
                    f"{100 * own['agreement']:.1f}{' (refused)' * own['refused']}",
                    *(f"{time['milliseconds']['median']:.2f} ({time['speed_up']['median']:.1f}x)" for time in times),
                    f"{own['texts_per_second']:,.0f}",
                ]
            )
        rows += [[name, side, why, *[""] * 6] for side, why in model["missing"].items()]
    settings, versions = result["settings"], ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    count = next(iter(result["models"].values()))["texts"]
    texts = f"{settings['texts']} of the {count} texts of dev one at a time, and every third batch of 32 of them"
    return (
        f"{markdown(headings, rows)}\n\nMilliseconds a text, and the speed-up over the first of each student, medians of "
        f"{settings['rounds']} turns: {texts}, padded alike, from token ids to logits; texts a second: in batches of 32. "
        "Score and answers: all of dev. "
        "Difference: the largest of a logit from NumPy's in float64, relative to the largest one. Refused: what `crossdistil "
        "export` does not write, since too many answers change, or dev loses too much. "
        f"{result['machine']['cpu']}, threads: {result['machine']['threads']}; {versions}; {result['date']}."
        + (f"\n\n{export_heads.line(result['heads'])}" if "heads" in result else "")
    )


def versions() -> dict[str, str]:
    """Of all that ran models."""
    names = ("torch", "transformers", "onnxruntime", "mindspore", "openvino", "nncf")
    return {name: sys.modules[name].__version__.split("-")[0] for name in names if name in sys.modules}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="finished runs or model folders")
    parser.add_argument("--data", type=Path, required=True, help="folder with dev.tsv, and train.tsv to calibrate with")
    parser.add_argument("--exports", type=Path, required=True, help="folder of the exports; those that are there are used")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side, without the warm-up; 0: only the exports")
    parser.add_argument("--texts", type=int, default=128, help="texts of dev one at a time; of batches of 32, every third")
    parser.add_argument("--without", nargs="*", default=[], help="sides to leave out, as the table names them")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "exports.json")
    options = parser.parse_args()
    settings = Settings(options.data, options.exports, options.rounds, options.texts, tuple(options.without))
    about = {
        "benchmark": "exports",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine() | {"threads": threads.number()},
        "versions": {},
        "settings": {"rounds": options.rounds, "texts": options.texts, "clock": "wall"},
    }
    result = begun(options.out, about)
    for source in options.models:
        name = source.parent.name if source.name == "student" else source.name
        if name in result["models"]:
            print(f"{name}: is in {options.out} already", flush=True)
            continue
        started, found = time.perf_counter(), compare(name, source, settings)
        if found is None:
            continue
        for side, own in found["sides"].items():
            told = ", ".join(f"{own[f'batch_{size}']['milliseconds']['median']:.2f} ms at batch {size}" for size in BATCHES)
            print(f"{name}: {side}: {told}", flush=True)
        print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
        result["models"][name] = found
        result["versions"] |= versions()
        write_json(options.out, result)


def begun(path: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The result that a file holds of the same settings on the same machine, or a new one."""
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if all(kept.get(key) == about[key] for key in ("benchmark", "machine", "settings")):
        return kept
    return about | {"models": {}}


if __name__ == "__main__":
    main()
