"""Run folders as people name them: a run where its student is meant, or the run to go on with."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError, CrossdistilError
from ..json_files import read_object
from ..plugin_files import named_plugins
from ..run_files import MARKER, RECIPE, RESULT, STATE
from ..shown import plain
from ..world import Place
from ..yaml_files import read_yaml

CROSSCHECK = "crosscheck.json"


def student_of(path: Path) -> Path:
    """The student of a run folder that is given in place of a model; any other path as it is. Raises CheckpointError for a run
    that has none yet, and for a folder of several runs."""
    if (path / "student").is_dir() and ((path / RESULT).is_file() or (path / MARKER).is_file()):
        if not (path / RESULT).is_file():
            raise CheckpointError(f"{path}: {_unfinished(path)}")
        return path / "student"
    if (path / MARKER).is_file():
        what = "a finished run without its student folder" if (path / RESULT).is_file() else _unfinished(path)
        raise CheckpointError(f"{path}: {what}")
    if path.is_dir() and not (path / "config.json").exists():
        students = sorted(file.parent / "student" for file in path.glob(f"*/{MARKER}") if (file.parent / "student").is_dir())
        if students or (path / CROSSCHECK).is_file():
            what = "is a cross-check" if (path / CROSSCHECK).is_file() else "holds runs"
            named = ", ".join(map(str, students[:3])) or "none of its runs has one"
            raise CheckpointError(f"{path}: {what}, no model; name one of its students: {named}")
    return path


def recipe_of(folder: Path) -> Path:
    """The recipe of a run that shall be resumed without naming it; raises CrossdistilError where there is no run."""
    if not folder.is_dir():
        raise CrossdistilError(f"{folder}: no such run folder; a new run needs a recipe: crossdistil run RECIPE --out {folder}")
    if not (folder / RECIPE).is_file() or not (folder / MARKER).is_file():
        raise CrossdistilError(f"{folder}: is no run folder (it has no {RECIPE} and {MARKER}), so --resume needs a recipe too")
    return folder / RECIPE


def plugins_of(folder: Path) -> list[str]:
    """The plugins that the recipe of a run folder names, without loading them; what is no recipe names none."""
    tree = read_yaml(folder / RECIPE)
    named = tree.get("plugins") if isinstance(tree, dict) else None
    found = [each.get("plugin") if isinstance(each, dict) else each for each in named or ()] if isinstance(named, list) else []
    return [plain(each) for each in found if isinstance(each, str)]


def checked_plugins(folder: Path) -> list[str]:
    """As `plugins_of`, all of them as they were when the run was started. Raises RecipeError for those that are not."""
    tree = read_yaml(folder / RECIPE)
    return [plain(each.plugin) for each in named_plugins(tree, str(folder / RECIPE))] if isinstance(tree, dict) else []


def identity_of(folder: Path) -> dict[str, str]:
    """The backend, device and precision of the run in a folder; empty where there is none."""
    if not (folder / MARKER).is_file():
        return {}
    found = read_object(folder / MARKER, CrossdistilError)
    return {key: found[key] for key in ("backend", "device", "precision") if isinstance(found.get(key), str)}


def kind_of(device: str | None, place: Place, devices: object) -> str | None:
    """The device to go on with: that of the run, of which several processes take one each."""
    return device if device is None or (place.size == 1 and devices is None) else device.partition(":")[0]


def _unfinished(path: Path) -> str:
    saved = sorted((path / STATE).glob("step-*"))
    step = f", saved at step {int(saved[-1].name[5:]):,}" if saved and saved[-1].name[5:].isdigit() else ""
    return f"the run is not finished{step}; crossdistil run --resume --out {path} goes on with it"
