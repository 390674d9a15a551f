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
from .errors import CheckpointError, DataError, Errors, RecipeError
from .losses.base import TermContext
from .metrics import compute_metrics
from .models.bert import make_forward
from .models.spec import BertConfig
from .objective import Objective
from .recipe import Recipe, TaskSection
from .student import build_student

EVALUATION_BATCH = 64
MISMATCHED = "dev_mismatched"
"""MNLI's second development set, from other genres than its training texts."""


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

    def final_metrics(self, infer: Callable) -> tuple[dict[str, float], np.ndarray]:
        """The metrics of a finished model on dev, with MNLI's mismatched ones beside them, and the logits on dev."""
        metrics, logits = self.score("dev", infer)
        if MISMATCHED in self.examples:
            mismatched, _ = self.score(MISMATCHED, infer)
            metrics |= {f"{name}_mismatched": value for name, value in mismatched.items()}
        return metrics, logits


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
    """Read data and models and check that they fit; raises CrossdistilError with all that is wrong, not only the first.

    `source` names the recipe in errors; `static_shapes` is the engine's.
    """
    errors = Errors()
    spec = errors.collect(resolve_task, recipe.task)
    folder = None if spec is None else errors.collect(_data_folder, recipe.task)
    splits = () if folder is None else ("train", "dev", *(split for split in spec.splits if split == MISMATCHED))
    examples = {split: errors.collect(read_split, spec, folder, split) for split in splits}
    teacher = None if recipe.teacher is None else errors.collect(load_model, recipe.teacher.model, "teacher.model")
    tokenizer = errors.collect(_load_tokenizer, recipe, source)
    student = errors.collect(_build_student, recipe, source, spec, teacher)
    errors.collect(_check_fit, recipe, source, spec, tokenizer, teacher, student)
    errors.throw()
    stage = recipe.stages[0]
    context = _term_context(spec)
    buckets = length_buckets(recipe.task.max_length, static_shapes, stage.train.length_buckets)
    data = _tokenize(spec, recipe.task, tokenizer, buckets, examples)
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
    return _tokenize(
        spec, section, tokenizer, buckets, {split: read_split(spec, section.data, split) for split in splits}
    )


def _tokenize(
    spec: TaskSpec, section: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], examples: dict[str, Examples]
) -> TaskData:
    tokens = {split: tokenized(found, tokenizer, section.max_length) for split, found in examples.items()}
    return TaskData(spec, tokenizer, buckets, examples, tokens)


def logits_function(config: BertConfig):
    """`f(ops, parameters, batch) -> [logits]` of a model in evaluation mode."""
    forward = make_forward(config.without_dropout())

    def logits(ops, parameters, batch):
        return [forward(ops, parameters, batch)["logits"]]

    return logits


def teacher_problems(teacher: Model, spec: TaskSpec, where: str) -> list[str]:
    """Why this model, which `where` names, cannot answer this task: another number, naming or order of the classes."""
    if teacher.new:
        return [f"{where}: has no {teacher.new[0]}; fine-tune it on the task first (recipes/finetune.yaml)"]
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


def _data_folder(task: TaskSection) -> Path:
    if not task.data.is_dir():
        what = "is a file, expected a folder" if task.data.exists() else "no such folder"
        raise DataError(f"task.data: {task.data}: {what}")
    return task.data


def _load_tokenizer(recipe: Recipe, source: str) -> Tokenizer | None:
    """The student's own tokenizer, else the teacher's, else that of the weights the student starts from. None where
    that model's folder does not exist, which is reported by who loads the model."""
    student = recipe.student
    if student.tokenizer is not None:
        key, folder = "student.tokenizer", student.tokenizer
    elif recipe.teacher is not None:
        key, folder = "teacher.model", recipe.teacher.model
    elif student.init.source != "random":
        key, folder = "student.init.from", Path(student.init.source)
    else:
        raise RecipeError(source, ["student.tokenizer: missing; a student from random weights needs a tokenizer folder"])
    if student.tokenizer is None and not folder.is_dir():
        return None
    try:
        return load_tokenizer(folder)
    except CheckpointError as error:
        raise CheckpointError(f"{key}: {error}") from error


def _term_context(spec: TaskSpec) -> TermContext:
    return TermContext(outputs=1 if spec.labels is None else len(spec.labels), regression=spec.labels is None)


def _build_student(recipe: Recipe, source: str, spec: TaskSpec | None, teacher: Model | None) -> Model | None:
    """The student, or None where it would start from a teacher that cannot be loaded."""
    if recipe.teacher is not None and teacher is None and recipe.student.init.source in ("teacher", "random"):
        return None
    # Without a task the head does not matter: the student is only made to find what else is wrong with it.
    outputs, labels = (1, None) if spec is None else (_term_context(spec).outputs, spec.label_names)
    student, problems = build_student(recipe.student, teacher, outputs, labels, recipe.seed)
    if problems:
        raise RecipeError(source, problems)
    return student


def _same_inputs(teacher: Model, student: Model) -> bool:
    """Whether a student takes just what its teacher takes: then it has the same problems, which are told once."""
    keys = ("vocab_size", "max_position_embeddings")
    return all(getattr(teacher.config, key) == getattr(student.config, key) for key in keys)


def _check_fit(
    recipe: Recipe,
    source: str,
    spec: TaskSpec | None,
    tokenizer: Tokenizer | None,
    teacher: Model | None,
    student: Model | None,
) -> None:
    """Whether those parts that could be made fit each other."""
    problems = []
    if teacher is not None and spec is not None:
        problems += teacher_problems(teacher, spec, f"teacher.model ({teacher.source})")
    if tokenizer is not None and teacher is not None:
        problems += fit_problems("teacher.model", teacher.config, tokenizer, recipe.task)
    if tokenizer is not None and student is not None and (teacher is None or not _same_inputs(teacher, student)):
        problems += fit_problems("student", student.config, tokenizer, recipe.task)
    if spec is not None:
        for index, term in enumerate(recipe.stages[0].objective):
            lines = term.problems(_term_context(spec))
            problems += [f"stages[0].objective[{index}].{key}: {text}" for key, text in lines]
    if problems:
        raise RecipeError(source, problems)


def with_about(model: Model, parameters: dict[str, np.ndarray], about: dict) -> Model:
    """The same model with other weights and notes."""
    return dataclasses.replace(model, parameters=parameters, about=about, new=())
