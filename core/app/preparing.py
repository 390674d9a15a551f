"""From a recipe to its plan and its job, wherever its models are: in folders that core reads, in checkpoints of other formats, in
run folders, on the hub, or, where a recipe is only explained, nowhere yet."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

from rich.console import Console

from ...converters.canonical import read_canonical
from ...converters.formats import is_checkpoint
from ..cached_teacher import card_of
from ..checkpoint import CARD, WEIGHTS, Model, open_model
from ..config_file import CONFIG, load_config
from ..engine import Engine
from ..errors import checkpoint_named
from ..job import Job, check_rows, load
from ..kinds.kind import Kind
from ..kinds.known_kinds import RANKING, kind_named
from ..models.answer_heads import NEXT_WORDS
from ..models.families.bert import BertConfig
from ..models.families.gpt2 import Gpt2Config
from ..plan import START, Found, Plan, plan
from ..recipe import Recipe
from ..recipe_tokenizers import teacher_key
from ..stored_tensors import NamedTensors
from ..world import World
from .model_notes import all_notes, paths_as_given
from .models import is_canonical
from .progress import shape_text
from .recipe_models import found_models, model_paths, with_paths
from .run_student import student_of
from .waiting import Waiting

ASSUMED = (
    BertConfig(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536),
    BertConfig(),
)
"""MiniLM's and BERT-base's sizes. The first that a recipe fits is taken."""
ASSUMED_CAUSAL = (Gpt2Config(n_layer=6), Gpt2Config())
"""The same of models that predict the next word: DistilGPT-2's and GPT-2's sizes."""

Given = list[tuple[Path, Path]]
"""Each model's path as the recipe has it, and the folder that stands for it: for `paths_as_given`."""


def planned(recipe: Recipe, source: str, trains: bool = True) -> tuple[Plan, Given]:
    """The plan of a recipe, all whose models have to be there, and their paths: checkpoints of other formats are converted, once.
    Without `trains`, the student need not have its weights."""
    found = found_models(recipe, trains)
    return plan(found.recipe, source, trains, found), list(zip(model_paths(recipe), model_paths(found.recipe)))


def check_fit(recipe: Recipe, source: str, rows: bool) -> None:
    """Raise CrossdistilError with all that is wrong with a recipe, its models and, with `rows`, its data; no weight is read."""
    found, given = planned(recipe, source)
    errors = check_rows(found)[1] if rows else found.errors
    with paths_as_given(*given):
        errors.throw()


def prepared(recipe: Recipe, source: str, weights: bool = True) -> Job:
    """The job of a recipe for this process alone, whatever the backend; without `weights`, none are read. Raises
    CrossdistilError."""
    found, given = planned(recipe, source)
    with paths_as_given(*given):
        return load(found, 1, weights)


def prepared_job(
    recipe: Recipe,
    source: str,
    engine: Engine,
    world: World,
    console: Console,
    trains: bool = True,
    weights: bool = True,
) -> tuple[Job, Given]:
    """The job of a recipe that the processes of a command prepare together, which knows the recipe as it was given, and its
    models' paths; what their user should know is printed. Without `trains`, the student need not have its weights; without
    `weights`, none are read. Raises CrossdistilError in all processes."""
    with Waiting(partial(console.print, markup=False)) as waiting:
        waiting.doing("looking at the models and the data")
        found, pairs = world.together(planned, recipe, source, trains)
        with paths_as_given(*pairs):
            job = world.together(load, found, engine.length_step, weights, waiting.doing)
    job = dataclasses.replace(job, recipe=recipe, share=world.share)
    for data in (job.data, *job.teacher_data.values()):
        data.world = world
    for line in all_notes(job.notes, *pairs):
        console.print(f"note: {line}", markup=False)
    engine.compilations.tell = lambda what, shape: console.print(f"{engine.name}: compiling {what} for {shape_text(shape)}")
    return job, pairs


def explained(recipe: Recipe, source: str) -> tuple[Plan, frozenset[str]]:
    """The plan of a recipe whose models need not be there, and the keys of those that are not: in their place stands one that the
    recipe fits, if there is one. Nothing is converted. Raises CrossdistilError for a model that is there and damaged, and for a
    student that cannot be."""
    places = {teacher_key(recipe, name): section.model for name, section in recipe.model_teachers.items()}
    if recipe.student.init.source not in ("teacher", "random"):
        places[START] = Path(recipe.student.init.source)
    folders, known, kind = {}, {}, kind_named(recipe.task.kind)
    reranks = {teacher_key(recipe, name) for name in recipe.rerankers}
    for key, path in places.items():
        with checkpoint_named(key):
            folders[key] = card_of(student_of(path))
        model = _as_it_is(folders[key], key, RANKING if key in reranks else kind)
        if model is not None:
            known[key] = model
    missing = frozenset(places) - frozenset(known)
    plans = []
    assumed = ASSUMED_CAUSAL if kind.head == NEXT_WORDS else ASSUMED
    for config in assumed if missing else assumed[:1]:
        models = known | {key: Model(config, NamedTensors(), None) for key in missing}
        plans.append(plan(recipe, source, True, Found(with_paths(recipe, folders), {}, models, missing)))
    found = min(plans, key=lambda each: len(each.problems))  # the first of equals
    if found.student is None:
        found.errors.throw()
    return found, missing


def _as_it_is(path: Path, key: str, kind: Kind) -> Model | None:
    """What is known of the model at `path`, a model folder or a checkpoint of any format; None where there is none yet."""
    if not is_checkpoint(path) and not (path / CONFIG).is_file():
        return None
    if is_checkpoint(path) and not is_canonical(path):
        with checkpoint_named(key):
            return Model(read_canonical(path).config, NamedTensors(), None)
    if (path / WEIGHTS).is_file() or (path / CARD).is_file():
        return open_model(path, key, kind.guesses_words, kind.head)
    return Model(load_config(path, key), NamedTensors(), None)
