"""The run folder: what a run leaves behind, and what it needs to go on after it was interrupted.

    recipe.yaml      the resolved recipe, re-runnable
    metrics.jsonl    a line per logged step or evaluation
    watched.jsonl    what is only looked at: the norm of the gradient, and the least that loss and terms can be
    predictions.safetensors  what the finished student answers on dev, and the labels
    result.json      the outcome; written last, so that its presence means the run is complete
    latency.json     how fast the finished student and its teachers answer, on what
    report.html      the outcome as a page, made of all the others when the run is complete
    student/         the model folder of the best (or last) evaluation
    checkpoints/     a model folder of each epoch that `keep_states` keeps
    state/step-N/    parameters, optimizer and position after step N, complete or not there at all
    logs/            what processes other than the first printed, of a run of several
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import google_crc32c

from .checksums import Damaged, changed_files, noted_checksums
from .errors import RecipeError, RunFolderError, TrainingError
from .files import clear_disk_errors, flush, make_folder, replace_folder, write_text
from .json_files import parse_json
from .locks import lock_file
from .predictions import PREDICTIONS, damaged_predictions
from .recipe import Recipe, flat
from .shown import plain, shown
from .states import State, read_state, write_state
from .workplaces import TEMPORARY, remove_dead
from .yaml_files import read_yaml

RECIPE, METRICS, RESULT, STATE = "recipe.yaml", "metrics.jsonl", "result.json", "state"
WATCHED = "watched.jsonl"
STUDENT, CHECKPOINTS, LOGS = "student", "checkpoints", "logs"
PROBE = "probe.safetensors"
MARKER, REPORT, LATENCY, _LOCK = "run.json", "report.html", "latency.json", ".lock"
DATA = "data"
"""In the marker: digests of what the run learns from, by name."""
_WRITTEN = (MARKER, RECIPE, METRICS, WATCHED, RESULT, STUDENT, PROBE, PREDICTIONS, LATENCY, REPORT)

NOTHING_SAVED = "nothing was saved yet, so that --resume has nothing to go on from; the same command begins anew"


class RunFolder:
    """One run's folder, locked while it is open."""

    def __init__(self, path: Path, recipe: Recipe, identity: dict[str, Any], resume: bool):
        """Open a new or empty folder, or with `resume` one that holds a run of the same recipe and `identity`
        (backend, device, precision, and digests of the data). Raises RunFolderError otherwise."""
        self.path = path
        marker = {"digest": recipe.digest(), **identity}
        self._new = not self._holds_this_run(marker, recipe, resume)
        self._first_that_is_there()
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            with clear_disk_errors(path):
                make_folder(path)
                self._lock = lock_file(path / _LOCK)
        except RunFolderError as error:
            self._remove_made()
            if isinstance(error.__cause__, BlockingIOError):
                raise RunFolderError(f"{path}: another process is running in it") from None
            raise
        try:
            self._result: dict[str, Any] = {}
            self.complete = self._is_complete()
            self._digest = marker["digest"]
            self._logged = 0, 0  # bytes of metrics.jsonl, and their CRC-32C
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

    @classmethod
    def check(cls, path: Path, recipe: Recipe | None, identity: dict[str, Any], resume: bool) -> None:
        """Raise RunFolderError where a run could not be written to or resumed in this folder; writes nothing. Without a recipe,
        which is none, it is only asked whether a new run could be written there."""
        folder = cls.__new__(cls)
        folder.path, folder._result = path, {}
        if recipe is None and resume:
            return
        digest = {} if recipe is None else {"digest": recipe.digest()}
        folder._holds_this_run({**digest, **identity}, recipe, resume)
        parent = folder._first_that_is_there()
        if folder._is_complete():
            raise folder.nothing_to_resume()
        if not os.access(parent, os.W_OK | os.X_OK):
            raise RunFolderError(f"{path}: nothing can be written to {parent}")

    @classmethod
    def refuse_complete(cls, path: Path, recipe: Recipe) -> None:
        """Raise RunFolderError where the folder holds the complete run of a recipe, which need not be loaded to know that; what
        else is wrong is told with all the rest."""
        folder = cls.__new__(cls)
        folder.path, folder._result = path, {}
        try:
            complete = folder._holds_this_run({"digest": recipe.digest()}, recipe, True) and folder._is_complete()
        except RunFolderError:
            return
        if complete:
            with contextlib.suppress(OSError, RunFolderError):  # what a kill after the end left
                lock_file(path / _LOCK).release()
                remove_dead(path)
            raise folder.nothing_to_resume()

    def nothing_to_resume(self) -> RunFolderError:
        """The error about a complete run."""
        damage = self.damage()
        if damage is None:
            return RunFolderError(f"{self.path}: the run is complete; there is nothing to resume")
        remedy = "remove result.json, and --resume makes it again from the saved state"
        return RunFolderError(f"{self.path}: the run is complete, but {damage}; {remedy}")

    def _first_that_is_there(self) -> Path:
        """The folder, or the lowest one above it that is there; a file is an error."""
        found = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
        if not found.is_dir():
            raise RunFolderError(f"{self.path}: {found} is a file, expected a folder to write the run to")
        return found

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
        names = {name for name in names if name not in (_LOCK, LOGS) and not name.startswith(MARKER + TEMPORARY)}
        if not names:
            return False
        if MARKER not in names:
            raise RunFolderError(f"{self.path}: holds {min(names)} and no {MARKER}; choose a new or an empty folder")
        if not resume:
            raise RunFolderError(f"{self.path}: holds another run; choose a new folder, or --resume to go on with it")
        try:
            data = (self.path / MARKER).read_bytes()
        except OSError as error:
            raise RunFolderError(f"{self.path / MARKER}: cannot be read: {error.strerror}") from error
        found = parse_json(data, f"{self.path / MARKER}: damaged", RunFolderError)
        if not isinstance(found, dict):
            raise RunFolderError(f"{self.path / MARKER}: damaged: got {shown(found, 60)}, expected a JSON object")
        if found.get("digest") != marker["digest"]:
            differences = self._differences(recipe)
            if not differences:
                raise RunFolderError(f"{self.path / MARKER}: damaged: digest: is not that of {RECIPE}")
            raise RunFolderError(f"{self.path}: was started with another recipe: {differences}")
        for name, value in marker.get(DATA, {}).items():
            started = found[DATA].get(name) if isinstance(found.get(DATA), dict) else None
            if started not in (None, value):  # earlier versions wrote none
                raise RunFolderError(f"{self.path}: was started with other data: the {name} have changed since")
        for key, value in marker.items():
            if key != DATA and not _same(key, found.get(key), value):
                raise RunFolderError(
                    f"{self.path}: was started with {key} {shown(found.get(key))}, cannot be resumed with {shown(value)}"
                )
        return True

    def _differences(self, recipe: Recipe) -> str:
        """The keys that the recipe which the run was started with has otherwise."""
        path = self.path / RECIPE
        try:
            started, now = flat(read_yaml(path)), flat(recipe.resolved())
        except RecipeError:
            return f"see {path}"
        keys = [key for key in {**started, **now} if started.get(key) != now.get(key)]
        if not keys:
            return ""
        changes = [f"{plain(key)} was {shown(started.get(key))}, is {shown(now.get(key))}" for key in keys[:3]]
        return "; ".join([*changes, *([f"and {len(keys) - 3} more"] if len(keys) > 3 else [])]) + f" (see {path})"

    def _is_complete(self) -> bool:
        """Whether there is a result; one that cannot be read is an error."""
        path = self.path / RESULT
        remedy = "remove it, and --resume makes it again"
        try:
            value = parse_json(path.read_bytes(), str(path), RunFolderError, any_number=True)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RunFolderError(f"{path}: {error.strerror}; {remedy}") from error
        except RunFolderError as error:
            raise RunFolderError(f"{error}; {remedy}") from error
        if not isinstance(value, dict):
            raise RunFolderError(f"{path}: expected a JSON object, got {shown(value, 60)}; {remedy}")
        self._result = value
        return True

    def damage(self) -> str | None:
        """What is wrong with the student of a complete run, or with what it answered on dev; None where nothing is."""
        folder = self.path / STUDENT
        try:
            if not folder.is_dir():
                return f"{STUDENT} is missing"
            noted = noted_checksums(folder)
            problems = [] if noted is None else changed_files(folder, noted)
        except Damaged as error:
            problems = [str(error)]
        if problems:
            return f"{STUDENT}/{problems[0]}"
        return damaged_predictions(self.path, self._result)

    def _keep_recipe(self, recipe: Recipe) -> None:
        """Write recipe.yaml where it is missing or says something else."""
        path = self.path / RECIPE
        if path.is_dir():
            raise RunFolderError(f"{path}: is a folder, expected a file")
        if path.is_file():
            if not self._differences(recipe):
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
        data = self._add(METRICS, line)
        size, crc = self._logged
        self._logged = size + len(data), google_crc32c.extend(crc, data)

    def append_watched(self, line: dict[str, Any]) -> None:
        """Add a line to watched.jsonl."""
        self._add(WATCHED, line)

    def _add(self, name: str, line: dict[str, Any]) -> bytes:
        path, data = self.path / name, (json.dumps(line) + "\n").encode()
        with clear_disk_errors(path), path.open("ab") as file:
            file.write(data)
        return data

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines after `step`, and a line that was cut off: they will be written again."""
        self._rewind(WATCHED, step)
        found = self._rewind(METRICS, step)
        self._logged = len(found), google_crc32c.value(found)

    def _rewind(self, name: str, step: int) -> bytes:
        path = self.path / name
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be read: {error.strerror}") from error
        kept = []
        for number, text in enumerate(data.split(b"\n")[:-1], start=1):
            try:
                entry = json.loads(text)
                if entry["step"] > step:
                    continue
            except (ValueError, TypeError, KeyError, RecursionError):
                _tell("%s:%d: is no line of metrics, and is left out", path, number)
                continue
            kept.append(text + b"\n")
        found = b"".join(kept)
        if found != data:
            write_text(path, found.decode("utf-8"))
        return found

    def save_state(self, state: State) -> None:
        """Write a state under its own name, whole or not at all, then remove the older ones."""
        folder = self.path / STATE / f"step-{state.step:08d}"
        with clear_disk_errors(self.path / METRICS):
            if (self.path / METRICS).exists():  # the lines up to the state are on the disk before it is
                flush(self.path / METRICS)
        size, crc = self._logged
        with replace_folder(folder) as temporary:
            write_state(temporary, state, {"recipe": self._digest, "metrics": {"bytes": size, "crc32c": f"{crc:08x}"}})
        self._keep_only(folder)

    def load_state(self) -> State | None:
        """The newest state, every byte as it was written, or None when there is none yet. Raises TrainingError. The lines of
        metrics.jsonl after it are dropped, and a line that was cut off: they will be written again."""
        if (self.path / STATE).exists() and not (self.path / STATE).is_dir():
            raise TrainingError(f"{self.path / STATE}: is a file, expected the folder of the saved states")
        states = self._states()
        if not states:
            if (self.path / METRICS).exists():
                _tell("%s: has no saved state; the run begins again", self.path)
            self.rewind_metrics(0)
            return None
        state, about = read_state(states[-1])
        if about.get("recipe", self._digest) != self._digest:
            raise TrainingError(f"{states[-1]}: the saved state is of another recipe")
        self._keep_only(states[-1])  # a process may have been killed before it did
        self.rewind_metrics(state.step)
        size, crc = self._logged
        if about.get("metrics", {"bytes": size, "crc32c": f"{crc:08x}"}) != {"bytes": size, "crc32c": f"{crc:08x}"}:
            _tell("%s: its lines up to step %d are not as they were written", self.path / METRICS, state.step)
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
            for name in (MARKER, RECIPE, PROBE, _LOCK):
                (self.path / name).unlink(missing_ok=True)
            if not keep_logs:
                shutil.rmtree(self.path / LOGS, ignore_errors=True)
            self._remove_made()

    def _remove_made(self) -> None:
        with contextlib.suppress(OSError):  # not empty: something else is at work there
            for folder in self._made:
                folder.rmdir()


def _same(key: str, started: object, now: object) -> bool:
    """Whether a run that was started with one can go on with the other: on whichever device, or devices, of the same kind."""
    if key == "device" and isinstance(started, str) and isinstance(now, str):
        return started.partition(":")[0] == now.partition(":")[0]
    return started == now


def _tell(text: str, *arguments: object) -> None:
    logging.getLogger(__name__).warning(text, *arguments)


def _remove_old_temporaries(folder: Path) -> None:
    """What killed processes of earlier versions left in a run folder, which is locked."""
    for path in folder.glob(f"*{TEMPORARY}*"):
        written = path.name.partition(TEMPORARY)[0]
        if written in _WRITTEN or written.startswith("step-"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
