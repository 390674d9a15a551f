"""Run folders as people name them, to go on with the run (`run_student`: where its student is meant)."""

from __future__ import annotations

from pathlib import Path

from ..errors import CrossdistilError
from ..json_files import read_object
from ..place import Place
from ..plugin_files import named_plugins
from ..run_files import MARKER, RECIPE
from ..shown import plain
from ..yaml_files import read_yaml


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
