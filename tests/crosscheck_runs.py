"""Run folders of one training on several backends, made by hand, for the tests of the cross-check to change."""

from __future__ import annotations

import json
import re

import numpy as np
from safetensors.numpy import load_file, save_file

from crossdistil.core.app.compare import compare
from crossdistil.core.app.report import write_report

BACKENDS = ["torch", "oneflow", "mindspore"]
LAYER_PARAMETERS = (
    "attention.self.query.weight",
    "attention.self.key.bias",
    "attention.output.dense.weight",
    "attention.output.LayerNorm.weight",
    "intermediate.dense.weight",
    "output.dense.weight",
    "output.LayerNorm.bias",
)
RECIPE = """method: kd
description: Response distillation from a fine-tuned BERT
task: {name: sst-2, data: data/SST-2, max_length: 128}
teacher: {model: runs/teacher/student}
student:
  architecture: {num_hidden_layers: LAYERS}
  init: {from: teacher}
stages:
- name: distil
  objective:
  - {loss: kd_ce, weight: 0.5, temperature: 4}
  - {loss: hard_label, weight: 0.5}
  train: {steps: STEPS, batch_size: 32, learning_rate: 5e-5, schedule: linear, optimizer: adamw, keep: last}
seed: 42
"""


def make_runs(folder, backends=BACKENDS, steps=12, layers=2, examples=200, noise=1e-7, flips=0, growth=1.1):
    """Run folders of one training, with rounding noise of relative size `noise` for all backends but the first."""
    shared = np.random.default_rng(0)
    number = np.arange(1, steps + 1)
    loss = 0.35 + 1.1 * np.exp(-number / (steps / 3.5)) + shared.normal(0, 0.035, steps)
    mask = (np.arange(16) < shared.integers(5, 17, (8, 1))).astype(np.float32)
    probe = {"logits": shared.normal(size=(8, 2)), "mask": mask, "values": shared.random(3)}
    probe |= {f"hidden/{layer}": shared.normal(size=(8, 16, 12)) for layer in range(layers + 1)}
    names = ["bert.embeddings.word_embeddings.weight", "bert.embeddings.LayerNorm.bias", "bert.pooler.dense.weight"]
    names += [f"bert.encoder.layer.{layer}.{name}" for layer in range(layers) for name in LAYER_PARAMETERS]
    probe |= {f"gradient/{name}": shared.normal(0, 0.1, (30, 12)) for name in [*names, "classifier.weight"]}
    predictions = shared.normal(0, 2, (examples, 2))
    for index, backend in enumerate(backends):
        own = np.random.default_rng(index + 1)
        size = noise * (0 if index == 0 else 0.5 + index)

        def noisy(array, depth=1.0, own=own, size=size):
            return (array * (1 + own.normal(0, 1, array.shape) * size * depth)).astype(np.float32)

        run = folder / backend
        run.mkdir(parents=True)
        save_file(
            {name: array if name == "mask" else noisy(array, 1 + _depth(name)) for name, array in probe.items()},
            run / "probe.safetensors",
        )
        flipped = predictions.copy()
        flipped[index * 5 : index * 5 + flips * index] *= -1
        save_file({"logits": noisy(flipped)}, run / "predictions.safetensors")
        drift = np.cumsum(own.normal(0, size, steps) * growth ** (number / 2))
        lines = [
            {
                "step": int(step),
                "epoch": step / 50,
                "loss": float(value),
                "terms": {"kd_ce": float(value)},
                "learning_rate": 5e-5,
                "tokens_per_second": 9000.0,
            }
            for step, value in zip(number, loss * (1 + drift), strict=True)
        ]
        lines.append({"step": steps, "epoch": steps / 50, "evaluation": {"dev": {"accuracy": 0.9}}})
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (run / "recipe.yaml").write_text(RECIPE.replace("STEPS", str(steps)).replace("LAYERS", str(layers)))
        version = {"torch": "2.13.0", "oneflow": "0.9.0", "mindspore": "2.10.0"}.get(backend, "1.0")
        (run / "result.json").write_text(
            json.dumps(
                {
                    "backend": backend,
                    "device": "cpu",
                    "precision": "fp32",
                    "seed": 42,
                    "steps": steps,
                    "epochs": steps / 50,
                    "versions": {
                        "python": "3.10.16" if backend == "oneflow" else "3.11.11",
                        "numpy": "1.26.4",
                        backend: version,
                    },
                    "wall_seconds": [48.31, 131.7, 66.04][index % 3],
                    "peak_memory_mb": [1290.4, 1711.9, 2244.0][index % 3],
                    "tokens_per_second": [9120.4, 3310.7, 8740.2][index % 3],
                    "student": {
                        "metrics": {"accuracy": 0.8979 + 0.0011 * flips * index, "f1": 0.9001},
                        "parameters": 45_690_626,
                    },
                    "teacher": {"metrics": {"accuracy": 0.9243, "f1": 0.9251}, "parameters": 109_483_778},
                }
            )
        )
    return folder


def _depth(name):
    return int(re.search(r"\d+", name)[0]) if re.search(r"\d+", name) else 0


def edit_step(folder, step, change):
    """Changes what a run logged of a step; a change to None leaves it out."""
    file = folder / "metrics.jsonl"
    entries = [json.loads(line) for line in file.read_text().splitlines()]
    edited = [change(entry) if entry["step"] == step and "loss" in entry else entry for entry in entries]
    file.write_text("".join(json.dumps(entry) + "\n" for entry in edited if entry))


def edit_arrays(file, change):
    """Changes the arrays of a safetensors file."""
    arrays = load_file(file)
    change(arrays)
    save_file(arrays, file)


def report(folder, backends=BACKENDS):
    """The page that compares these runs."""
    (folder / "crosscheck.json").write_text(json.dumps(compare(folder, backends), allow_nan=False))
    return write_report(folder).read_text(encoding="utf-8")
