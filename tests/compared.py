"""Folders of finished runs with answers that a test chooses, for what reads them: no framework, no training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from crossdistil.core.predictions import Predictions, WordsOfTexts, write_predictions
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.run_files import MARKER, METRICS, RECIPE, RESULT
from crossdistil.tests import tiny


def answers(labels: np.ndarray, right: np.ndarray, classes: int = 2) -> np.ndarray:
    """Logits (examples, classes) that are right where `right` is true."""
    predicted = np.where(right, labels, (labels + 1) % classes)
    return (4.0 * np.eye(classes)[predicted]).astype(np.float32)


def write_run(
    folder: Path,
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 7,
    overrides: tuple[str, ...] = (),
    names: tuple[str, ...] | None = ("negative", "positive"),
    metrics: tuple[str, ...] = ("accuracy",),
    rows: str = "rows",
    task: str = "sst-2",
    data: Path = Path("task"),
    teachers: Mapping[str, np.ndarray] = MappingProxyType({}),
    texts: WordsOfTexts | None = None,
    **result: Any,
) -> Path:
    """A run's folder as `run` leaves it, but for student and state."""
    from crossdistil.core.metrics import compute_metrics

    folder.mkdir(parents=True)
    recipe = parse_recipe(tiny.kd_recipe(data, Path("model")), "test", [f"seed={seed}", *overrides])
    recipe.write(folder / RECIPE)
    (folder / MARKER).write_text(json.dumps({"digest": recipe.digest(), "backend": "torch"}))
    predictions = Predictions(np.asarray(logits, np.float32), labels, rows, task, names, metrics, teachers, texts=texts)
    content = {
        **{"backend": "torch", "device": "cpu", "precision": "fp32", "versions": {"torch": "2.13.0"}, "processes": 1},
        **{"seed": seed, "steps": 12, "wall_seconds": 3.5, "tokens_per_second": 1000.0, "method": "kd", "task": task},
        "stages": [{"name": "distil", "steps": 12, "epochs": 2.0, "seconds": 3.0}],
        "student": {"metrics": compute_metrics(metrics, logits, labels), "parameters": 1234, "kept_step": 12},
        "teacher": {"metrics": dict.fromkeys(metrics, 0.9), "parameters": 5678},
        "dev": write_predictions(folder, predictions),
    }
    (folder / RESULT).write_text(json.dumps(content | result))
    lines = [
        {"step": step, "stage": "distil", "epoch": step / 6, "loss": 2.0 / step, "learning_rate": 1e-3 * (1 - step / 13)}
        | {"terms": {"kd_ce": 1.5 / step, "hard_label": 0.5 / step}, "tokens_per_second": 900.0 + step}
        for step in range(1, 13)
    ]
    scores = {6: {"accuracy": 0.3}, 12: {"accuracy": 0.6}}
    lines += [{"step": step, "stage": "distil", "epoch": step / 6, "evaluation": {"dev": scores[step]}} for step in scores]
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder
