"""What stands in a folder before a run writes to it: nothing, the run that is to be resumed, or something else."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from .checksums import Damaged, changed_files, noted_checksums
from .errors import RecipeError, RunFolderError
from .json_files import parse_json
from .locks import lock_file
from .predictions import damaged_predictions
from .recipe import Recipe, flat
from .run_files import LOCK, LOGS, MARKER, RECIPE, RESULT, STUDENT, read_remade
from .run_result import REMEDY, check_result
from .shown import plain, shown
from .workplaces import TEMPORARY, remove_dead
from .yaml_files import read_yaml

DATA = "data"
"""In the marker: digests of what the run learns from, by name."""


def check_place(path: Path, recipe: Recipe | None, identity: dict[str, Any], resume: bool) -> None:
    """Raise RunFolderError where a run could not be written to or resumed in this folder; writes nothing. Without a recipe,
    which is none, it is only asked whether a new run could be written there."""
    held = HeldRun(path)
    if recipe is None and resume:
        return
    digest = {} if recipe is None else {"digest": recipe.digest()}
    held.is_of({**digest, **identity}, recipe, resume)
    parent = held.lowest_folder()
    if held.is_complete():
        raise held.nothing_to_resume()
    if not os.access(parent, os.W_OK | os.X_OK):
        raise RunFolderError(f"{path}: nothing can be written to {parent}")


def refuse_complete(path: Path, recipe: Recipe) -> None:
    """Raise RunFolderError where the folder holds the complete run of a recipe, which need not be loaded to know that; what
    else is wrong is told with all the rest."""
    held = HeldRun(path)
    try:
        complete = held.is_of({"digest": recipe.digest()}, recipe, True) and held.is_complete()
    except RunFolderError:
        return
    if complete:
        with contextlib.suppress(OSError, RunFolderError):  # what a kill after the end left
            lock_file(path / LOCK).release()
            remove_dead(path)
        raise held.nothing_to_resume()


class HeldRun:
    """The run that a folder holds, if it holds one."""

    def __init__(self, path: Path):
        self.path = path
        self._result: dict[str, Any] = {}

    def is_of(self, marker: dict[str, Any], recipe: Recipe, resume: bool) -> bool:
        """Whether the folder holds the run of this `marker` and `recipe`, which is to be resumed; a folder that holds anything
        else raises RunFolderError."""
        try:
            names = {path.name for path in self.path.iterdir()}
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            if self.path.exists():
                raise RunFolderError(f"{self.path}: is a file, expected a folder to write the run to") from None
            return False  # a file is among its parents
        # All that a process leaves which is killed at once.
        names = {name for name in names if name not in (LOCK, LOGS) and not name.startswith(MARKER + TEMPORARY)}
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
            differences = self.differences(recipe)
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

    def lowest_folder(self) -> Path:
        """The folder, or the lowest one above it that is there; a file is an error."""
        found = next(place for place in (self.path.absolute(), *self.path.absolute().parents) if place.exists())
        if not found.is_dir():
            raise RunFolderError(f"{self.path}: {found} is a file, expected a folder to write the run to")
        return found

    def differences(self, recipe: Recipe) -> str:
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

    def is_complete(self) -> bool:
        """Whether there is a result; one that cannot be read is an error."""
        path = self.path / RESULT
        result = read_remade(path, REMEDY, any_number=True)
        if result is not None:
            check_result(result, path)
        self._result = result or {}
        return result is not None

    def nothing_to_resume(self) -> RunFolderError:
        """The error about a complete run."""
        damage = self.damage()
        if damage is None:
            return RunFolderError(f"{self.path}: the run is complete; there is nothing to resume")
        remedy = "remove result.json, and --resume makes it again from the saved state"
        return RunFolderError(f"{self.path}: the run is complete, but {damage}; {remedy}")

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


def _same(key: str, started: object, now: object) -> bool:
    """Whether a run that was started with one can go on with the other: on whichever device, or devices, of the same kind."""
    if key == "device" and isinstance(started, str) and isinstance(now, str):
        return started.partition(":")[0] == now.partition(":")[0]
    return started == now
