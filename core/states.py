"""A saved state: a point in a run from which it goes on as if it had never stopped, checked before anything of it is used.

    parameters.safetensors   the student and the projections
    optimizer.safetensors    what the optimizer keeps
    best.safetensors         the parameters of the best evaluation, where they are others
    state.json               the counters of the training loop, and what metrics.jsonl was then
    checksums.json           size and CRC-32C of each of them

Bytes are compared with the checksums first; then names, shapes and types with what the recipe makes, since a framework takes
an array of a wrong shape without a word. States of earlier versions have no checksums; the rest is checked all the same.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .checksums import CHECKSUMS, changed_files, noted_checksums, write_checksums
from .engine import Layout
from .errors import CrossdistilError, TrainingError, did_you_mean
from .files import save_arrays
from .json_files import MAX_BYTES, parse_json
from .shown import plain, shown

_PARAMETERS, _OPTIMIZER, _BEST, _NOTES = "parameters.safetensors", "optimizer.safetensors", "best.safetensors", "state.json"
_FORMAT = 2  # from here on with checksums.json


@dataclass
class State:
    """A point in a run from which it goes on as if it had never stopped."""

    step: int
    parameters: dict[str, np.ndarray]
    optimizer: dict[str, np.ndarray]
    best: dict[str, np.ndarray] | None
    """Parameters at the best evaluation so far, unless they are `parameters`."""
    notes: dict[str, Any]
    """Counters of the training loop, as JSON."""
    source: Path | None = None
    """The folder that it was read from."""


def write_state(folder: Path, state: State, about: dict[str, Any]) -> None:
    """Write a state into a folder that is not yet in its place. `about` is what `read_state` gives back beside it."""
    save_arrays(folder / _PARAMETERS, state.parameters)
    save_arrays(folder / _OPTIMIZER, state.optimizer)
    if state.best is not None:
        save_arrays(folder / _BEST, state.best)
    notes = {"format": _FORMAT, "step": state.step, "about": about, **state.notes}
    (folder / _NOTES).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
    write_checksums(folder)


def read_state(folder: Path) -> tuple[State, dict[str, Any]]:
    """(the state in `folder`, what was noted about it), every byte as it was written. Raises TrainingError."""
    try:
        noted = noted_checksums(folder)
        if noted is not None:
            problems = changed_files(folder, noted)
            names = {_PARAMETERS, _OPTIMIZER, _NOTES} | ({_BEST} if (folder / _BEST).exists() else set())
            problems += [f"{name}: is not of this state" for name in sorted(names - set(noted))]
            if problems:
                raise ValueError(problems[0])
        notes = parse_json((folder / _NOTES).read_bytes(), _NOTES, TrainingError, MAX_BYTES)
        if noted is None and notes.pop("format", 1) != 1:
            raise ValueError(f"{CHECKSUMS}: missing")
        notes.pop("format", None)
        step, about = notes.pop("step"), notes.pop("about", {})
        best = folder / _BEST
        state = State(
            step=step,
            parameters=load_file(folder / _PARAMETERS),
            optimizer=load_file(folder / _OPTIMIZER),
            best=load_file(best) if best.exists() else None,
            notes=notes,
            source=folder,
        )
        _check_notes(state)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, CrossdistilError, SafetensorError) as error:
        what = plain(" ".join(str(error).split()))
        if isinstance(error, OSError):
            what = f"{Path(error.filename or folder).name}: {error.strerror}"
        elif isinstance(error, KeyError):
            what = f"{_NOTES}: {plain(str(error.args[0]))}: missing"
        raise TrainingError(f"{folder}: the saved state is damaged: {what}") from error
    if noted is None:
        logging.getLogger(__name__).warning(
            "%s: is of an earlier version, without checksums; names, shapes and types are checked", folder
        )
    return state, about


def check_arrays(state: State, what: str, found: Mapping[str, np.ndarray], expected: Layout) -> None:
    """Raise TrainingError unless these are just the arrays that are expected; `what` they are, in words."""

    def refuse(problem: str) -> None:
        raise TrainingError(f"{state.source}: the saved state does not fit: {what}: {problem}")

    for name in found:
        if name not in expected:
            refuse(f"{name}: unknown{did_you_mean(name, expected)}")
    for name, (shape, dtype) in expected.items():
        if name not in found:
            refuse(f"{name}: missing")
        array = found[name]
        if array.shape != tuple(shape):
            refuse(f"{name}: got shape {array.shape}, expected {tuple(shape)}")
        if array.dtype != dtype:
            refuse(f"{name}: got {array.dtype}, expected {np.dtype(dtype)}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            refuse(f"{name}: holds values that are not finite")


def check_steps(state: State, first: int, total: int, values: int) -> None:
    """Raise TrainingError unless the counters are those of a stage that began at step `first` and has `total` steps, each
    with so many `values` of the loss."""
    taken, window = state.step - first, state.notes["window"]
    counted = [array for name, array in state.optimizer.items() if name == "steps" or name.startswith("step/")]
    sums = np.size(window["sum"])
    for key, found, fits, expected in (
        ("step", state.step, 0 <= taken <= total, f"{first} to {first + total}"),
        ("window.step", window["step"], window["step"] <= taken, f"at most {taken}"),
        ("window.sum", f"{sums} values", sums in (1, values), f"{values}"),
        ("steps", max(map(int, counted), default=0), all(0 <= int(each) <= taken for each in counted), f"0 to {taken}"),
    ):
        if not fits:
            raise TrainingError(f"{state.source}: the saved state does not fit: {key}: got {found}, expected {expected}")


def layout_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type of each array."""
    return {name: (array.shape, array.dtype) for name, array in arrays.items()}


def _check_notes(state: State) -> None:
    """Raise ValueError, TypeError or KeyError unless the counters can be those of a training loop."""
    notes = state.notes
    expected = state.source.name.removeprefix("step-")
    if _count(state.step, "step") != int(expected):
        raise ValueError(f"{_NOTES}: step: got {state.step}, expected {int(expected)} by the folder's name")
    _count(notes["stage"], "stage"), _count(notes["tokens"], "tokens"), _number(notes["seconds"], "seconds")
    if (notes["best_step"] is None) != (notes["best_metric"] is None):
        raise ValueError(f"{_NOTES}: best_step: got {shown(notes['best_step'])} with best_metric {shown(notes['best_metric'])}")
    if notes["best_step"] is not None:
        if _count(notes["best_step"], "best_step") > state.step:
            raise ValueError(f"{_NOTES}: best_step: got {notes['best_step']}, expected at most {state.step}")
        _number(notes["best_metric"], "best_metric", negative=True)
        if (state.best is None) != (notes["best_step"] == state.step):
            raise ValueError(f"{_BEST}: {'missing' if state.best is None else 'unexpected'}, by best_step of {_NOTES}")
    elif state.best is not None:
        raise ValueError(f"{_BEST}: unexpected, by best_step of {_NOTES}")
    _count(notes.get("waited", 0), "waited")
    if notes.get("reference") is not None:
        _number(notes["reference"], "reference", negative=True)
    if not isinstance(notes.get("stopped", False), bool):
        raise ValueError(f"{_NOTES}: stopped: got {shown(notes['stopped'])}, expected true or false")
    window = notes["window"]
    _count(window["step"], "window.step"), _count(window["tokens"], "window.tokens")
    _number(window["seconds"], "window.seconds")
    for value in np.atleast_1d(np.asarray(window["sum"], object)).tolist():
        _number(value, "window.sum", negative=True)
    if len(notes["past"]) != notes["stage"]:
        raise ValueError(f"{_NOTES}: past: got {len(notes['past'])} stages, expected {notes['stage']}")
    for past in notes["past"]:
        _count(past["steps"], "past.steps"), _count(past["tokens"], "past.tokens"), _number(past["seconds"], "past.seconds")


def _count(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{_NOTES}: {key}: got {shown(value)}, expected a whole number")
    return value


def _number(value: Any, key: str, negative: bool = False) -> float:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or (value < 0 and not negative):
        raise ValueError(f"{_NOTES}: {key}: got {shown(value)}, expected a number")
    return value
