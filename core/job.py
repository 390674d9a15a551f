"""From a plan to everything that a run needs, checked, and without any framework: rows, tokens, weights, stages.

All that is wrong is found here, before the first step and before a file is written: what the plan found is told together with
what is wrong in the rows, before any weight is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .bilstm_student import build_bilstm
from .checkpoint import Model, checked_weights
from .data.batches import TrainBatches, length_buckets
from .data.tasks import Examples, check_files
from .data.tokenize import Tokenizer
from .data.word_vocabulary import WordTokenizer
from .engine import unheard
from .errors import DataError, Errors, RecipeError
from .fit import same_inputs
from .hub_names import is_hub_name
from .kept_words import KeptWords, check_texts, keep_used
from .losses.base import TermContext
from .model_inputs import trained_length
from .model_sections import WordsSection
from .objective import Teachers
from .plan import START, Plan, plan, words_problems_of
from .projections import load_projections
from .recipe import Recipe
from .recipe_examples import read_examples, tokenize_examples
from .recipe_tokenizers import teacher_key, words_of
from .stage_problems import apart, stage_problems
from .stages import Stage, build_objective
from .student import build_student
from .task_data import TaskData
from .term_context import term_context
from .text_pairs import pairs_to_score
from .vocabulary_fit import vocabulary_notes
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
    compiles: bool = False
    """Whether the engine compiles each shape of a batch."""
    share: Share = ALL
    """Which parts of each step this process computes."""
    _stages: dict[int, Stage] = field(default_factory=dict, init=False, repr=False)

    def stage(self, index: int) -> Stage:
        """A stage of the recipe, which is built when it is first asked for."""
        if index not in self._stages:
            self._stages[index] = self._build(index)
        return self._stages[index]

    def _build(self, index: int) -> Stage:
        section = self.recipe.stages[index]
        train, config = section.train, self.student.config
        config = config if train.dropout is None else config.with_dropout(train.dropout)
        objective = build_objective(section, dataclasses.replace(self.context, student=config), self.teacher_options)
        # The first stage's order is that of a recipe with one stage.
        seed = self.recipe.seed if index == 0 else (self.recipe.seed, index)
        one_length = any(term.counts_padding for term in section.objective)
        cut = train.batch_size, train.gradient_accumulation, self.buckets(index), seed
        if self._stages:
            batches = next(iter(self._stages.values())).batches.otherwise(*cut, one_length)
        else:
            examples, tokens = self.data.examples["train"], self.data.tokens["train"]
            labels = examples.labels if tokens.targets is None and tokens.spans is None else None
            mask, weights = examples.label_mask, examples.weights
            if tokens.examples is not None:  # a text may have several windows
                mask, weights = (own if own is None else own[tokens.examples] for own in (mask, weights))
            given = tokens, labels, *cut, mask, one_length, self.share, weights
            batches = TrainBatches(*given)
            if "train" in self.data.masks:
                batches.attach_masks(self.data.masks["train"])
        if self.compiles and train.length_buckets is None and all(data is self.data for data in self.teacher_data.values()):
            batches = batches.with_few_lengths(train.total_steps(batches.steps_per_epoch))
        return Stage(section, index, config, objective, batches)

    def buckets(self, index: int) -> tuple[int, ...]:
        """The lengths that a stage pads to."""
        chosen = self.recipe.stages[index].train.length_buckets
        return self.data.buckets if chosen is None else length_buckets(self.data.buckets[-1], None, chosen)

    @property
    def teacher_options(self) -> Teachers:
        """How the recipe wants its teachers."""
        weights = {name: section.weight for name, section in self.recipe.all_teachers.items()}
        total = sum(weights.values())
        shares = {name: weight / total for name, weight in weights.items()}
        return Teachers(shares, self.recipe.teacher_dropout)


def prepare(recipe: Recipe, source: str, length_step: int | None) -> Job:
    """Plan a recipe and load it. Raises CrossdistilError with all that is wrong, not only the first."""
    return load(plan(recipe, source), length_step)


def load(found: Plan, length_step: int | None, weights: bool = True, doing: Callable[[str], None] = unheard) -> Job:
    """Read rows and weights of a plan; `length_step` is the engine's. Without `weights` none is read: then the student has none,
    and nobody has looked at the teachers'. Raises CrossdistilError with all that is wrong, not only the first; what is wrong with
    the weights is found where nothing else is. `doing` is told what begins."""
    recipe, source, spec = found.recipe, found.source, found.spec
    doing(f"reading the texts in {recipe.task.data}")
    examples, errors = check_rows(found)
    tokenizer, student = found.tokenizer, found.student
    if recipe.student.is_bilstm and student is not None and examples is not None:
        tokenizer = errors.collect(words_of, recipe, source, examples["train"])
        student = errors.collect(_bilstm, found, tokenizer) if found.trains else student
        if None not in (tokenizer, student, found.context):
            context = dataclasses.replace(found.context, student=student.config)
            problems = stage_problems(recipe, context, apart(tokenizer, found.teacher_tokenizers))
            _collect_new(errors, source, problems, found.problems)
    errors.throw()
    trims, kept = recipe.student.init.vocabulary == "trimmed", None
    teachers, tokenizers, projections = found.teachers, found.teacher_tokenizers, {}
    if weights:
        doing("reading the weights")
        teachers = _checked_teachers(found)
        if found.trains and not trims:
            student, projections = _with_weights(found, student, teachers, tokenizer)
    length, buckets = _student_length(recipe, length_step)
    doing(f"tokenizing {sum(map(len, examples.values())):,} texts" if examples else "tokenizing the texts")
    data = tokenize_examples(spec, recipe, tokenizer, buckets, examples, length)
    if trims:
        check_texts(source, examples)
        kept = keep_used(tokenizer, student.config, data.tokens)
    if kept is not None:
        whole, tokenizer = data, kept.tokenizer
        data = tokenize_examples(spec, recipe, tokenizer, buckets, examples, length)
        kept.check_same(whole.tokens, data.tokens, examples)
        teachers, tokenizers, student = _with_kept(found, kept, teachers, student)
    if weights and found.trains and trims:  # whose rows are only known now
        student, projections = _with_weights(found, student, teachers, tokenizer, kept)
    context = term_context(spec, student, teachers, examples, recipe.file_teachers, recipe.rerankers)
    own = length_buckets(recipe.task.max_length, length_step)
    same: dict[str, TaskData] = {tokenizer.fingerprint: data}
    teacher_data = {}
    for name, other in tokenizers.items():
        if name in recipe.rerankers:
            longest = trained_length(teachers[name])
            teacher_data[name] = pairs_to_score(spec, other, length_buckets(longest, length_step), examples, longest)
            continue
        if other.fingerprint not in same:
            same[other.fingerprint] = tokenize_examples(spec, recipe, other, own, examples, recipe.task.max_length)
        teacher_data[name] = same[other.fingerprint]
    notes = _notes(recipe, tokenizer, tokenizers, teachers, student, spec.reads_pairs)
    notes = notes if kept is None else (*notes, kept.note())
    return Job(recipe, context, data, student, teachers, teacher_data, projections, notes, length_step is None)


def _with_kept(
    found: Plan, kept: KeptWords, teachers: dict[str, Model], student: Model
) -> tuple[dict[str, Model], dict[str, Tokenizer], Model]:
    """Teachers, their tokenizers and the student with the words that are kept. Raises RecipeError where a teacher whose weights
    are elsewhere, and which stays as it is, is asked for more than logits."""
    tokenizers = dict(found.teacher_tokenizers)
    with_kept = {
        name: kept.of(teacher) if tokenizers[name].fingerprint == kept.whole.fingerprint else teacher
        for name, teacher in teachers.items()
    }
    tokenizers |= {name: kept.tokenizer for name, teacher in with_kept.items() if teacher is not teachers[name]}
    student = dataclasses.replace(kept.of(student), whole_vocabulary=None)
    if found.context is not None:
        configs = {name: teacher.config for name, teacher in with_kept.items()}
        context = dataclasses.replace(found.context, student=student.config, teachers=configs)
        errors = Errors()
        problems = stage_problems(found.recipe, context, apart(kept.tokenizer, tokenizers))
        _collect_new(errors, found.source, problems, found.problems)
        errors.throw()
    return with_kept, tokenizers, student


def check_rows(found: Plan) -> tuple[dict[str, Examples] | None, Errors]:
    """The examples by split, for raw text none and None where they cannot be had; and all that is wrong, with them, in the plan,
    or with what the stages want of them: first what concerns the data."""
    recipe, spec, rows, counted = found.recipe, found.spec, Errors(), Errors()
    if spec is None:
        examples = None
        if not is_hub_name(recipe.task.data):  # that cannot be had
            rows.collect(check_files, recipe.task)
    else:
        examples = rows.collect(read_examples, recipe, spec)
    context = found.context
    if examples and context is not None and (context.labels is not None or spec.ranked is not None or context.files):
        counts = term_context(spec, examples=examples)
        known = {key: getattr(counts, key) for key in ("label_counts", "labelled", "target_range")}
        context = dataclasses.replace(context, **known)
        problems = stage_problems(recipe, context, apart(found.tokenizer, found.teacher_tokenizers))
        _collect_new(counted, found.source, problems, found.problems)
    of_data = [error for error in found.errors if isinstance(error, DataError)]
    others = [error for error in found.errors if not isinstance(error, DataError)]
    return examples, Errors([*of_data, *rows, *others, *counted])


def _collect_new(errors: Errors, source: str, problems: list[str], told: list[str]) -> None:
    new = [problem for problem in problems if problem not in told]
    if new:
        errors.append(RecipeError(source, new))


def _bilstm(found: Plan, tokenizer: WordTokenizer | None) -> Model | None:
    """The student that has the words of the training texts."""
    recipe, spec = found.recipe, found.spec
    if tokenizer is None:
        return None
    outputs, pairs = found.student.outputs, spec.text_pair is not None
    student, problems = build_bilstm(recipe.student, tokenizer, pairs, outputs, spec.label_names, recipe.seed, spec.kind)
    if problems:
        raise RecipeError(found.source, problems)
    return student


def _checked_teachers(found: Plan) -> dict[str, Model]:
    """The teachers, once every byte of their weights was looked at."""
    errors, recipe = Errors(), found.recipe
    teachers = {
        name: errors.collect(checked_weights, teacher, teacher_key(recipe, name)) for name, teacher in found.teachers.items()
    }
    read = {name: teacher for name, teacher in teachers.items() if teacher is not None}
    problems = [problem for name, teacher in read.items() for problem in words_problems_of(recipe, name, teacher)]
    _collect_new(errors, found.source, problems, [])
    errors.throw()
    return teachers


def _with_weights(
    found: Plan,
    student: Model,
    teachers: dict[str, Model],
    tokenizer: Tokenizer | WordTokenizer,
    kept: KeptWords | None = None,
) -> tuple[Model, dict[str, np.ndarray]]:
    """The student with its first weights, and the projections that come with them."""
    recipe, spec = found.recipe, found.spec
    start = recipe.student.init.source
    if not recipe.student.is_bilstm:
        first = next(iter(teachers.values()), None)
        own = None if start in ("teacher", "random") else checked_weights(found.start, START)
        if kept is not None and own is not None:
            own = kept.of(own)
        given = student.outputs, student.labels, recipe.seed, spec.kind, tokenizer.vocab_size
        pooling = getattr(student.config, "pooling", None)
        student, problems = build_student(recipe.student, first, *given, start=own, pooling=pooling)
        if problems:
            raise RecipeError(found.source, problems)
    return student, {} if start in ("teacher", "random") else load_projections(Path(start))


def _notes(
    recipe: Recipe,
    tokenizer: Tokenizer | WordTokenizer,
    teacher_tokenizers: dict[str, Tokenizer],
    teachers: dict[str, Model],
    student: Model,
    pairs: bool,
) -> tuple[str, ...]:
    lines = [*recipe.left_out, *(note for model in (*teachers.values(), student) for note in model.notes)]
    for name, teacher in teachers.items():
        scores = pairs or name in recipe.rerankers
        lines += vocabulary_notes(teacher_key(recipe, name), teacher.config, teacher_tokenizers[name], scores)
        known = trained_length(teacher)
        if name in recipe.rerankers and recipe.task.embeddings is not None and recipe.task.embeddings.scored_on == "retrieval":
            told = "a reranker would have to score each query with every text"
            lines.append(f"{teacher_key(recipe, name)}: is not scored on dev: {told}")
        if teacher.kind.embeds and "max_length" in teacher.about and known < recipe.task.max_length:
            told = f"it was made for texts of up to {known} tokens, and gets up to {recipe.task.max_length}"
            lines.append(f"{teacher_key(recipe, name)}: {told}; --set task.max_length={known} cuts them as it does")
    if not any(same_inputs(teacher, student) for teacher in teachers.values()):
        lines += vocabulary_notes("student", student.config, tokenizer, pairs)
    return tuple(lines)


def with_about(model: Model, parameters: dict[str, np.ndarray], about: dict) -> Model:
    """The same model with other weights and notes."""
    own = {name: parameters[name] for name in model.parameters}
    return dataclasses.replace(model, parameters=own, about=about, new=())


def _student_length(recipe: Recipe, length_step: int | None) -> tuple[int, tuple[int, ...]]:
    """To how many tokens (or words) the student's texts are cut, and the lengths that they are padded to."""
    if recipe.student.is_bilstm:
        length = (recipe.student.words or WordsSection()).max_length
        return length, length_buckets(length, length_step)
    return recipe.task.max_length, length_buckets(recipe.task.max_length, length_step)
