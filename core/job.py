"""From a recipe to everything that a run needs, checked, and without any framework: data, tokens, models, objective.

All that is wrong is found here, before the first step and before a file is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checkpoint import Model, load_model
from .data.batches import TrainBatches, evaluation_batches, length_buckets
from .data.tasks import Examples, TaskSpec, read_split, resolve_task
from .data.tokenize import Tokenizer, TokenTable, load_tokenizer, tokenized
from .errors import CheckpointError, RecipeError
from .losses.base import TermContext
from .metrics import compute_metrics
from .models.bert import make_forward
from .models.spec import BertConfig
from .objective import Objective
from .recipe import Recipe, TaskSection
from .student import build_student

EVALUATION_BATCH = 64


@dataclass
class TaskData:
    """The splits of a task that a job uses, tokenized."""

    spec: TaskSpec
    tokenizer: Tokenizer
    buckets: tuple[int, ...]
    examples: dict[str, Examples]
    tokens: dict[str, TokenTable]

    def score(self, split: str, infer: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> tuple[dict, np.ndarray]:
        """The metrics on a split and the logits (examples, outputs) in file order; `infer` maps a batch to [logits]."""
        examples = self.examples[split]
        logits: np.ndarray | None = None
        for rows, batch in evaluation_batches(self.tokens[split], examples.labels, EVALUATION_BATCH, self.buckets):
            values = infer(batch)[0]
            if logits is None:
                logits = np.zeros((len(examples.texts), values.shape[1]), np.float32)
            logits[rows] = values[: len(rows)]
        labels = examples.labels
        return ({} if labels is None else compute_metrics(self.spec.metrics, logits, labels)), logits


@dataclass
class Job:
    """A checked recipe with its data and models, ready for any engine."""

    recipe: Recipe
    data: TaskData
    student: Model
    teacher: Model | None
    objective: Objective
    batches: TrainBatches
    student_config: BertConfig
    """The student's configuration as it is trained: with the recipe's dropout."""


def prepare(recipe: Recipe, source: str, static_shapes: bool) -> Job:
    """Read data and models and check that they fit; raises CrossdistilError with all that is wrong.

    `source` names the recipe in errors; `static_shapes` is the engine's.
    """
    stage = recipe.stages[0]
    spec = resolve_task(recipe.task)
    teacher = None if recipe.teacher is None else load_model(recipe.teacher.model, "teacher.model")
    tokenizer = load_tokenizer(_tokenizer_folder(recipe, source))
    outputs = 1 if spec.labels is None else len(spec.labels)
    labels = spec.label_names
    student, problems = build_student(recipe.student, teacher, outputs, labels, recipe.seed)
    if teacher is not None:
        problems += teacher_problems(teacher, spec)
        problems += fit_problems("teacher.model", teacher.config, tokenizer, recipe.task)
    if student is not None:
        problems += fit_problems("student", student.config, tokenizer, recipe.task)
    context = TermContext(outputs=outputs, regression=spec.labels is None)
    for index, term in enumerate(stage.objective):
        problems += [f"stages[0].objective[{index}].{key}: {text}" for key, text in term.problems(context)]
    if problems or student is None:
        raise RecipeError(source, problems)
    buckets = length_buckets(recipe.task.max_length, static_shapes, stage.train.length_buckets)
    data = load_data(spec, recipe.task, tokenizer, buckets, ("train", "dev"))
    train = stage.train
    config = student.config if train.dropout is None else student.config.with_dropout(train.dropout)
    return Job(
        recipe=recipe,
        data=data,
        student=student,
        teacher=teacher,
        objective=Objective(stage.objective, context, config, None if teacher is None else teacher.config),
        batches=TrainBatches(
            data.tokens["train"], data.examples["train"].labels, train.batch_size, train.gradient_accumulation,
            buckets, recipe.seed,
        ),
        student_config=config,
    )


def load_data(
    spec: TaskSpec, section: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], splits: tuple[str, ...]
) -> TaskData:
    """Read and tokenize splits of a task."""
    examples = {split: read_split(spec, section.data, split) for split in splits}
    tokens = {split: tokenized(examples[split], tokenizer, section.max_length) for split in splits}
    return TaskData(spec, tokenizer, buckets, examples, tokens)


def logits_function(config: BertConfig):
    """`f(ops, parameters, batch) -> [logits]` of a model in evaluation mode."""
    forward = make_forward(config.without_dropout())

    def logits(ops, parameters, batch):
        return [forward(ops, parameters, batch)["logits"]]

    return logits


def teacher_problems(teacher: Model, spec: TaskSpec) -> list[str]:
    """Why this teacher cannot teach this task: another number, naming or order of the classes."""
    where = f"teacher.model ({teacher.source})"
    if teacher.outputs is None or "classifier.weight" in teacher.new:
        return [f"{where}: has no classifier; fine-tune it on the task first (recipes/finetune.yaml)"]
    if (spec.labels is None) != teacher.regression:
        kinds = ("a regression", "a classification")
        return [f"{where}: trained for {kinds[not teacher.regression]}, but the task is {kinds[spec.labels is not None]}"]
    if spec.labels is None:
        return []
    got, expected = teacher.labels or (), spec.label_names or ()
    if len(got) != len(expected):
        return [f"{where}: has {len(got)} classes ({', '.join(got)}), the task {len(expected)} ({', '.join(expected)})"]
    if not same_labels(got, spec):
        return [f"{where}: its classes are {', '.join(got)}, in this order; the task's are {', '.join(expected)}"]
    return []


def same_labels(names: tuple[str, ...], spec: TaskSpec) -> bool:
    """Whether class names mean the task's classes in the task's order; generic names (LABEL_0, ...) always do."""
    given = tuple(name.lower() for name in names)
    generic = tuple(f"label_{index}" for index in range(len(names)))
    known = [tuple(name.lower() for name in choice or ()) for choice in (spec.label_names, spec.labels)]
    return given in [generic, *known]


def fit_problems(where: str, config: BertConfig, tokenizer: Tokenizer, task: TaskSection) -> list[str]:
    """What does not fit between a model, the tokenizer and the task's length."""
    problems = []
    if config.vocab_size != tokenizer.vocab_size:
        problems.append(
            f"{where}: vocab_size is {config.vocab_size}, but the tokenizer has {tokenizer.vocab_size} tokens"
        )
    if config.max_position_embeddings < task.max_length:
        problems.append(
            f"task.max_length: {task.max_length}, but {where} has only {config.max_position_embeddings} positions"
        )
    return problems


def _tokenizer_folder(recipe: Recipe, source: str) -> Path:
    """The tokenizer's folder: the student's own, else the teacher's, else that of the weights the student starts from."""
    if recipe.student.tokenizer is not None:
        return recipe.student.tokenizer
    if recipe.teacher is not None:
        return recipe.teacher.model
    if recipe.student.init.source != "random":
        folder = Path(recipe.student.init.source)
        if not folder.is_dir():
            raise CheckpointError(f"student.init.from: {folder}: no such model folder")
        return folder
    raise RecipeError(source, ["student.tokenizer: missing; a student from random weights needs a tokenizer folder"])


def with_about(model: Model, parameters: dict[str, np.ndarray], about: dict) -> Model:
    """The same model with other weights and notes."""
    return dataclasses.replace(model, parameters=parameters, about=about, new=())
