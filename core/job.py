"""From a recipe to everything that a run needs, checked, and without any framework: data, tokens, models, stages.

All that is wrong is found here, before the first step and before a file is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .checkpoint import Model, load_model, load_projections
from .data.batches import TrainBatches, length_buckets
from .data.limits import limited
from .data.mixing import mixed
from .data.tasks import Examples, TaskSpec, check_files, check_folder, label_counts, read_split, resolve_task
from .data.tokenize import Tokenizer, load_tokenizer
from .data.word_vocabulary import WordTokenizer
from .errors import CrossdistilError, Errors, RecipeError
from .fit import fit_problems, same_inputs, teacher_problems, vocabulary_notes, words_problems
from .losses.base import TermContext
from .losses.layers import placed
from .models.outputs import LOGITS
from .objective import Teachers
from .recipe import Recipe
from .recipe_tokenizers import check_start, keyed_tokenizer, student_tokenizer, teacher_key
from .sections import WordsSection
from .stages import Stage, build_objective, freeze_problems, is_scored, projection_problems, replacement_problems
from .student import build_bilstm, build_student
from .task_data import MISMATCHED, TaskData, masked_text_data, raw_text_data, tokenize
from .task_section import TaskSection
from .world import ALL, Share


@dataclass
class Job:
    """A checked recipe with its data and models, ready for any engine."""

    recipe: Recipe
    context: TermContext
    data: TaskData
    """As the student takes it."""
    student: Model
    teachers: dict[str, Model]
    teacher_data: dict[str, TaskData]
    """As each teacher takes it: the student's where they have the same tokenizer."""
    projections: dict[str, np.ndarray] = field(default_factory=dict)
    """Projections that came with the weights that the student starts from."""
    notes: tuple[str, ...] = ()
    """What the user should know of the models."""
    share: Share = ALL
    """Which parts of each step this process computes."""

    def stage(self, index: int, cached: bool = False) -> Stage:
        """A stage of the recipe; with `cached`, the teachers' outputs come with the batches."""
        section = self.recipe.stages[index]
        train, config = section.train, self.student.config
        config = config if train.dropout is None else config.with_dropout(train.dropout)
        context = dataclasses.replace(self.context, student=config)
        examples = self.data.examples["train"]
        batches = TrainBatches(
            self.data.tokens["train"],
            examples.labels,
            train.batch_size,
            train.gradient_accumulation,
            self.buckets(index),
            # The first stage's order is that of a recipe with one stage.
            self.recipe.seed if index == 0 else (self.recipe.seed, index),
            examples.label_mask,
            any(term.counts_padding for term in section.objective),
            self.share,
            examples.weights,
        )
        if "train" in self.data.masks:
            batches.attach_masks(self.data.masks["train"])
        objective = build_objective(section, context, self.teacher_options(cached))
        return Stage(section, index, config, objective, batches)

    def buckets(self, index: int) -> tuple[int, ...]:
        """The lengths that a stage pads to."""
        chosen = self.recipe.stages[index].train.length_buckets
        return self.data.buckets if chosen is None else length_buckets(self.data.buckets[-1], None, chosen)

    def teacher_options(self, cached: bool) -> Teachers:
        """How the recipe wants its teachers."""
        weights = {name: section.weight for name, section in self.recipe.all_teachers.items()}
        total = sum(weights.values())
        shares = {name: weight / total for name, weight in weights.items()}
        return Teachers(shares, self.recipe.teacher_dropout, cached)


def prepare(recipe: Recipe, source: str, length_step: int | None, weights: bool = True) -> Job:
    """Read data and models and check that they fit; raises CrossdistilError with all that is wrong, not only the first.

    `source` names the recipe in errors; `length_step` is the engine's. Without `weights` the student has none: for what
    concerns its teachers alone.
    """
    errors = Errors()
    spec = errors.collect(resolve_task, recipe.task, recipe.registered)
    if spec is None and recipe.task.metrics is not None:  # what else is wrong does not hang on them
        with contextlib.suppress(CrossdistilError):
            spec = resolve_task(recipe.task.model_copy(update={"metrics": None}), recipe.registered)
    examples = errors.collect(_examples, recipe, spec) if spec is not None else errors.collect(check_files, recipe.task)
    teachers = {
        name: errors.collect(load_model, section.model, teacher_key(recipe, name), spec is not None and spec.masked)
        for name, section in recipe.all_teachers.items()
    }
    found = {name: teacher for name, teacher in teachers.items() if teacher is not None}
    complete = len(found) == len(teachers)
    load = functools.cache(load_tokenizer)
    tokenizer = errors.collect(student_tokenizer, recipe, source, examples, load)
    student = errors.collect(_build_student, recipe, source, spec, next(iter(teachers.values()), None), tokenizer, weights)
    teacher_tokenizers = {
        name: errors.collect(keyed_tokenizer, teacher_key(recipe, name), section.model, load)
        for name, section in recipe.all_teachers.items()
        if name in found
    }
    errors.collect(check_start, recipe, source, tokenizer, load)
    errors.collect(_check_fit, recipe, source, spec, tokenizer, teacher_tokenizers, found if complete else {}, student, examples)
    projections = (errors.collect(_first_projections, recipe, student) if weights else None) or {}
    errors.throw()
    context = _term_context(spec, student, teachers, examples)
    conflicts = projection_problems(recipe.stages, context, projections)
    if conflicts:
        raise RecipeError(source, conflicts)
    length, buckets = _student_length(recipe, length_step)
    data = _tokenize(spec, recipe, tokenizer, buckets, examples, length)
    own = length_buckets(recipe.task.max_length, length_step)
    same: dict[str, TaskData] = {tokenizer.fingerprint: data}
    for other in teacher_tokenizers.values():
        if other.fingerprint not in same:
            same[other.fingerprint] = _tokenize(spec, recipe, other, own, examples, recipe.task.max_length)
    teacher_data = {name: same[other.fingerprint] for name, other in teacher_tokenizers.items()}
    notes = _notes(recipe, tokenizer, teacher_tokenizers, teachers, student)
    return Job(recipe, context, data, student, teachers, teacher_data, projections, notes)


def _notes(
    recipe: Recipe,
    tokenizer: Tokenizer | WordTokenizer,
    teacher_tokenizers: dict[str, Tokenizer],
    teachers: dict[str, Model],
    student: Model,
) -> tuple[str, ...]:
    lines = [note for model in (*teachers.values(), student) for note in model.notes]
    for name, teacher in teachers.items():
        lines += vocabulary_notes(teacher_key(recipe, name), teacher.config, teacher_tokenizers[name])
    if not any(same_inputs(teacher, student) for teacher in teachers.values()):
        lines += vocabulary_notes("student", student.config, tokenizer)
    return tuple(lines)


def with_about(model: Model, parameters: dict[str, np.ndarray], about: dict) -> Model:
    """The same model with other weights and notes."""
    own = {name: parameters[name] for name in model.parameters}
    return dataclasses.replace(model, parameters=own, about=about, new=())


def _examples(recipe: Recipe, spec: TaskSpec) -> dict[str, Examples] | None:
    """The examples by split; for raw text, whose texts are only read with the tokenizer, without texts."""
    task = recipe.task
    if spec.raw:
        return {}
    if spec.own is None:
        check_folder(task.data)
    errors, examples = Errors(), {}
    for split in ("train", "dev", *(split for split in spec.splits if split == MISMATCHED)):
        examples[split] = errors.collect(_used_split, spec, task, split)
    errors.throw()
    for index, section in enumerate(recipe.aux_data):
        train = errors.collect(mixed, examples["train"], spec, section, f"aux_data[{index}]", recipe.registered)
        examples["train"] = examples["train"] if train is None else train
    errors.throw()
    return examples


def _used_split(spec: TaskSpec, task: TaskSection, split: str) -> Examples:
    return limited(read_split(spec, task.data, split), task.limit, split)


def _tokenize(spec, recipe: Recipe, tokenizer, buckets, examples, max_length: int) -> TaskData:
    task = recipe.task
    if spec.masked:
        return masked_text_data(spec, task, tokenizer, buckets, max_length, recipe.seed)
    if spec.raw:
        return raw_text_data(spec, task, tokenizer, buckets, max_length)
    return tokenize(spec, tokenizer, buckets, examples, max_length)


def _student_length(recipe: Recipe, length_step: int | None) -> tuple[int, tuple[int, ...]]:
    """To how many tokens (or words) the student's texts are cut, and the lengths that they are padded to."""
    if recipe.student.is_bilstm:
        length = (recipe.student.words or WordsSection()).max_length
        return length, length_buckets(length, length_step)
    return recipe.task.max_length, length_buckets(recipe.task.max_length, length_step)


def _term_context(
    spec: TaskSpec,
    student: Model | None = None,
    teachers: dict[str, Model] | None = None,
    examples: dict[str, Examples] | None = None,
) -> TermContext:
    outputs = None if spec.raw else 1 if spec.labels is None else len(spec.labels)
    counts = None if spec.labels is None or not examples else label_counts(examples["train"], outputs)
    return TermContext(
        outputs=outputs,
        regression=outputs == 1,
        student=None if student is None else student.config,
        teachers={name: teacher.config for name, teacher in (teachers or {}).items()},
        multi_label=spec.multi_label,
        masked=spec.masked,
        labels=spec.label_names,
        label_counts=None if counts is None else counts[0],
        labelled=0 if counts is None else counts[1],
    )


def _build_student(
    recipe: Recipe,
    source: str,
    spec: TaskSpec | None,
    teacher: Model | None,
    tokenizer: Tokenizer | WordTokenizer | None,
    weights: bool,
) -> Model | None:
    """The student, or None where it would start from a teacher that cannot be loaded."""
    if recipe.all_teachers and teacher is None and recipe.student.init.source in ("teacher", "random"):
        return None
    # Without a task the head does not matter: the student is only made to find what else is wrong with it.
    outputs, labels = (1, None) if spec is None else (_term_context(spec).outputs, spec.label_names)
    several = spec is not None and spec.multi_label
    if recipe.student.is_bilstm:
        if tokenizer is None or spec is None:
            return None
        pairs = spec.text_pair is not None
        student, problems = build_bilstm(recipe.student, tokenizer, pairs, outputs, labels, recipe.seed, several)
    else:
        masked = spec is not None and spec.masked
        size = None if tokenizer is None else tokenizer.vocab_size
        student, problems = build_student(recipe.student, teacher, outputs, labels, recipe.seed, several, masked, size, weights)
    if problems:
        raise RecipeError(source, problems)
    return student


def _check_fit(
    recipe: Recipe,
    source: str,
    spec: TaskSpec | None,
    tokenizer: Tokenizer | WordTokenizer | None,
    teacher_tokenizers: dict[str, Tokenizer | None],
    teachers: dict[str, Model],
    student: Model | None,
    examples: dict[str, Examples] | None,
) -> None:
    """Whether those parts that could be made fit each other."""
    problems = []
    for name, teacher in teachers.items():
        key = teacher_key(recipe, name)
        if spec is not None and not spec.raw:
            problems += teacher_problems(teacher, spec, f"{key} ({teacher.source})")
        if any(term.needs_words and term.needs_teacher for stage in recipe.stages for term in stage.objective):
            problems += words_problems(teacher, f"{key} ({teacher.source})")
        if teacher_tokenizers.get(name) is not None:
            problems += fit_problems(key, teacher.config, teacher_tokenizers[name], recipe.task)
    first = next(iter(teachers.values()), None)
    if tokenizer is not None and student is not None and not recipe.student.is_bilstm:
        if first is None or not same_inputs(first, student):
            problems += fit_problems("student", student.config, tokenizer, recipe.task)
    if spec is not None and student is not None and (teachers or not recipe.all_teachers):
        context = _term_context(spec, student, teachers, examples)
        apart = [
            name
            for name, other in teacher_tokenizers.items()
            if other is not None and tokenizer is not None and other.fingerprint != tokenizer.fingerprint
        ]
        for index in range(len(recipe.stages)):
            problems += _stage_problems(recipe, index, context, apart)
    elif spec is not None and not recipe.all_teachers:
        problems += _stage_problems(recipe, 0, _term_context(spec, examples=examples), [])
    if problems:
        raise RecipeError(source, problems)


def _stage_problems(recipe: Recipe, index: int, context: TermContext, apart: list[str]) -> list[str]:
    """What is wrong with a stage; `apart` are the teachers whose tokens are not the student's."""
    stage, problems = recipe.stages[index], []
    for number, term in enumerate(stage.objective):
        place = f"stages[{index}].objective[{number}]"
        found = [(key, text) for key, text in term.problems(context)]
        if not found and context.outputs is None and LOGITS in term.student_outputs(context):
            found = [("loss", f"{term.loss} needs an answer to a task, but the data is raw text")]
        if not found and apart:
            layered = [
                name for name, outputs in term.teacher_outputs(context).items() if name in apart and outputs - {LOGITS}
            ]
            if layered:
                reason = f"{term.loss} compares token by token, but the student has another tokenizer than '{layered[0]}'"
                found = [("loss", reason)]
        problems += [placed(place, key, text) for key, text in found]
    if not problems and stage.train.patience is not None and context.student is not None:
        wanted = frozenset().union(*(term.student_outputs(context) for term in stage.objective))
        if not is_scored(wanted) or (context.outputs is None and "dev" not in recipe.task.files):
            problems = [f"stages[{index}].train.patience: the stage is not scored on dev, so there is nothing to wait for"]
    if not problems and stage.replacement is not None:
        problems = [f"stages[{index}].{key}: {text}" for key, text in replacement_problems(stage, context)]
    if not problems and context.student is not None:
        problems = [f"stages[{index}].{key}: {text}" for key, text in freeze_problems(stage, context)]
    return problems


def _first_projections(recipe: Recipe, student: Model | None) -> dict[str, np.ndarray]:
    """The projections that the folder of the student's first weights holds."""
    start = recipe.student.init.source
    return {} if student is None or start in ("teacher", "random") else load_projections(Path(start))
