"""What a search may change: keys of a recipe, each with its range or its choices, and how a point of it becomes settings.

    search:
      stages.0.train.learning_rate: {log: [1e-5, 5e-4]}
      stages.*.train.batch_size: {choice: [16, 32, 64]}                       # * is every stage
      student.architecture.num_hidden_layers: {int: [2, 4]}
      stages.0.objective.0.weight: {float: [0.1, 0.9], complement: stages.0.objective.1.weight}   # which is then 1 - weight
      start: {choice: {teacher: {student.init.from: teacher}, random: {student.init: {from: random}}}}   # named variants

A published grid is the same under `grids.NAME.space`, with where it was published under `grids.NAME.source`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import CrossdistilError, RecipeError, did_you_mean
from ..recipe import Recipe, flat, overridden
from ..shown import plain, shown

KINDS = ("float", "log", "int", "choice")
_MOST_CHOICES = 1000
_ONE_RANGE = "one of {float: [low, high]}, {log: [low, high]}, {int: [low, high]} and {choice: [...]}"
Point = dict[str, Any]
"""Dimension -> value: a number, or the name of a choice."""


@dataclass(frozen=True)
class Dimension:
    """One key, or one set of named variants."""

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    """Of an `int`."""
    choices: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    """Of a `choice`: the name of each, and the keys that it sets."""
    complement: str | None = None
    """A key that is set to 1 - value."""

    def settings(self, value: Any) -> dict[str, Any]:
        """The keys of the recipe that this value sets."""
        if self.kind == "choice":
            return dict(dict(self.choices)[value])
        other = {} if self.complement is None else {self.complement: round(1 - value, 12)}
        return {self.name: value} | other

    @property
    def probes(self) -> tuple[Any, ...]:
        """Both ends, or every choice: what a recipe must take if it takes all."""
        return tuple(name for name, _ in self.choices) if self.kind == "choice" else (self.low, self.high)

    @property
    def keys(self) -> set[str]:
        """What it sets, as it is written."""
        return {key for value in self.probes for key in self.settings(value)}

    def __contains__(self, value: Any) -> bool:
        if self.kind == "choice":
            return value in self.probes
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high
        return number and (self.kind != "int" or (value - self.low) % self.step == 0)

    def text(self) -> str:
        """`1e-05 to 0.0005, on a logarithmic scale`."""
        if self.kind == "choice":
            return ", ".join(name for name, _ in self.choices)
        how = {"log": ", on a logarithmic scale", "int": ", whole numbers" + (f" by {self.step}" if self.step > 1 else "")}
        return f"{self.low:g} to {self.high:g}{how.get(self.kind, '')}"


@dataclass(frozen=True)
class Space:
    """Every dimension of a search."""

    dimensions: tuple[Dimension, ...]
    is_grid: bool = False
    """Whether every point is to be tried, in order."""
    origin: str = ""
    """Where a published grid comes from."""
    where: str = field(default="", compare=False)
    """What errors call it."""

    def overrides(self, recipe: Recipe, point: Point) -> list[str]:
        """The point as `--set` takes it: variants first, since they may bring the stages that other keys are in."""
        found: dict[str, Any] = {}
        for dimension in sorted(self.dimensions, key=lambda each: each.kind != "choice"):
            for key, value in dimension.settings(point[dimension.name]).items():
                stages = found.get("stages")
                count = len(recipe.stages) if stages is None else len(stages)
                found |= {own: value for own in _each_stage(key, count)}
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in found.items()]

    def recipe(self, recipe: Recipe, point: Point) -> Recipe:
        """The recipe at a point. Raises CrossdistilError where it does not take it."""
        return overridden(recipe, self.overrides(recipe, point))

    def point_of(self, recipe: Recipe) -> Point | None:
        """The point that is the recipe as it is; None where there is none."""
        own, found = flat(recipe.resolved()), {}
        for dimension in self.dimensions:
            if dimension.kind == "choice":
                fits = [name for name, _ in dimension.choices if self._holds(recipe, own, dimension, name)]
                value = fits[0] if fits else None
            else:
                value = own.get(next(_each_stage(dimension.name, 1)))
            if value not in dimension or not self._holds(recipe, own, dimension, value):
                return None
            found[dimension.name] = value
        return found

    def _holds(self, recipe: Recipe, own: dict[str, Any], dimension: Dimension, value: Any) -> bool:
        """Whether the recipe is not changed by this value."""
        try:
            one = Space((dimension,)).recipe(recipe, {dimension.name: value})
        except CrossdistilError:
            return False
        return flat(one.resolved()) == own

    def points(self) -> Iterator[Point]:
        """Every point of a grid."""
        names = [dimension.name for dimension in self.dimensions]
        for values in itertools.product(*(dimension.probes for dimension in self.dimensions)):
            yield dict(zip(names, values, strict=True))

    @property
    def size(self) -> int:
        """Points of a grid."""
        return math.prod(len(dimension.probes) for dimension in self.dimensions)

    def as_data(self) -> dict[str, Any]:
        """Plain data, of which `space_of` makes the same again."""
        return {dimension.name: _as_data(dimension) for dimension in self.dimensions}


def _each_stage(key: str, count: int) -> Iterator[str]:
    if not key.startswith("stages.*."):
        yield key
        return
    yield from (f"stages.{index}.{key.removeprefix('stages.*.')}" for index in range(count))


def _as_data(dimension: Dimension) -> dict[str, Any]:
    if dimension.kind == "choice":
        return {"choice": {name: dict(settings) for name, settings in dimension.choices}}
    more = {"step": dimension.step} if dimension.step != 1 else {}
    more |= {} if dimension.complement is None else {"complement": dimension.complement}
    return {dimension.kind: [dimension.low, dimension.high], **more}


def space_of(tree: Any, where: str, is_grid: bool = False, origin: str = "") -> Space:
    """The space of plain data, which errors call `where`. Raises RecipeError with all that is wrong."""
    if not isinstance(tree, dict) or not tree:
        raise RecipeError(where, [f"expected a mapping of path.to.key to {_ONE_RANGE}, got {shown(tree, 60)}"])
    problems, dimensions = [], []
    for key, value in tree.items():
        try:
            dimensions.append(_dimension(key, value))
        except ValueError as error:
            problems.append(f"{plain(str(key), 100)}: {error}")
    if problems:
        raise RecipeError(where, problems)
    space = Space(tuple(dimensions), is_grid, origin, where)
    if is_grid and any(dimension.kind != "choice" for dimension in dimensions):
        raise RecipeError(where, ["a grid has choices only, no ranges"])
    _check_apart(space, where)
    return space


def _dimension(key: Any, value: Any) -> Dimension:
    if not isinstance(key, str) or not key:
        raise ValueError("expected path.to.key")
    if not isinstance(value, dict):
        raise ValueError(f"got {shown(value, 60)}, expected {_ONE_RANGE}")
    kinds = [kind for kind in KINDS if kind in value]
    unknown = [each for each in value if each not in (*KINDS, "step", "complement")]
    if unknown:
        raise ValueError(f"unknown key {shown(unknown[0])}{did_you_mean(str(unknown[0]), (*KINDS, 'step', 'complement'))}")
    if len(kinds) != 1:
        raise ValueError(f"got {' and '.join(kinds) or 'none of them'}, expected {_ONE_RANGE}")
    (kind,) = kinds
    if kind == "choice":
        if len(value) > 1:
            raise ValueError("step and complement are of numbers, not of choices")
        return Dimension(key, kind, choices=_choices(key, value["choice"]))
    low, high = _ends(kind, value[kind])
    step, complement = value.get("step", 1), value.get("complement")
    if "step" in value and (kind != "int" or isinstance(step, bool) or not isinstance(step, int) or step < 1):
        raise ValueError(f"step: got {shown(step)}, expected a whole number from 1 on, beside int")
    if complement is not None and (kind == "int" or not isinstance(complement, str) or not 0 <= low <= high <= 1):
        raise ValueError(f"complement: got {shown(complement)}, expected a key, beside a range of numbers from 0 to 1")
    return Dimension(key, kind, low, high - (high - low) % step if kind == "int" else high, step, complement=complement)


def _ends(kind: str, given: Any) -> tuple[float, float]:
    whole = kind == "int"
    kinds = int if whole else (int, float)
    fits = isinstance(given, list) and len(given) == 2
    fits = fits and all(isinstance(end, kinds) and not isinstance(end, bool) and math.isfinite(end) for end in given)
    if not fits:
        raise ValueError(f"{kind}: got {shown(given, 60)}, expected [low, high], two {'whole ' * whole}numbers")
    low, high = given if whole else map(float, given)
    if low >= high:
        raise ValueError(f"{kind}: the range from {low:g} to {high:g} is empty, expected [low, high]")
    if kind == "log" and low <= 0:
        raise ValueError(f"log: got {low:g}, expected a lowest value above 0")
    return low, high


def _choices(key: str, given: Any) -> tuple[tuple[str, tuple[tuple[str, Any], ...]], ...]:
    if isinstance(given, list):
        found = {plain(value if isinstance(value, str) else json.dumps(value), 80): {key: value} for value in given}
        if len(found) < len(given):
            raise ValueError("choice: a value is there twice")
    elif isinstance(given, dict):
        found = given
        wrong = next((name for name, value in given.items() if not isinstance(name, str) or not _is_settings(value)), None)
        if wrong is not None:
            raise ValueError(f"choice: {shown(wrong)}: got {shown(given[wrong], 60)}, expected a mapping of path.to.key to value")
    else:
        raise ValueError(f"choice: got {shown(given, 60)}, expected a list of values, or a mapping of names to settings")
    if not found:
        raise ValueError("choice: is empty, expected at least one value")
    if len(found) > _MOST_CHOICES:
        raise ValueError(f"choice: got {len(found):,} values, expected at most {_MOST_CHOICES:,}")
    return tuple((name, tuple(settings.items())) for name, settings in found.items())


def _is_settings(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and key for key in value)


def _check_apart(space: Space, where: str) -> None:
    """Refuse two dimensions that set the same key, or one key and another inside it."""
    seen: dict[str, str] = {}
    for dimension in space.dimensions:
        for key in sorted(dimension.keys):
            for other, owner in seen.items():
                inside = f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")
                # A variant may bring whole stages, whose keys another dimension then sets.
                if owner != dimension.name and inside and "stages" not in (key, other):
                    raise RecipeError(where, [f"{dimension.name}: sets {key}, as {owner} does; expected one of them"])
        seen |= dict.fromkeys(dimension.keys, dimension.name)
