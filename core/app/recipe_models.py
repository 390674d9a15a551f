"""Which models a recipe means, without loading their weights, and where their folders are not there yet, without them:
then a teacher is assumed that the recipe fits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ...converters.canonical import read_canonical
from ...converters.formats import is_checkpoint
from ..config_file import CONFIG, load_config
from ..data.tasks import TaskSpec, resolve_task
from ..errors import DataError, RecipeError, checkpoint_named
from ..losses.base import TermContext
from ..losses.layers import placed
from ..models.architectures import Config, is_encoder, model_type, shares_layers
from ..models.bilstm import BiLstmConfig
from ..models.spec import BertConfig
from ..models.transfer import can_transfer
from ..recipe import Recipe
from ..recipe_errors import describe
from ..sections import WordsSection
from ..stages import freeze_problems, replacement_problems
from ..student import layer_problems, other_architecture, shared_layers_problems, student_config
from .models import is_canonical
from .run_folders import student_of

ASSUMED = (
    BertConfig(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536),
    BertConfig(),
)
"""MiniLM's and BERT-base's sizes. The first that a recipe fits is taken."""


@dataclass(frozen=True)
class Architectures:
    """The models of a recipe."""

    context: TermContext
    spec: TaskSpec | None
    """None where the task cannot be known without its files: two classes are assumed."""
    assumed: tuple[str, ...]
    """Which models' folders are not there: teachers by name, and `student.init.from`."""
    problems: tuple[str, ...]
    """What does not fit, as `stages[0].objective[1].layers: why`."""


def architectures(recipe: Recipe, source: str) -> Architectures:
    """The models; `source` names the recipe in errors. Raises CrossdistilError for a folder that is there and damaged, and
    for a student that cannot be."""
    try:
        spec = resolve_task(recipe.task, recipe.registered)
    except DataError:
        spec = None
    folders = {name: section.model for name, section in recipe.all_teachers.items()}
    start = recipe.student.init.source
    if start not in ("teacher", "random"):
        folders["student.init.from"] = Path(start)
    known = {name: config for name, path in folders.items() if (config := _config(path, name)) is not None}
    missing = tuple(name for name in folders if name not in known)
    found = [_with(recipe, source, spec, known | dict.fromkeys(missing, assumed), missing) for assumed in ASSUMED]
    return min(found, key=lambda each: len(each.problems))  # the first of equals


def _config(path: Path, name: str) -> Config | None:
    """The architecture of the model at `path`, a model folder or a checkpoint of any format; None where there is none yet."""
    with checkpoint_named(name):
        path = student_of(path)
    if not is_checkpoint(path) and not (path / CONFIG).is_file():
        return None
    if not is_checkpoint(path) or is_canonical(path):
        return load_config(path, name)
    with checkpoint_named(name):
        return read_canonical(path).config


def _with(
    recipe: Recipe, source: str, spec: TaskSpec | None, models: dict[str, Config], assumed: tuple[str, ...]
) -> Architectures:
    teachers = {name: models[name] for name in recipe.all_teachers}
    first = next(iter(teachers.values()), None)
    start = models.get("student.init.from", first if recipe.student.init.source == "teacher" else None)
    student = _student(recipe, source, spec, start or first)
    outputs = 2
    if spec is not None:
        outputs = None if spec.raw else 1 if spec.labels is None else len(spec.labels)
    several, masked = (bool(getattr(spec, name, False)) for name in ("multi_label", "masked"))
    context = TermContext(outputs, outputs == 1, student, teachers, several, masked)
    problems = _start_problems(recipe, start, student, "student.init.from" in assumed)
    for index, stage in enumerate(recipe.stages):
        place = f"stages[{index}]"
        own = [
            placed(f"{place}.objective[{number}]", key, text)
            for number, term in enumerate(stage.objective)
            for key, text in term.problems(context)
        ]
        if not own and stage.replacement is not None:
            own = [f"{place}.{key}: {text}" for key, text in replacement_problems(stage, context)]
        problems += own or [f"{place}.{key}: {text}" for key, text in freeze_problems(stage, context)]
    return Architectures(context, spec, assumed, tuple(problems))


def _student(recipe: Recipe, source: str, spec: TaskSpec | None, like: Config | None) -> Config:
    section = recipe.student
    if not section.is_bilstm:
        config, problems = student_config(section, like)
        if config is None:
            raise RecipeError(source, problems)
        return config
    given = {
        "vocab_size": (section.words or WordsSection()).vocabulary,
        "pairs": spec is not None and spec.text_pair is not None,
    }
    try:
        return BiLstmConfig(**{**section.architecture, **given})
    except ValidationError as error:
        raise RecipeError(source, describe(error, BiLstmConfig, "student.architecture")) from error


def _start_problems(recipe: Recipe, start: Config | None, student: Config, assumed: bool) -> list[str]:
    """Whether the layers that the student starts from are there."""
    if start is None or not is_encoder(student):
        return []
    own, available, layers = student.num_hidden_layers, start.num_hidden_layers, recipe.student.init.layers
    same = model_type(start) == model_type(student) or can_transfer(start, student)
    if not same and not any(start is model for model in ASSUMED):
        return [other_architecture(start, student)]
    if shares_layers(student):
        return shared_layers_problems(layers)
    if layers is None:
        # A folder that is not there yet may be a student of this very size.
        fits = assumed or own == available
        return [] if fits else layer_problems(None, available, own)
    return layer_problems(layers, available, own)
