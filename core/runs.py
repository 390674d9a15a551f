"""The run folder while it is open: locked, its recipe kept, and the states that a run goes on from saved and read."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from .errors import RecipeError, RunFolderError, TrainingError
from .files import clear_disk_errors, make_folder, replace_folder, write_text
from .held_run import HeldRun
from .locks import lock_file
from .predictions import PREDICTIONS
from .recipe import Recipe
from .run_files import (
    CHECKPOINTS,
    LATENCY,
    LOCK,
    LOGS,
    MARKER,
    METRICS,
    PROBE,
    RECIPE,
    REPORT,
    RESULT,
    STATE,
    STUDENT,
    WATCHED,
)
from .run_lines import RunLines
from .states import State, read_state, write_state
from .workplaces import TEMPORARY, remove_dead
from .yaml_files import read_yaml

_WRITTEN = (MARKER, RECIPE, METRICS, WATCHED, RESULT, STUDENT, PROBE, PREDICTIONS, LATENCY, REPORT)

NOTHING_SAVED = "nothing was saved yet, so that --resume has nothing to go on from; the same command begins anew"


class RunFolder:
    """One run's folder, locked while it is open."""

    def __init__(self, path: Path, recipe: Recipe, identity: dict[str, Any], resume: bool):
        """Open a new or empty folder, or with `resume` one that holds a run of the same recipe and `identity`
        (backend, device, precision, and digests of the data). Raises RunFolderError otherwise."""
        self.path = path
        marker = {"digest": recipe.digest(), **identity}
        self._held, self._lines = HeldRun(path), RunLines(path)
        self._new = not self._held.is_of(marker, recipe, resume)
        self._held.lowest_folder()
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            with clear_disk_errors(path):
                make_folder(path)
                self._lock = lock_file(path / LOCK)
        except RunFolderError as error:
            self._remove_made()
            if isinstance(error.__cause__, BlockingIOError):
                raise RunFolderError(f"{path}: another process is running in it") from None
            raise
        try:
            self.complete = self._held.is_complete()
            self._digest = marker["digest"]
            if self._new:
                write_text(path / MARKER, json.dumps(marker, indent=2) + "\n")
            self._keep_recipe(recipe)
            for folder in (path, path / STATE, path / CHECKPOINTS):
                remove_dead(folder)
                _remove_old_temporaries(folder)
        except BaseException:
            self.discard_if_new()
            self.close()
            raise

    def nothing_to_resume(self) -> RunFolderError:
        """The error about a complete run."""
        return self._held.nothing_to_resume()

    def _keep_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml where it is missing or says something else."""
        path = self.path / RECIPE
        if path.is_dir():
            raise RunFolderError(f"{path}: is a folder, expected a file")
        if path.is_file():
            if not self._held.differences(recipe):
                return
            if not self._only_watched_otherwise(recipe):
                _tell("%s: is not the recipe of the run, and is written again", path)
        recipe.write(path)

    def _only_watched_otherwise(self, recipe: Recipe) -> bool:
        """Whether recipe.yaml differs in what only watches the run, which may be another when it goes on."""
        try:
            started, now = read_yaml(self.path / RECIPE), recipe.resolved()
        except RecipeError:
            return False
        watching = ("log", "plugins")
        return isinstance(started, dict) and all(
            started.get(key) == now.get(key) for key in {**started, **now} if key not in watching
        )

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl."""
        self._lines.append(line)

    def append_watched(self, line: dict[str, Any]) -> None:
        """Add a line to watched.jsonl."""
        self._lines.append_watched(line)

    def save_state(self, state: State) -> None:
        """Write a state under its own name, whole or not at all, then remove the older ones."""
        folder = self.path / STATE / f"step-{state.step:08d}"
        self._lines.flush()  # those up to the state are on the disk before it is
        with replace_folder(folder) as temporary:
            write_state(temporary, state, {"recipe": self._digest, "metrics": self._lines.written})
        self._keep_only(folder)

    def load_state(self) -> State | None:
        """The newest state, every byte as it was written, or None when there is none yet. Raises TrainingError. The lines of
        metrics.jsonl after it are dropped, and a line that was cut off: they will be written again."""
        if (self.path / STATE).exists() and not (self.path / STATE).is_dir():
            raise TrainingError(f"{self.path / STATE}: is a file, expected the folder of the saved states")
        states = self._states()
        if not states:
            if self._lines.path.exists():
                _tell("%s: has no saved state; the run begins again", self.path)
            self._lines.rewind(0)
            return None
        state, about = read_state(states[-1])
        if about.get("recipe", self._digest) != self._digest:
            raise TrainingError(f"{states[-1]}: the saved state is of another recipe")
        self._keep_only(states[-1])  # a process may have been killed before it did
        self._lines.rewind(state.step)
        if about.get("metrics", self._lines.written) != self._lines.written:
            _tell("%s: its lines up to step %d are not as they were written", self._lines.path, state.step)
        return state

    def _keep_only(self, folder: Path) -> None:
        """Remove the other states."""
        for older in self._states():
            if older != folder:
                shutil.rmtree(older, ignore_errors=True)

    def _states(self) -> list[Path]:
        return sorted(path for path in (self.path / STATE).glob("step-*") if path.name[5:].isdigit())

    def write_result(self, result: dict[str, Any]) -> None:
        """Write result.json: the run is complete."""
        write_text(self.path / RESULT, json.dumps(result, indent=2) + "\n")
        self.complete = True

    def left(self) -> str:
        """What a user can do after the run was ended in the middle, and `discard_if_new`: words for the last line."""
        if self.complete:
            return f"the run in {self.path} is complete; crossdistil report {self.path} makes its page"
        states = self._states()
        if states:
            return f"step {int(states[-1].name[5:]):,} is saved in {self.path}; --resume goes on from there"
        if (self.path / MARKER).exists():
            return f"nothing was saved yet; --resume begins the run in {self.path} anew"
        return NOTHING_SAVED

    def close(self) -> None:
        """Give the lock back."""
        self._lock.release()

    def discard_if_new(self, keep_logs: bool = False) -> None:
        """Leave everything as it was found, but for logs that shall be kept, if nothing but the run's description was written."""
        if self._new and not any((self.path / name).exists() for name in (METRICS, STATE, RESULT)):
            for name in (MARKER, RECIPE, PROBE, LOCK):
                (self.path / name).unlink(missing_ok=True)
            if not keep_logs:
                shutil.rmtree(self.path / LOGS, ignore_errors=True)
            self._remove_made()

    def _remove_made(self) -> None:
        with contextlib.suppress(OSError):  # not empty: something else is at work there
            for folder in self._made:
                folder.rmdir()


def _tell(text: str, *arguments: object) -> None:
    logging.getLogger(__name__).warning(text, *arguments)


def _remove_old_temporaries(folder: Path) -> None:
    """What killed processes of earlier versions left in a run folder, which is locked."""
    for path in folder.glob(f"*{TEMPORARY}*"):
        written = path.name.partition(TEMPORARY)[0]
        if written in _WRITTEN or written.startswith("step-"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
