"""The models that a recipe names, and the folders that stand for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CrossdistilError
from ..plan import START, Found
from ..recipe import Recipe
from ..recipe_tokenizers import teacher_key
from ..task_section import with_folder
from .models import model_folder


def model_paths(recipe: Recipe) -> list[Path]:
    """Every model that a recipe names."""
    init = recipe.student.init.source
    paths = [section.model for section in recipe.model_teachers.values()]
    return paths + ([] if init in ("teacher", "random") else [Path(init)])


def found_models(recipe: Recipe, student: bool = True) -> Found:
    """The recipe with the canonical folders of its models in place of checkpoints of other formats and of names of the hub, which
    its data may have too, as far as they can be had; without `student`, of its teachers alone."""
    init, places, failures = recipe.student.init, {}, {}
    wanted = {teacher_key(recipe, name): (section.model, section.read) for name, section in recipe.model_teachers.items()}
    if student and init.source not in ("teacher", "random"):
        wanted[START] = Path(init.source), init.read
    for key, (path, read) in wanted.items():
        try:
            places[key] = model_folder(path, key, read)
        except CrossdistilError as error:
            failures[key] = error
    recipe = with_paths(recipe, places)
    try:
        recipe = recipe.model_copy(update={"task": with_folder(recipe.task)})
    except CrossdistilError as error:
        failures["task.data"] = error
    return Found(recipe, failures)


def with_paths(recipe: Recipe, places: Mapping[str, Path]) -> Recipe:
    """The recipe with these paths of models, by its keys."""
    sections = {
        name: section.model_copy(update={"model": places.get(teacher_key(recipe, name), section.model)})
        for name, section in recipe.all_teachers.items()
    }
    changes: dict[str, Any] = {"teachers": sections} if recipe.teacher is None else {"teacher": sections["teacher"]}
    if START in places:
        init = recipe.student.init.model_copy(update={"source": str(places[START])})
        changes["student"] = recipe.student.model_copy(update={"init": init})
    return recipe.model_copy(update=changes)
