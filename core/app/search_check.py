"""Whether a recipe takes all that a search would set: each fault told once, of the key that it comes from."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import CrossdistilError, RecipeError
from ..recipe import Recipe
from ..shown import plain
from .search_space import Dimension, Point, Space

Takes = Callable[[Recipe], None]
"""Raises CrossdistilError for a recipe whose models or data do not fit each other."""
_OF_MODELS = ("student", "teacher", "teachers", "task", "aux_data")


def check_space(space: Space, recipe: Recipe, takes: Takes | None = None) -> None:
    """Whether the recipe takes both ends of each range, every choice and, of a grid, every point; `takes` is asked of those that
    change models or data. Raises RecipeError, with a line for each fault."""
    check = _Check(space, recipe, takes)
    faults: dict[str, list[str]] = {}
    # Those that bring stages first: of keys in stages that are not known nothing can be said.
    for dimension in sorted(space.dimensions, key=lambda each: "stages" not in each.keys):
        around = check.around(dimension)
        faults[dimension.name] = [] if any(faults[each.name] for each in around) else check.faults(dimension, around)
    problems = [f"{each.name}: {fault}" for each in space.dimensions for fault in faults[each.name]]
    if not problems:
        problems = check.together()
    if problems:
        raise RecipeError(space.where, problems)


class _Check:
    """Each dimension is tried alone on the recipe, so that no other's fault is taken for its own."""

    def __init__(self, space: Space, recipe: Recipe, takes: Takes | None):
        self._space, self._recipe, self._takes = space, recipe, takes
        start = {dimension.name: dimension.probes[0] for dimension in space.dimensions}
        self._own: Point = space.point_of(recipe) or start

    def around(self, dimension: Dimension) -> list[Dimension]:
        """Those that bring the stages which the keys of a dimension are in."""
        if not any(key.startswith("stages.") for key in dimension.keys):
            return []
        return [other for other in self._space.dimensions if other is not dimension and "stages" in other.keys]

    def faults(self, dimension: Dimension, around: list[Dimension]) -> list[str]:
        """What is wrong with a dimension; a fault that all its values have is none of a value."""
        refused = {value: self._refusal_of(dimension, value, around) for value in dimension.probes}
        shared = set.intersection(*map(set, refused.values()))
        found: dict[str, None] = {}
        for value, problems in refused.items():
            text = f"{value:g}" if isinstance(value, float) else plain(str(value), 80)
            found |= {problem if problem in shared else f"{text}: {problem}": None for problem in problems}
        return list(found)

    def _refusal_of(self, dimension: Dimension, value: Any, around: list[Dimension]) -> list[str]:
        problems = self._refusal([dimension, *around], {**self._own, dimension.name: value})
        others = [other for other in self._space.dimensions if other is not dimension and other not in around]
        # A value that only fits what another dimension sets, alone or with the rest, is no fault.
        for beside in [*([other] for other in others), others] if problems else []:
            if not self._refusal([dimension, *around, *beside], {**self._own, dimension.name: value}):
                return []
        return list(dict.fromkeys(_without_place(problem, dimension) for problem in problems))

    def together(self) -> list[str]:
        """What is wrong where each dimension alone is right: of a grid the first point that is refused, else of the start."""
        if self._space.is_grid:
            points = map(list, (self._refusal(self._space.dimensions, point) for point in self._space.points()))
            return next(filter(None, points), [])
        return [f"the first value of each: {problem}" for problem in self._refusal(self._space.dimensions, self._own)]

    def _refusal(self, dimensions: Iterable[Dimension], point: Point) -> list[str]:
        """What the recipe says to these dimensions of a point; empty if it takes them."""
        some = Space(tuple(dimensions))
        of_models = any(key.split(".")[0] in _OF_MODELS for each in some.dimensions for key in each.keys)
        try:
            changed = some.recipe(self._recipe, point)
            if self._takes is not None and of_models:
                self._takes(changed)
        except RecipeError as error:
            return list(error.problems)
        except CrossdistilError as error:
            text = str(error)
            for override in some.overrides(self._recipe, point):
                text = text.removeprefix(f"--set {override}: ")
            return text.splitlines()
        return []


def _without_place(problem: str, dimension: Dimension) -> str:
    """A problem without its place, where that is the one key of the dimension, with which the line begins."""
    if dimension.keys != {dimension.name}:
        return problem
    place = re.escape(re.sub(r"\.(\d+|\*)(?=\.|$)", r"[\1]", dimension.name))
    return re.sub(rf"^{place.replace(re.escape('*'), '[0-9]+')}: ", "", problem)  # a `*` is each stage
