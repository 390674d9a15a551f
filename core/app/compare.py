"""The verdict of a cross-check: are the folders of several runs the same training? NumPy only.

Two backends with as many processes are compared in the order in which a difference would arise: recipe, data and first weights,
first forward pass, first gradients, loss of every step, predictions of the trained student. A backend with several
processes is compared with its own run with the fewest: loss of every step, final weights, predictions. Limits come from
`core.tolerances`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CrossdistilError
from ..tolerances import (
    GRADIENT_FLOOR,
    IDLE_PARAMETER,
    LOSS_FLOOR,
    OF_DIFFERENCES,
    PROCESS_TOLERANCES,
    REGRESSION_PREDICTION_DIFFERENCE,
    TOLERANCES,
    Tolerance,
)
from .crosscheck_files import Arrays, BackendRun, has_layers, is_raw_text, kind_of_recipe, processes_text, read_run
from .pairs import Pair

_STARTS = {"recipe": "the recipes", "texts": "the training texts"}
"""What differs where such a digest of the start does; others are of first weights."""


def compare(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The content of crosscheck.json for the run folders `folder`/<name>.

    Raises CrossdistilError for fewer than two runs and for missing or unreadable files; everything else that is
    not as it should be makes the verdict "differ", with a sentence in the pair's `reasons`.
    """
    runs = read_runs(Path(folder), names)
    return summarise(runs, compare_runs(runs))


def read_runs(folder: Path, names: Sequence[str]) -> list[BackendRun]:
    """At least two runs: of different backends, or of one with different numbers of processes."""
    if len(set(names)) < 2 or len(set(names)) != len(names):
        got = ", ".join(names) or "none"
        raise CrossdistilError(f"backends: got {got}, expected at least two different ones to compare")
    return [read_run(folder, name) for name in names]


def compare_runs(runs: Sequence[BackendRun]) -> list[Pair]:
    """Every pair of backends that ran with the same number of processes, in the order given, the smallest number first; then of
    each backend its run with the fewest processes and each other one."""
    found = []
    for count in sorted({run.processes for run in runs}):
        found += itertools.combinations([run for run in runs if run.processes == count], 2)
    for backend in dict.fromkeys(run.backend for run in runs):
        fewest, *others = sorted((run for run in runs if run.backend == backend), key=lambda run: run.processes)
        found += [(fewest, other) for other in others]
    return [compare_pair(a, b) for a, b in found]


def summarise(runs: Sequence[BackendRun], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The content of crosscheck.json: numbers and text only, no arrays."""
    first = runs[0]
    return {
        "verdict": "differ" if any(pair.reasons for pair in pairs) else "agree",
        "recipe": first.recipe and {"method": first.recipe.get("method"), "sha256": first.recipe_digest},
        "pairs": [pair.summary() for pair in pairs],
        "backends": {run.name: without_nan(run.result) for run in runs},
        "tolerances": _described(TOLERANCES),
        "process_tolerances": _described(PROCESS_TOLERANCES),
        "start": common_start(runs),
    }


def _described(rows: Sequence[Tolerance]) -> dict[str, dict[str, Any]]:
    return {row.name: {"limit": row.limit, "bound": row.bound, "reason": row.reason} for row in rows}


def common_start(runs: Sequence[BackendRun]) -> dict[str, str] | None:
    """The digests that all runs, each with all its processes, started from; None where they are not known or not the same."""
    return runs[0].start if runs[0].start and all(run.start == runs[0].start for run in runs) else None


def compare_pair(a: BackendRun, b: BackendRun) -> Pair:
    """Compare two runs; `reasons` stays empty when they agree."""
    pair = Pair(a.name, b.name)
    _compare_conditions(pair, a, b)
    if not pair.one_backend:
        _compare_forward(pair, a, b)
        _compare_gradients(pair, a, b)
    _compare_losses(pair, a, b)
    if pair.one_backend:
        _compare_weights(pair, a, b)
    _compare_predictions(pair, a, b)
    first, second = (metric_values(run.result.get("student")) for run in (a, b))
    pair.metric_differences = {name: abs(first[name] - second[name]) for name in first if name in second}
    _apply_limits(pair)
    return pair


def metric_values(model: dict[str, Any] | None) -> dict[str, float]:
    """The finite metrics of a `student` or `teacher` entry of result.json, by name."""
    metrics = (model or {}).get("metrics") or {}
    return {name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)}


def _compare_conditions(pair: Pair, a: BackendRun, b: BackendRun) -> None:
    if a.recipe_digest != b.recipe_digest:
        pair.reasons.append(f"{a.name} and {b.name} did not run the same recipe: its digest differs")
    for key in ("seed", "precision"):
        if a.result.get(key) != b.result.get(key):
            values = f"{a.name} has {a.result.get(key)}, {b.name} has {b.result.get(key)}"
            pair.reasons.append(f"the runs were not made alike: {key} differs, {values}")
    for key in sorted(a.start.keys() & b.start.keys()):
        if a.start[key] != b.start[key]:
            what = _STARTS.get(key, f"the first weights of {key.partition('/')[2]}")
            pair.reasons.append(f"{a.name} and {b.name} did not start alike: {what} differ")
    for run in (a, b):
        if run.result.get("processes", 1) != run.processes:
            found = processes_text(run.result["processes"])
            pair.reasons.append(f"{run.name} ran with {found}, expected {run.processes}")
    kept = [(run.result.get("student") or {}).get("kept_step") for run in (a, b)]
    if kept[0] != kept[1]:
        pair.reasons.append(f"{a.name} kept the student of step {kept[0]}, {b.name} that of step {kept[1]}")


def _compare_forward(pair: Pair, a: BackendRun, b: BackendRun) -> None:
    pair.figures["initial_logits_max_difference"] = None
    if is_raw_text(a.recipe):
        pair.not_applicable.add("initial_logits_max_difference")
    else:
        logits = _arrays(pair, a, b, "logits", "logits before training")
        if logits is not None:
            pair.figures["initial_logits_max_difference"] = float(np.abs(logits[0] - logits[1]).max())

    masks = _arrays(pair, a, b, "mask", "the first batch's mask")
    if masks is None or (masks[0] != masks[1]).any():
        pair.reasons.append(f"{a.name} and {b.name} did not see the same first batch: mask differs")
        pair.figures["hidden_max_relative_difference"] = None
        return
    if not has_layers(a.recipe):
        pair.not_applicable.add("hidden_max_relative_difference")
    real = masks[0] > 0  # (batch, length)
    names, complete = _common(pair, a, b, "hidden/", "hidden state")
    for name in names:
        states = _arrays(pair, a, b, f"hidden/{name}", f"hidden state {name}")
        if states is None:
            complete = False
            continue
        first, second = states[0][real], states[1][real]  # (real tokens, hidden)
        size = max(np.linalg.norm(first), np.linalg.norm(second))
        pair.hidden[int(name)] = float(np.linalg.norm(first - second) / size) if size else 0.0
    pair.figures["hidden_max_relative_difference"] = max(pair.hidden.values(), default=None) if complete else None


def _compare_gradients(pair: Pair, a: BackendRun, b: BackendRun) -> None:
    names, complete = _common(pair, a, b, "gradient/", "gradient of")
    norms: dict[str, tuple[float, float, float]] = {}
    for name in names:
        values = _arrays(pair, a, b, f"gradient/{name}", f"gradient of {name}")
        if values is None:
            complete = False
            continue
        if values[0].size == 1 and of_differences(a.recipe):
            continue
        difference, first, second = (float(np.linalg.norm(value)) for value in (values[0] - values[1], *values))
        norms[name] = difference, first, second
    total = max((math.sqrt(sum(norm[side] ** 2 for norm in norms.values())) for side in (1, 2)), default=0.0)
    for name, (difference, first, second) in norms.items():
        size = max(first, second, GRADIENT_FLOOR * total)
        pair.gradients[name] = difference / size if size else 0.0
    pair.figures["gradient_max_relative_difference"] = max(pair.gradients.values(), default=None) if complete else None


def of_differences(recipe: dict[str, Any] | None) -> bool:
    """Whether the first stage learns an order alone, so that what is added to all scores has no gradient but rounding."""
    stages = (recipe or {}).get("stages") or [{}]
    losses = {term.get("loss") for term in stages[0].get("objective") or ()}
    return bool(losses) and losses <= OF_DIFFERENCES


def _compare_losses(pair: Pair, a: BackendRun, b: BackendRun) -> None:
    if a.losses.keys() != b.losses.keys():
        missing = sorted(a.losses.keys() ^ b.losses.keys())
        pair.reasons.append(
            f"{a.name} logged {len(a.losses)} steps and {b.name} {len(b.losses)}: step {missing[0]} is only in "
            f"{a.name if missing[0] in a.losses else b.name}"
        )
    for run in (a, b):
        broken = [step for step, loss in run.losses.items() if not math.isfinite(loss)]
        if broken:
            first_loss = run.losses[broken[0]]
            pair.reasons.append(f"the loss of {run.name} is {first_loss} at step {broken[0]}, not a finite number")
    steps = [step for step in a.losses if math.isfinite(a.losses[step]) and math.isfinite(b.losses.get(step, math.nan))]
    first, second = (np.array([run.losses[step] for step in steps]) for run in (a, b))
    pair.loss_steps = np.array(steps, int)
    pair.loss_differences = relative_difference(first, second)
    pair.figures["loss_max_relative_difference"] = float(pair.loss_differences.max()) if steps else None


def relative_difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """|first - second| over the larger of the two, elementwise; sizes below LOSS_FLOOR count as LOSS_FLOOR."""
    return np.abs(first - second) / np.maximum(np.maximum(np.abs(first), np.abs(second)), LOSS_FLOOR)


def _compare_weights(pair: Pair, a: BackendRun, b: BackendRun) -> None:
    files = [run.weights() for run in (a, b)]
    names, complete = _common(pair, a, b, "", "the weight", files)
    for name in names:
        if re.search(IDLE_PARAMETER, name):
            continue
        first, second = (file.get(name) for file in files)
        if not _same_shape_and_finite(pair, a, b, first, second, f"final {name}"):
            complete = False
            continue
        size = max(np.linalg.norm(first), np.linalg.norm(second))
        pair.weights[name] = float(np.linalg.norm(first - second) / size) if size else 0.0
    pair.figures["weights_max_relative_difference"] = max(pair.weights.values(), default=None) if complete else None


def _compare_predictions(pair: Pair, a: BackendRun, b: BackendRun) -> None:
    pair.figures["prediction_agreement"] = None
    if is_raw_text(a.recipe):
        pair.not_applicable.add("prediction_agreement")
    if a.predictions is None or b.predictions is None:
        return
    if _same_shape_and_finite(pair, a, b, a.predictions, b.predictions, "predictions on dev"):
        kind = kind_of_recipe(a.recipe, a.predictions.shape[1])
        different = kind.differs(a.predictions, b.predictions, REGRESSION_PREDICTION_DIFFERENCE)
        pair.examples, pair.disagreements = len(different), np.flatnonzero(different)
        pair.figures["prediction_agreement"] = 1.0 - len(pair.disagreements) / pair.examples


def _apply_limits(pair: Pair) -> None:
    details = {
        "loss_max_relative_difference": f" at step {pair.worst_loss_step}",
        "gradient_max_relative_difference": f" for {max(pair.gradients, key=pair.gradients.get, default='')}",
        "hidden_max_relative_difference": f" in state {max(pair.hidden, key=pair.hidden.get, default='')}",
        "weights_max_relative_difference": f" for {max(pair.weights, key=pair.weights.get, default='')}",
    }
    for row in pair.limits:
        value = pair.figures[row.name]
        if value is not None and not row.holds(value):
            digits = ".4f" if row.bound == "at least" else ".1e"
            sentence = f"{pair.a} and {pair.b}: {row.name} is {value:{digits}}{details.get(row.name, '')}"
            sentence += f", expected {row.bound} {row.limit:{digits}}"
            if row.name == "loss_max_relative_difference":
                sentence += f" (first above it at step {pair.loss_steps[(pair.loss_differences > row.limit).argmax()]})"
            pair.reasons.append(sentence)
        elif value is None and not pair.reasons and row.name not in pair.not_applicable:
            pair.reasons.append(f"{pair.a} and {pair.b}: {row.name} could not be computed, nothing to compare")


def _common(
    pair: Pair, a: BackendRun, b: BackendRun, prefix: str, what: str, files: Sequence[Arrays] | None = None
) -> tuple[list[str], bool]:
    """Names below `prefix` that both probes (or other files) have, and whether those are all."""
    names = [file.below(prefix) for file in files or (a.probe, b.probe)]
    odd = sorted(set(names[0]) ^ set(names[1]))
    if odd:
        owner = a.name if odd[0] in names[0] else b.name
        pair.reasons.append(f"{what} {odd[0]} is only in {owner}" + (f", as {len(odd) - 1} others" if odd[1:] else ""))
    return [name for name in names[0] if name in set(names[1])], not odd


def _arrays(pair: Pair, a: BackendRun, b: BackendRun, name: str, what: str) -> tuple[np.ndarray, np.ndarray] | None:
    first, second = a.probe.get(name), b.probe.get(name)
    return (first, second) if _same_shape_and_finite(pair, a, b, first, second, what) else None


def _same_shape_and_finite(
    pair: Pair, a: BackendRun, b: BackendRun, first: np.ndarray, second: np.ndarray, what: str
) -> bool:
    if first.shape != second.shape:
        pair.reasons.append(f"{what}: {a.name} has shape {first.shape}, {b.name} has {second.shape}")
        return False
    broken = [run.name for run, values in ((a, first), (b, second)) if not np.isfinite(values).all()]
    if broken:
        pair.reasons.append(f"{what}: not finite in {' and '.join(broken)}")
    return not broken


def without_nan(value: Any) -> Any:
    """The same tree with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
