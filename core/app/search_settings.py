"""What was asked of a search, and the folder that it is kept in."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CrossdistilError
from ..files import write_text
from ..json_files import read_object
from ..metrics import LOWER_IS_BETTER
from ..recipe import Recipe, parse_recipe
from ..shown import shown
from .search_space import Space, space_of
from .search_study import STUDY, TRIALS

SETTINGS = "study.json"
AS_IT_IS = "the recipe as it is"
_OPTIONAL = type(None)
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("source", "metric", "backend", "precision", "study", "place", "origin"), str),
    **{"minutes": (int, float, _OPTIONAL), "trials": (int, _OPTIONAL), "seeds": int, "pruning": bool, "is_grid": bool},
    **{"storage": (str, _OPTIONAL), "devices": list, "autopilot": (dict, _OPTIONAL)},
}
"""Of what is in study.json beside recipe and space."""


@dataclass(frozen=True)
class Settings:
    """What was asked of a search; the content of study.json."""

    recipe: Recipe
    source: str
    """What errors call the recipe."""
    space: Space
    metric: str
    backend: str
    devices: tuple[str, ...] = ()
    """Of the workers, in turn; empty: the backend's best."""
    precision: str = "fp32"
    minutes: float | None = None
    trials: int | None = None
    seeds: int = 0
    pruning: bool = True
    storage: str | None = None
    study: str = ""
    place: str = ""
    autopilot: dict[str, Any] | None = None
    """The limit, and what was measured of each candidate before the training."""

    @property
    def higher(self) -> bool:
        """Whether a higher score is better."""
        return self.metric not in LOWER_IS_BETTER

    @property
    def default_name(self) -> str:
        """What reports call the recipe that the best is compared with."""
        return AS_IT_IS if self.autopilot is None else f"the first student by {self.recipe.method}"

    def write(self, folder: Path) -> None:
        """Write study.json."""
        content = {
            "recipe": self.recipe.resolved(),
            "source": self.source,
            "space": self.space.as_data(),
            "is_grid": self.space.is_grid,
            "origin": self.space.origin,
        }
        keys = ("metric", "backend", "devices", "precision", "minutes", "trials", "seeds", "pruning", "storage", "study", "place")
        content |= {key: getattr(self, key) for key in (*keys, "autopilot")}
        write_text(folder / SETTINGS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_settings(folder: Path) -> Settings:
    """What was asked of the search in a folder. Raises CrossdistilError where there is none."""
    path = folder / SETTINGS
    if not path.is_file():
        raise CrossdistilError(f"{folder}: holds no {SETTINGS}, so no search to go on with; a new one needs a recipe")
    found = read_object(path)
    for key, kinds in _KINDS.items():
        if not isinstance(found.get(key), kinds) or (kinds is not bool and isinstance(found.get(key), bool)):
            raise CrossdistilError(f"{path}: damaged: {key}: got {shown(found.get(key), 60)}")
    try:
        recipe = parse_recipe(found.pop("recipe"), str(path))
        space = space_of(found.pop("space"), str(path), found.pop("is_grid"), found.pop("origin"))
        return Settings(recipe=recipe, space=space, **{**found, "devices": tuple(found["devices"])})
    except (KeyError, TypeError) as error:
        raise CrossdistilError(f"{path}: damaged: {error}") from error


def new_folder(folder: Path) -> None:
    """Refuse a folder that holds anything."""
    if folder.is_file():
        raise CrossdistilError(f"{folder}: is a file, expected a folder for the search")
    held = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if SETTINGS in held:
        raise CrossdistilError(f"{folder}: holds another search; choose a new folder, or --resume to go on with it or join it")
    if held:
        raise CrossdistilError(f"{folder}: holds {held[0]} and no {SETTINGS}; choose a new or an empty folder")


def discard(folder: Path) -> None:
    """Remove what a search has made of its folder, in which no trial was begun."""
    shutil.rmtree(folder / TRIALS, ignore_errors=True)
    for name in (SETTINGS, STUDY):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
