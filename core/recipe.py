"""The recipe: a YAML file that says what is distilled from what, and how, without naming a framework.

Reading is strict. Unknown keys, wrong types and unknown names are all reported at once, each with its path and, where
one is near, the key that was probably meant. What can only be judged with the data and the teacher at hand is checked in
`core.app.job`, also before the first step.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from .errors import CrossdistilError, RecipeError
from .files import write_text
from .losses.logits import HardLabel, KnowledgeDistillationCrossEntropy, KnowledgeDistillationMeanSquaredError
from .recipe_errors import describe
from .schedules import SCHEDULES

RECIPES_FOLDER = Path(__file__).resolve().parent.parent / "recipes"


class Section(BaseModel):
    """Part of a recipe: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _absolute(path: Path) -> Path:
    # Relative paths mean the folder the command was started in; the recipe in a run folder must work from anywhere.
    return path.expanduser().absolute()


class TaskSection(Section):
    """Which data. GLUE names know their files and columns; any other name needs `text` and `label`."""

    name: str
    data: Path
    max_length: int = Field(128, ge=4)
    kind: Literal["classification", "regression"] | None = None
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    labels: tuple[str, ...] | None = None
    files: dict[str, str] = {}
    metrics: tuple[str, ...] | None = None

    _absolute_data = field_validator("data")(_absolute)

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_text(cls, value: Any) -> Any:
        # YAML reads `labels: [0, 1]` as numbers; in the data file they are text.
        return [str(item) for item in value] if isinstance(value, list) else value


class TeacherSection(Section):
    """A fine-tuned model folder."""

    model: Path

    _absolute_model = field_validator("model")(_absolute)


class InitSection(Section):
    """Where the student's weights start: `teacher`, `random`, or a model folder; `layers` lists the source's layers that
    become the student's, counted from 0."""

    source: str = Field("random", alias="from")
    layers: tuple[int, ...] | None = None

    @field_validator("source")
    @classmethod
    def _absolute_source(cls, value: str) -> str:
        return value if value in ("teacher", "random") else str(_absolute(Path(value)))

    @model_validator(mode="after")
    def _layers_have_a_source(self) -> InitSection:
        if self.layers is not None and self.source == "random":
            raise ValueError("layers are given, but from is 'random': there are none to take")
        return self


class StudentSection(Section):
    """The model that is trained. `architecture` overrides single keys of the configuration of the weights it starts from,
    or of the teacher's where they are random, or of BERT-base where there is no teacher."""

    architecture: dict[str, Any] = {}
    init: InitSection = InitSection()
    tokenizer: Path | None = None

    @field_validator("tokenizer")
    @classmethod
    def _absolute_tokenizer(cls, value: Path | None) -> Path | None:
        return None if value is None else _absolute(value)


class TrainSection(Section):
    """One stage's training. Give `epochs` or `steps`."""

    epochs: float | None = Field(None, gt=0, allow_inf_nan=False)
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    optimizer: Literal["adamw", "bert_adam"] = "adamw"
    learning_rate: float = Field(5e-5, gt=0, allow_inf_nan=False)
    schedule: Literal[SCHEDULES] = "linear"  # type: ignore[valid-type]
    warmup: float = Field(0.1, ge=0, allow_inf_nan=False)
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-6, gt=0)
    max_gradient_norm: float | None = Field(1.0, gt=0)
    dropout: float | None = Field(None, ge=0, lt=1)
    length_buckets: tuple[int, ...] | None = None
    log_every: int = Field(50, ge=1)
    evaluate_every: int | None = Field(None, ge=1)
    save_every: int = Field(500, ge=1)
    keep: Literal["best", "last"] = "best"

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps" + (", not both" if self.steps else ""))
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of gradient_accumulation {self.gradient_accumulation}"
            )
        if self.length_buckets is not None and min(self.length_buckets, default=0) < 1:
            raise ValueError("length_buckets needs at least one length, all of them positive")
        return self


Term = Annotated[
    HardLabel | KnowledgeDistillationCrossEntropy | KnowledgeDistillationMeanSquaredError,
    Field(discriminator="loss"),
]


class StageSection(Section):
    """A weighted sum of loss terms and a training schedule."""

    name: str = Field(min_length=1)
    objective: tuple[Term, ...] = Field(min_length=1)
    train: TrainSection

    @field_validator("objective")
    @classmethod
    def _something_to_minimise(cls, value: tuple[Term, ...]) -> tuple[Term, ...]:
        if not any(term.weight for term in value):
            raise ValueError("every weight is 0: there is nothing to minimise")
        return value


class Recipe(Section):
    """A whole recipe."""

    method: str
    description: str = ""
    task: TaskSection
    teacher: TeacherSection | None = None
    student: StudentSection
    stages: tuple[StageSection, ...] = Field(min_length=1, max_length=1)
    seed: int = Field(42, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> Recipe:
        if self.teacher is None:
            users = [t.loss for stage in self.stages for t in stage.objective if t.needs_teacher]
            if users:
                raise ValueError(f"the loss {users[0]} needs a teacher: give teacher.model")
            if self.student.init.source == "teacher":
                raise ValueError("student.init.from is 'teacher', but there is no teacher: give teacher.model")
        return self

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, ready for YAML or JSON."""
        return self.model_dump(mode="json", by_alias=True)

    def digest(self) -> str:
        """SHA-256 of the resolved recipe; it travels with the student and ties a run folder to its recipe."""
        return hashlib.sha256(json.dumps(self.resolved(), sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write the resolved recipe as YAML."""
        yaml, text = YAML(), io.StringIO()
        yaml.default_flow_style = None
        yaml.width = 120
        yaml.dump(self.resolved(), text)
        write_text(path, text.getvalue())


def load_recipe(name: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in a YAML file, or of that name in the catalogue, with `path.to.key=value` overrides applied.

    Raises RecipeError with every problem that the recipe has by itself.
    """
    path = find_recipe(name)
    try:
        tree = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f":{error.problem_mark.line + 1}"
        raise RecipeError(f"{name}{line}", [f"not valid YAML: {error.problem}"]) from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(str(name), [f"not valid YAML: {' '.join(str(error).split())}"]) from error
    return parse_recipe(tree, str(name), overrides)


def overridden(recipe: Recipe, overrides: Iterable[str]) -> Recipe:
    """A recipe that was read before, with `path.to.key=value` overrides applied."""
    return parse_recipe(recipe.resolved(), recipe.method, overrides)


def parse_recipe(tree: Any, source: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from plain data, with overrides applied to it; `source` names it in errors."""
    if not isinstance(tree, dict):
        raise RecipeError(source, [f"expected a mapping with method, task, student and stages, got {tree!r}"])
    for override in overrides:
        _apply(tree, override)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(source, describe(error, Recipe)) from error


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path or by its name in the catalogue."""
    path = Path(name)
    if path.is_file():
        return path
    catalogued = RECIPES_FOLDER / f"{path.name.removesuffix('.yaml')}.yaml"
    if catalogued.is_file() and path.parent in (Path("."), Path("recipes")):
        return catalogued
    known = ", ".join(sorted(file.stem for file in RECIPES_FOLDER.glob("*.yaml")))
    raise CrossdistilError(f"{name}: no such recipe file, and not one of the catalogue: {known}")


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise CrossdistilError(f"--set {override}: expected path.to.key=value, for example stages.0.train.epochs=1")
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise CrossdistilError(f"--set {override}: the value is not valid YAML") from error
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        index = _index(node, part, override)
        following = parents[depth + 1] if depth + 1 < len(parents) else last
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = [] if following.isdigit() else {}
        node = node[index]
        if not isinstance(node, dict | list):
            raise CrossdistilError(f"--set {override}: {'.'.join(parents[: depth + 1])} holds {node!r}, not keys")
    node[_index(node, last, override)] = value


def _index(node: Any, part: str, override: str) -> str | int:
    if isinstance(node, dict):
        return part
    if not part.isdigit() or int(part) >= len(node):
        raise CrossdistilError(f"--set {override}: '{part}' is not an index of a list of {len(node)}")
    return int(part)
