"""The recipe: a YAML file that says what is distilled from what, and how, without naming a framework.

Reading is strict. Unknown keys, wrong types and unknown names are all reported at once, each with its path and, where
one is near, the key that was probably meant. What can only be judged with the data and the teacher at hand is checked in
`core.plan`, also before the first step.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .catalogue_folder import RECIPES_FOLDER
from .errors import CrossdistilError, PluginError, RecipeError, did_you_mean
from .log_section import with_sinks
from .plugin_files import load_plugins, named_plugins
from .recipe_errors import describe
from .recipe_overrides import left_out, parsed_override, set_all
from .recipe_paths import placed_paths
from .recipe_schema import Recipe, recipe_type, schema_parts
from .shown import plain, shown
from .yaml_files import read_yaml


def load_recipe(
    name: str | Path,
    overrides: Iterable[str] = (),
    preset: str | Sequence[str] | None = None,
    plugins: Sequence[str] = (),
    log: Sequence[str] = (),
) -> Recipe:
    """The recipe in a YAML file, or of that name in the catalogue, with the settings of one of its presets, or of several in
    their order, and then `path.to.key=value` overrides applied; `plugins` and the sinks of `log` are named beside the file's.

    Its plugins are loaded: their code runs. Raises RecipeError with every problem that the recipe has by itself.
    """
    path = find_recipe(name)
    folder = Path() if path.parent == RECIPES_FOLDER else path.parent
    return parse_recipe(recipe_tree(name), str(name), overrides, preset, plugins, folder, log)


def recipe_tree(name: str | Path) -> Any:
    """The plain data in a recipe's file, presets and all."""
    return read_yaml(find_recipe(name), str(name))


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Plain data as path.to.key -> value, as overrides name them; an empty list or mapping is a value."""
    if not tree or not isinstance(tree, dict | list):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {key: value for part, item in items for key, value in flat(item, f"{path}.{part}".lstrip(".")).items()}


def overridden(recipe: Recipe, overrides: Iterable[str], plugins: Sequence[str] = (), log: Sequence[str] = ()) -> Recipe:
    """A recipe that was read before, with `path.to.key=value` overrides applied, more plugins and more sinks."""
    return parse_recipe(recipe.resolved(), recipe.method, overrides, plugins=plugins, log=log)


def parse_recipe(
    tree: Any,
    source: str,
    overrides: Iterable[str] = (),
    preset: str | Sequence[str] | None = None,
    plugins: Sequence[str] = (),
    folder: Path = Path(),
    log: Sequence[str] = (),
) -> Recipe:
    """A recipe from plain data, with a preset and overrides applied to it; `source` names it in errors. Its paths are from the
    current folder on or from `folder`, as `placed_paths` finds them; those of overrides, and of `plugins`, which are added, from
    the current folder on.

    A recipe file may hold `presets`: name -> {path.to.key: value}, its variants; and `search` and `grids`, what `crossdistil
    search` may change. They are no part of the recipe itself.
    """
    overrides = tuple(overrides)
    given = copy.deepcopy(tree) if overrides else tree  # settings are put into the tree itself
    tree, beside = settled(tree, source, overrides, preset, folder)
    if log:
        tree = {**tree, "log": with_sinks(tree.get("log"), log)}
    named = named_plugins(tree, source, plugins)
    try:
        kind = recipe_type(*schema_parts(load_plugins(named)))
    except PluginError as error:
        raise RecipeError(source, [str(error)]) from error
    if named:
        tree = {**tree, "plugins": [section.model_dump() for section in named]}
    try:
        recipe = kind.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(source, describe(error, kind, tree=tree)) from error
    recipe._beside = beside
    settings = [parsed_override(override) for override in overrides]
    if any(isinstance(value, dict) for _, value, _ in settings):
        whole = {**settled(given, source, (), preset, folder)[0], "plugins": tree.get("plugins", [])}
        with contextlib.suppress(ValidationError):  # a recipe that lacks what is set
            recipe._left_out = left_out(kind.model_validate(whole).resolved(), recipe.resolved(), settings)
    return recipe


def settled(
    tree: Any, source: str, overrides: Iterable[str] = (), preset: str | Sequence[str] | None = None, folder: Path = Path()
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The plain data of one recipe, whether it is one or not: with a preset and overrides applied, which are no part of it; and
    what `placed_paths` says of its paths."""
    if not isinstance(tree, dict):
        raise RecipeError(source, [f"expected a mapping with method, task, student and stages, got {shown(tree)}"])
    presets = presets_of(tree, source)
    tree = {key: value for key, value in tree.items() if key not in ("presets", "search", "grids")}
    if tree.get("log") is not None:  # a list of names has room for no settings
        tree = {**tree, "log": with_sinks(tree["log"], ())}
    for name in [preset] if isinstance(preset, str) else preset or ():
        if name not in presets:
            known = ", ".join(presets) or "none"
            raise RecipeError(source, [f"preset {shown(name)}: not one of its presets{did_you_mean(name, presets)} ({known})"])
        set_all(tree, [(key, value, f"presets.{name}.{key}") for key, value in presets[name].items()])
    settings = [parsed_override(override) for override in overrides]
    tree, beside, problems = placed_paths(tree, folder, [key for key, _, _ in settings])
    if problems:
        raise RecipeError(source, problems)
    set_all(tree, settings)
    return tree, tuple(beside)


def presets_of(tree: dict[Any, Any], source: str) -> dict[str, dict[str, Any]]:
    """The variants that a recipe's file names, each path.to.key -> value. Raises RecipeError."""
    presets = tree.get("presets")
    if presets is None:
        return {}
    expected = "a mapping of path.to.key to value"
    if not isinstance(presets, dict):
        raise RecipeError(source, [f"presets: expected a mapping of names to what each sets, got {shown(presets)}"])
    problems = []
    for name, settings in presets.items():
        if not isinstance(name, str):
            problems.append(f"presets: expected names of variants, got {shown(name)}")
        elif not isinstance(settings, dict):
            problems.append(f"presets.{plain(name)}: expected {expected}, got {'null' if settings is None else shown(settings)}")
        else:
            problems += [
                f"presets.{plain(name)}: expected {expected}, got the key {shown(key)}"
                for key in settings
                if not isinstance(key, str)
            ]
    if problems:
        raise RecipeError(source, problems)
    return presets


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path or by its name in the catalogue."""
    path = Path(name)
    if path.is_file():
        return path
    catalogued = RECIPES_FOLDER / f"{path.name.removesuffix('.yaml')}.yaml"
    if catalogued.is_file() and path.parent in (Path("."), Path("recipes")):
        return catalogued
    names = sorted(file.stem for file in RECIPES_FOLDER.glob("*.yaml"))
    near = did_you_mean(path.name.removesuffix(".yaml"), names)
    raise CrossdistilError(f"{name}: no such recipe file, and not one of the catalogue: {', '.join(names)}{near}")
