"""The run folder: what a run leaves behind, and what it needs to go on after it was interrupted.

    recipe.yaml      the resolved recipe, re-runnable
    metrics.jsonl    a line per logged step or evaluation
    result.json      the outcome; written last, so that its presence means the run is complete
    student/         the model folder of the best (or last) evaluation
    state/step-N/    parameters, optimizer and position after step N, complete or not there at all
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .errors import RunFolderError, TrainingError
from .files import TEMPORARY, clear_disk_errors, remove_leftovers, replace_folder, save_arrays, write_text
from .recipe import Recipe, flat

RECIPE, METRICS, RESULT, STATE = "recipe.yaml", "metrics.jsonl", "result.json", "state"
PROBE = "probe.safetensors"
_MARKER, _LOCK = "run.json", ".lock"


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
        marker = {"digest": recipe.digest(), **identity}
        self._new = not self._holds_this_run(marker, recipe, resume)
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            with clear_disk_errors(path):
                path.mkdir(parents=True, exist_ok=True)
                self._lock = (path / _LOCK).open("w")
        except RunFolderError:
            self._remove_made()
            raise
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"{path}: another process is running in it") from None
        self.complete = (path / RESULT).is_file()
        try:
            if self._new:
                write_text(path / _MARKER, json.dumps(marker, indent=2) + "\n")
            if not (path / RECIPE).is_file():
                recipe.write(path / RECIPE)
            remove_leftovers(path)
            if (path / STATE).is_dir():
                remove_leftovers(path / STATE)
        except BaseException:
            self.discard_if_new()
            self.close()
            raise

    def _holds_this_run(self, marker: dict[str, Any], recipe: Recipe, resume: bool) -> bool:
        """Whether the folder holds a run to resume; a folder that holds anything else is an error."""
        try:
            names = {path.name for path in self.path.iterdir()}
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            if self.path.exists():
                raise RunFolderError(f"{self.path}: is a file, expected a folder to write the run to") from None
            return False  # a file is among its parents
        # All that a process leaves which is killed at once.
        names = {name for name in names if name != _LOCK and not name.startswith(_MARKER + TEMPORARY)}
        if not names:
            return False
        if _MARKER not in names:
            raise RunFolderError(f"{self.path}: holds {min(names)} and no {_MARKER}; choose a new or an empty folder")
        if not resume:
            raise RunFolderError(f"{self.path}: holds another run; choose a new folder, or --resume to go on with it")
        try:
            found = dict(json.loads((self.path / _MARKER).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"{self.path / _MARKER}: damaged: {error}") from error
        if found.get("digest") != marker["digest"]:
            raise RunFolderError(f"{self.path}: was started with another recipe: {self._differences(recipe)}")
        for key, value in marker.items():
            if found.get(key) != value:
                raise RunFolderError(
                    f"{self.path}: was started with {key} {found.get(key)!r}, cannot be resumed with {value!r}"
                )
        return True

    def _differences(self, recipe: Recipe) -> str:
        """The keys that the recipe which the run was started with has otherwise."""
        path = self.path / RECIPE
        try:
            started, now = flat(YAML(typ="safe").load(path.read_text(encoding="utf-8"))), flat(recipe.resolved())
        except (OSError, ValueError, YAMLError):
            return f"see {path}"
        keys = [key for key in {**started, **now} if started.get(key) != now.get(key)]
        shown = [f"{key} was {json.dumps(started.get(key))}, is {json.dumps(now.get(key))}" for key in keys[:3]]
        return "; ".join([*shown, *([f"and {len(keys) - 3} more"] if len(keys) > 3 else [])]) + f" (see {path})"

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        path = self.path / METRICS
        with clear_disk_errors(path), path.open("a", encoding="utf-8") as file:
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
            except (ValueError, TypeError, KeyError):
                continue
        write_text(path, "".join(kept))

    def save_state(self, state: State) -> None:
        """Write a state under its own name, whole or not at all, then remove the older ones."""
        folder = self.path / STATE / f"step-{state.step:08d}"
        with replace_folder(folder) as temporary:
            save_arrays(temporary / "parameters.safetensors", state.parameters)
            save_arrays(temporary / "optimizer.safetensors", state.optimizer)
            if state.best is not None:
                save_arrays(temporary / "best.safetensors", state.best)
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
        (self.path / _LOCK).unlink(missing_ok=True)

    def discard_if_new(self) -> None:
        """Leave everything as it was found if nothing but the run's description was written."""
        if self._new and not any((self.path / name).exists() for name in (METRICS, STATE, RESULT)):
            for name in (_MARKER, RECIPE, PROBE, _LOCK):
                (self.path / name).unlink(missing_ok=True)
            self._remove_made()

    def _remove_made(self) -> None:
        with contextlib.suppress(OSError):  # not empty: something else is at work there
            for folder in self._made:
                folder.rmdir()
