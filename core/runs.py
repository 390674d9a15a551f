"""The run folder: what a run leaves behind, and what it needs to go on after it was interrupted.

    recipe.yaml      the resolved recipe, re-runnable
    metrics.jsonl    a line per logged step or evaluation
    result.json      the outcome; written last, so that its presence means the run is complete
    student/         the model folder of the best (or last) evaluation
    state/step-N/    parameters, optimizer and position after step N, complete or not there at all
"""

from __future__ import annotations

import fcntl
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .errors import RunFolderError, TrainingError
from .files import remove_leftovers, replace_folder, write_arrays, write_text
from .recipe import Recipe

RECIPE, METRICS, RESULT, STATE = "recipe.yaml", "metrics.jsonl", "result.json", "state"


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


class RunFolder:
    """One run's folder, locked while it is open."""

    def __init__(self, path: Path, recipe: Recipe, identity: dict[str, Any], resume: bool):
        """Open a new or empty folder, or with `resume` one that holds a run of the same recipe and `identity`
        (backend, device, precision). Raises RunFolderError otherwise."""
        self.path = path
        try:
            occupied = path.exists() and any(item.name != ".lock" for item in path.iterdir())
        except NotADirectoryError:
            raise RunFolderError(f"{path}: is a file, expected a folder to write the run to") from None
        marker = {"digest": recipe.digest(), **identity}
        if occupied:
            self._check(marker, resume)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / ".lock").open("w")
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"{path}: another process is running in it") from None
        self.complete = (path / RESULT).is_file()
        if not occupied or not (path / "run.json").is_file():
            write_text(path / "run.json", json.dumps(marker, indent=2) + "\n")
            recipe.write(path / RECIPE)
        remove_leftovers(path)
        if (path / STATE).is_dir():
            remove_leftovers(path / STATE)

    def _check(self, marker: dict[str, Any], resume: bool) -> None:
        if not resume:
            raise RunFolderError(f"{self.path}: holds another run; choose a new folder, or --resume to go on with it")
        try:
            found = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            if (self.path / RESULT).exists() or (self.path / STATE).exists():
                raise RunFolderError(f"{self.path}: holds no run.json, so it cannot be resumed") from None
            return  # killed before the first file was whole
        except ValueError as error:
            raise RunFolderError(f"{self.path / 'run.json'}: damaged: {error}") from error
        for key, value in marker.items():
            if found.get(key) != value:
                what = "another recipe" if key == "digest" else f"{key} {found.get(key)!r}"
                raise RunFolderError(f"{self.path}: was started with {what}, cannot be resumed with {key} {value!r}")

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        with (self.path / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after `step`, and a line that was cut off: they will be written again."""
        path = self.path / METRICS
        if not path.exists():
            return
        kept = []
        for text in path.read_text(encoding="utf-8").split("\n"):
            try:
                if json.loads(text)["step"] <= step:
                    kept.append(text + "\n")
            except ValueError:
                continue
        write_text(path, "".join(kept))

    def save_state(self, state: State) -> None:
        """Write a state under its own name, whole or not at all, then remove the older ones."""
        folder = self.path / STATE / f"step-{state.step:08d}"
        with replace_folder(folder) as temporary:
            write_arrays(temporary / "parameters.safetensors", state.parameters)
            write_arrays(temporary / "optimizer.safetensors", state.optimizer)
            if state.best is not None:
                write_arrays(temporary / "best.safetensors", state.best)
            notes = {"step": state.step, **state.notes}
            (temporary / "state.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
        for older in self._states():
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)

    def load_state(self) -> State | None:
        """The newest state, or None when there is none yet."""
        states = self._states()
        if not states:
            return None
        folder = states[-1]
        try:
            notes = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            best = folder / "best.safetensors"
            return State(
                step=notes.pop("step"),
                parameters=load_file(folder / "parameters.safetensors"),
                optimizer=load_file(folder / "optimizer.safetensors"),
                best=load_file(best) if best.exists() else None,
                notes=notes,
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise TrainingError(f"{folder}: the saved state is damaged: {error}") from error

    def _states(self) -> list[Path]:
        return sorted(path for path in (self.path / STATE).glob("step-*") if path.name[5:].isdigit())

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json: the run is complete."""
        write_text(self.path / RESULT, json.dumps(result, indent=2) + "\n")
        self.complete = True

    def close(self) -> None:
        """Give the lock back."""
        self._lock.close()
        (self.path / ".lock").unlink(missing_ok=True)

    def discard_if_new(self) -> None:
        """Remove a folder in which nothing but its description was written."""
        if not any((self.path / name).exists() for name in (METRICS, STATE, RESULT)):
            shutil.rmtree(self.path, ignore_errors=True)

