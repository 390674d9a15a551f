"""The recipe: a YAML file that says what is distilled from what, and how, without naming a framework.

Reading is strict. Unknown keys, wrong types and unknown names are all reported at once, each with its path and, where
one is near, the key that was probably meant. What can only be judged with the data and the teacher at hand is checked in
`core.app.job`, also before the first step.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, ValidationError, create_model, field_validator, model_validator
from ruamel.yaml import YAML

from .data.mixing import is_unlabelled
from .errors import CrossdistilError, PluginError, RecipeError, did_you_mean
from .files import write_text
from .log_section import LogSection, log_type, with_sinks
from .losses.base import LossTerm
from .losses.catalogue import union_of
from .number_keys import FOR_DIGEST
from .plain_names import EXPECTED, is_plain_name
from .plugin_files import PluginSection, load_plugins, named_plugins
from .recipe_errors import describe
from .recipe_paths import placed_paths
from .registered import Registered, RegisteredOptimizer, RegisteredSchedule, RegisteredSink
from .schedules import SCHEDULES
from .section import Section
from .sections import (
    OPTIMIZERS,
    CacheSection,
    NotesSection,
    StageSection,
    StudentSection,
    TeacherSection,
    TrainSection,
)
from .shown import plain, shown
from .task_section import AuxSection, TaskSection
from .yaml_files import parse_yaml, read_yaml

RECIPES_FOLDER = Path(__file__).resolve().parent.parent / "recipes"


class Recipe(Section):
    """A whole recipe."""

    newer: ClassVar[tuple[str, ...]] = ("plugins",)

    _beside: tuple[str, ...] = PrivateAttr(())
    method: str
    """The recipe's name, with which run folders begin that are not named."""
    description: str = ""
    """One sentence for `crossdistil recipes`; it changes nothing in a run."""
    notes: NotesSection = NotesSection()
    """What is known about the method; it changes nothing in a run."""
    plugins: tuple[PluginSection, ...] = ()
    """The user's own code, which brings losses, metrics, optimizers, schedules and tasks."""
    task: TaskSection
    """Which data, and how its tables are read."""
    aux_data: tuple[AuxSection, ...] = ()
    """Other tasks whose training texts are mixed in, or texts without labels; where their classes are not the task's, only the
    terms learn from them that use no labels."""
    teacher: TeacherSection | None = None
    """The model that is learned from, where an objective needs one."""
    teachers: dict[str, TeacherSection] = {}
    """Several teachers by name, in place of `teacher`."""
    teacher_dropout: bool = False
    """Leave the teachers' dropout on, as TinyBERT's published code does by oversight."""
    teacher_cache: CacheSection = CacheSection()
    """Whether the teachers' outputs are kept on disk."""
    student: StudentSection
    """The model that is trained."""
    stages: tuple[StageSection, ...] = Field(min_length=1)
    """What is minimised, one stage after the other, over one set of parameters."""
    log: LogSection = LogSection()
    """Where a run is followed beside its folder: `[tensorboard]`, `{wandb: {project: distil}}`; it changes nothing in a run."""
    seed: int = Field(42, ge=0, lt=2**31)
    """Of first weights, order of the examples, dropout and masks."""

    @field_validator("method")
    @classmethod
    def _name_of_a_folder(cls, method: str) -> str:
        # Where no folder is named for a run, its name begins with this.
        if not is_plain_name(method):
            raise ValueError(f"got {shown(method)}, expected {EXPECTED}")
        return method

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> Recipe:
        if self.teacher is not None and self.teachers:
            raise ValueError("give either teacher or teachers, not both")
        if not self.all_teachers:
            users = [t.loss for stage in self.stages for t in stage.objective if t.needs_teacher]
            if users:
                raise ValueError(f"the loss {users[0]} needs a teacher: give teacher.model")
            if self.student.init.source == "teacher":
                raise ValueError("student.init.from is 'teacher', but there is no teacher: give teacher.model")
            if any(stage.replacement for stage in self.stages):
                raise ValueError("a replacement needs its predecessor: give teacher.model")
        return self

    @model_validator(mode="after")
    def _unlabelled_texts_are_of_use(self) -> Recipe:
        learns = any(term.unit != "labelled" for stage in self.stages for term in stage.objective)
        for index, section in enumerate(self.aux_data):
            if is_unlabelled(section) and not learns:
                raise ValueError(f"aux_data[{index}]: names no label, and every term needs labels: nothing would learn from it")
        return self

    @model_validator(mode="after")
    def _frozen_is_the_predecessors(self) -> Recipe:
        for index, stage in enumerate(self.stages):
            kept = [part for part in stage.freeze if part != "encoder"]
            if stage.replacement is not None and kept and self.student.init.source != "teacher":
                raise ValueError(
                    f"stages[{index}].freeze: {', '.join(kept)} shall stay the predecessor's, but student.init.from is "
                    f"'{self.student.init.source}'; start from 'teacher', or train them too (freeze: [])"
                )
        return self

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"stages: {names.count(name)} stages are named '{name}'")
        return self

    @property
    def all_teachers(self) -> dict[str, TeacherSection]:
        """The teachers by name; a single one is called `teacher`."""
        return self.teachers if self.teacher is None else {"teacher": self.teacher}

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, ready for YAML or JSON."""
        values = self.model_dump(mode="json", by_alias=True)
        if not self.plugins:
            del values["plugins"]
        values["log"] = {name: values["log"][name] for name in self.log.asked}
        if not values["log"]:
            del values["log"]
        return values

    @property
    def beside(self) -> tuple[str, ...]:
        """Paths of its file that were found in the other of its two folders, a line each."""
        return self._beside

    @property
    def registered(self) -> Registered:
        """What its plugins have registered."""
        return load_plugins(self.plugins)

    def digest(self) -> str:
        """SHA-256 of the resolved recipe; it travels with the student and ties a run folder to its recipe."""
        resolved = self.model_dump(mode="json", by_alias=True, context=FOR_DIGEST)
        content = {key: value for key, value in resolved.items() if key not in ("notes", "description", "log")}
        if self.plugins:
            # A plugin that only watches is no part of what is trained, as `log` is none.
            watching = [_only_watches(plugin) for plugin in self.plugins]
            content["plugins"] = [plugin for plugin, only in zip(content["plugins"], watching) if not only]
            if not content["plugins"]:
                del content["plugins"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the resolved recipe as YAML."""
        yaml, text = YAML(), io.StringIO()
        yaml.default_flow_style = None
        yaml.width = 120
        yaml.dump(self.resolved(), text)
        write_text(path, text.getvalue())


def load_recipe(
    name: str | Path,
    overrides: Iterable[str] = (),
    preset: str | None = None,
    plugins: Sequence[str] = (),
    log: Sequence[str] = (),
) -> Recipe:
    """The recipe in a YAML file, or of that name in the catalogue, with the settings of one of its presets and then
    `path.to.key=value` overrides applied; `plugins` and the sinks of `log` are named beside those of the file.

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


def _only_watches(plugin: PluginSection) -> bool:
    return all(isinstance(each, RegisteredSink) for each in load_plugins([plugin]).all)


def parse_recipe(
    tree: Any,
    source: str,
    overrides: Iterable[str] = (),
    preset: str | None = None,
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
    tree, beside = settled(tree, source, overrides, preset, folder)
    if log:
        tree = {**tree, "log": with_sinks(tree.get("log"), log)}
    named = named_plugins(tree, source, plugins)
    try:
        kind = recipe_type(*_schema_parts(load_plugins(named)))
    except PluginError as error:
        raise RecipeError(source, [str(error)]) from error
    if named:
        tree = {**tree, "plugins": [section.model_dump() for section in named]}
    try:
        recipe = kind.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(source, describe(error, kind, tree=tree)) from error
    recipe._beside = beside
    return recipe


def settled(
    tree: Any, source: str, overrides: Iterable[str] = (), preset: str | None = None, folder: Path = Path()
) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """The plain data of one recipe, whether it is one or not: with a preset and overrides applied, which are no part of it; and
    what `placed_paths` says of its paths."""
    if not isinstance(tree, dict):
        raise RecipeError(source, [f"expected a mapping with method, task, student and stages, got {shown(tree)}"])
    presets = presets_of(tree, source)
    tree = {key: value for key, value in tree.items() if key not in ("presets", "search", "grids")}
    if tree.get("log") is not None:  # a list of names has room for no settings
        tree = {**tree, "log": with_sinks(tree["log"], ())}
    if preset is not None:
        if preset not in presets:
            known = ", ".join(presets) or "none"
            raise RecipeError(
                source, [f"preset {shown(preset)}: not one of its presets{did_you_mean(preset, presets)} ({known})"]
            )
        _set_all(tree, [(key, value, f"presets.{preset}.{key}") for key, value in presets[preset].items()])
    settings = [parsed_override(override) for override in overrides]
    tree, beside, problems = placed_paths(tree, folder, [key for key, _, _ in settings])
    if problems:
        raise RecipeError(source, problems)
    _set_all(tree, settings)
    return tree, tuple(beside)


@functools.lru_cache(maxsize=16)
def recipe_type(
    terms: tuple[type[LossTerm], ...] = (),
    schedules: tuple[RegisteredSchedule, ...] = (),
    optimizers: tuple[RegisteredOptimizer, ...] = (),
    sinks: tuple[RegisteredSink, ...] = (),
) -> type[Recipe]:
    """The schema of recipes that may hold these loss terms, schedules, optimizers and sinks of plugins beside the catalogue's."""
    if not (terms or schedules or optimizers or sinks):
        return Recipe
    train = create_model(
        "TrainSection",
        __base__=TrainSection,
        schedule=(Literal[(*SCHEDULES, *(each.name for each in schedules))], TrainSection.model_fields["schedule"].default),
        optimizer=(Literal[(*OPTIMIZERS, *(each.name for each in optimizers))], TrainSection.model_fields["optimizer"].default),
    )
    train.own_schedules = {each.name: each for each in schedules}
    train.own_optimizers = {each.name: each for each in optimizers}
    stage = create_model(
        "StageSection",
        __base__=StageSection,
        objective=(tuple[union_of(terms), ...], Field(min_length=1)),
        train=(train, ...),
    )
    log = log_type(sinks)
    return create_model("Recipe", __base__=Recipe, stages=(tuple[stage, ...], Field(min_length=1)), log=(log, log()))


def _schema_parts(registered: Registered) -> tuple[tuple[Any, ...], ...]:
    """What plugins add to the schema, as `recipe_type` takes it."""
    kinds = RegisteredSchedule, RegisteredOptimizer, RegisteredSink
    return registered.terms, *(tuple(registered.of(kind).values()) for kind in kinds)


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


def parsed_override(override: str) -> tuple[str, Any, str]:
    """Key, value and what errors call it, of `path.to.key=value`."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise CrossdistilError(f"--set {override}: expected path.to.key=value, for example stages.0.train.epochs=1")
    try:
        value = parse_yaml(text, "")
    except RecipeError as error:
        problem = error.problems[0]
        what = "the value is not valid YAML" if problem.startswith("not valid YAML: ") else problem
        raise CrossdistilError(f"--set {plain(override)}: {what}") from error
    # Errors name the keys as `stages[0].train.epochs`.
    return re.sub(r"\[(\d+)\]", r".\1", key), value, f"--set {override}"


def _set_all(tree: dict[str, Any], settings: Sequence[tuple[str, Any, str]]) -> None:
    """Apply settings of one origin. What is set takes the place of what excludes it, unless that is set beside it: `steps`
    of the `epochs` in the file, `teachers` of the `teacher`."""
    for key, value, asked in settings:
        _set(tree, key, value, asked)
        steps = re.fullmatch(r"(stages\.\d+\.train\.)(steps|epochs)", key)
        if steps:
            rival = steps[1] + ("epochs" if steps[2] == "steps" else "steps")
        else:
            rival = {"teacher": "teachers", "teachers": "teacher"}.get(key.partition(".")[0])
        if rival is not None and value and not any(f"{other}.".startswith(f"{rival}.") for other, _, _ in settings):
            _set(tree, rival, {} if rival == "teachers" else None, asked)


def _set(tree: dict[str, Any], key: str, value: Any, asked: str) -> None:
    """Set `path.to.key` in a tree; `asked` is what errors call it."""
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        index = _index(node, part, ".".join(parents[:depth]), asked)
        following = parents[depth + 1] if depth + 1 < len(parents) else last
        if isinstance(node, dict) and node.get(part) is None:
            # An unknown section is told with all that is wrong, once there is a recipe to check.
            node[part] = [] if following.isdigit() and (depth or part in Recipe.model_fields) else {}
        node = node[index]
        if not isinstance(node, dict | list):
            raise CrossdistilError(f"{asked}: {'.'.join(parents[: depth + 1])} holds {shown(node)}, not keys")
    node[_index(node, last, ".".join(parents), asked)] = value


def _index(node: Any, part: str, place: str, asked: str) -> str | int:
    if isinstance(node, dict):
        return part
    if not part.isdigit() or int(part) >= len(node):
        known = ", ".join(map(str, range(len(node)))) or "none"
        raise CrossdistilError(f"{asked}: {place} has no item '{part}', only {known} (counted from 0)")
    return int(part)
