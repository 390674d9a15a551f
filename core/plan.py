"""A recipe resolved from configurations, vocabularies and headers of files, before any weight or row is read: its task, its
models, its student, and all that does not fit between them, found together. `core.job` loads the rest.

Only where a recipe does not name a task's labels is anything read of its rows: the labels of train, which nothing else tells.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .bilstm_student import plan_bilstm
from .checkpoint import Model, embedder, open_model
from .config_file import load_config
from .data.embedding_tasks import assumed_task
from .data.ranking_tasks import assumed_ranking
from .data.tasks import TaskSpec, resolve_task
from .data.tokenize import Tokenizer, load_tokenizer
from .data.word_vocabulary import WordTokenizer
from .errors import CrossdistilError, DataError, Errors, RecipeError
from .fit import fit_problems, length_problems, same_inputs, teacher_problems, window_problems, words_problems
from .kept_words import trimming_problems
from .kinds.known_kinds import ONE_CLASS, RANKING, kind_named
from .losses.base import TermContext
from .models.pooling import Pooling
from .projections import projection_shapes
from .recipe import Recipe
from .recipe_tokenizers import check_start, keyed_tokenizer, student_tokenizer, teacher_key
from .sentence_folder import MODULES
from .stage_problems import apart, projection_problems, stage_problems
from .stored_tensors import NamedTensors
from .student import plan_student, pooling_of
from .term_context import term_context
from .vocabulary_fit import types_problems, vocabulary_problems

START = "student.init.from"
"""The recipe's key of the model that a student starts from, where it is none of the teachers."""


@dataclass
class Found:
    """Where the models and data of a recipe are, as far as they are."""

    recipe: Recipe
    """With the folders that stand for what it names."""
    failures: Mapping[str, CrossdistilError] = field(default_factory=dict)
    """The recipe's key of a model, or `task.data` -> why it cannot be had."""
    models: Mapping[str, Model] = field(default_factory=dict)
    """The recipe's key of a model -> what is known of it; of the others the headers are read."""
    assumed: frozenset[str] | None = None
    """The keys of those that are not there, for which others stand. None: all have to be there, and the task too."""


@dataclass
class Plan:
    """What is known of a recipe, and what is wrong with it."""

    recipe: Recipe
    source: str
    """What errors call the recipe."""
    trains: bool
    """Whether the student is wanted with its weights, and not only its teachers."""
    spec: TaskSpec | None
    teachers: dict[str, Model | None]
    """No weight of them has been read; None where a model is not there or damaged."""
    start: Model | None
    """The model whose weights the student starts from."""
    student: Model | None
    """With the names of its tensors alone. A BiLSTM has as many words as there may be."""
    tokenizer: Tokenizer | WordTokenizer | None
    """The student's; None of a BiLSTM, whose words are those of the training texts."""
    teacher_tokenizers: dict[str, Tokenizer | None]
    context: TermContext | None
    """What the terms of the stages may ask, but for the counts of labels; None where models or task are not known."""
    errors: Errors

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each; with the recipe itself as `path.to.key: why`."""
        lines = [each.problems if isinstance(each, RecipeError) else str(each).splitlines() for each in self.errors]
        return [line for own in lines for line in own]


def plan(recipe: Recipe, source: str, trains: bool = True, found: Found | None = None) -> Plan:
    """Resolve a recipe; `source` names it in errors. What is wrong is in the plan's `errors`, and nothing is raised for it.
    Without `trains` its student need not be there."""
    found = found or Found(recipe)
    return _Planner(found, source, trains).plan()


class _Planner:
    """Each part is made of those before it, as far as they could be made."""

    def __init__(self, found: Found, source: str, trains: bool):
        self._found, self._recipe, self._source, self._trains = found, found.recipe, source, trains
        self._errors = Errors()
        self._load = functools.cache(load_tokenizer)
        self._assumed = found.assumed or frozenset()

    def plan(self) -> Plan:
        recipe, errors = self._recipe, self._errors
        spec = self._task()
        teachers = {
            name: self._model(section.model, teacher_key(recipe, name), spec, name in recipe.rerankers)
            for name, section in recipe.model_teachers.items()
        }
        known = {name: teacher for name, teacher in teachers.items() if teacher is not None}
        complete = len(known) == len(teachers)
        first = next(iter(teachers.values()), None)
        tokenizer = errors.collect(self._student_tokenizer, teachers)
        start = self._start(first, spec)
        student = errors.collect(self._student, spec, first, start, tokenizer)
        tokenizers = {
            name: errors.collect(keyed_tokenizer, teacher_key(recipe, name), recipe.model_teachers[name].model, self._load)
            for name, teacher in known.items()
            if is_there(teacher)
        }
        others = False
        if start is not None and is_there(start):
            others = not errors.collect(check_start, recipe, self._source, tokenizer, self._load)
        context = None
        if student is not None and complete and (spec is not None or self._found.assumed is not None):
            context = term_context(spec, student, known, files=recipe.file_teachers, rerankers=recipe.rerankers)
        fits = errors.collect(self._check_fit, spec, tokenizer, tokenizers, known if complete else {}, student, context, others)
        projections = errors.collect(self._projections, student) or {}
        if context is not None and fits:
            errors.collect(self._check_projections, context, projections)
        models = teachers, start, student
        return Plan(recipe, self._source, self._trains, spec, *models, tokenizer, tokenizers, context, errors)

    def _task(self) -> TaskSpec | None:
        recipe = self._recipe
        if "task.data" in self._found.failures:
            self._errors.append(self._found.failures["task.data"])
            return None
        if self._found.assumed is not None:  # without its files, a task of two classes is assumed
            with contextlib.suppress(DataError):
                return resolve_task(recipe.task, recipe.registered, bool(recipe.file_teachers))
            kind = kind_named(recipe.task.kind)
            return assumed_task(recipe.task) if kind.embeds else assumed_ranking(recipe.task) if kind.ranks else None
        spec = self._errors.collect(resolve_task, recipe.task, recipe.registered, bool(recipe.file_teachers))
        if spec is None and recipe.task.metrics is not None:  # what else is wrong does not hang on them
            with contextlib.suppress(CrossdistilError):
                spec = resolve_task(recipe.task.model_copy(update={"metrics": None}), recipe.registered)
        return spec

    def _model(self, folder: Path, key: str, spec: TaskSpec | None, reranks: bool = False) -> Model | None:
        if key in self._found.failures:
            self._errors.append(self._found.failures[key])
            return None
        if key in self._found.models:
            return self._found.models[key]
        kind = RANKING if reranks else ONE_CLASS if spec is None else spec.kind
        found = self._errors.collect(open_model, folder, key, kind.guesses_words, kind.head)
        how = self._recipe.task.embeddings
        if found is None or not kind.embeds or key == START or how is None or how.teacher_pooling is None:
            return found
        if found.kind.embeds:
            if (own := found.config.pooling.mode) != how.teacher_pooling:
                told = f"got {how.teacher_pooling}, but {folder / MODULES} says {own}; it is for a folder that does not say it"
                self._errors.append(RecipeError(self._source, [f"task.embeddings.teacher_pooling: {told}"]))
            return found
        return embedder(found, Pooling(how.teacher_pooling))

    def _student_tokenizer(self, teachers: dict[str, Model | None]) -> Tokenizer | WordTokenizer | None:
        first, own = next(iter(teachers.values()), None), self._recipe.student.tokenizer
        if self._found.assumed is not None and own is not None and not own.exists():
            return None
        if own is None:
            if (first is None or not is_there(first)) if teachers else self._starts_elsewhere:
                return None  # that the model is not there is told, or known
        return student_tokenizer(self._recipe, self._source, self._load)

    @property
    def _starts_elsewhere(self) -> bool:
        """Whether the folder of `student.init.from` is not there."""
        model = self._found.models.get(START)
        return START in self._found.failures or (model is not None and not is_there(model))

    def _start(self, first: Model | None, spec: TaskSpec | None) -> Model | None:
        section = self._recipe.student
        if section.is_bilstm or section.init.source == "random":
            return None
        if section.init.source == "teacher":
            return first
        if not self._trains:  # then it is only asked what kind of model it would be
            config = self._errors.collect(load_config, Path(section.init.source), START)
            return None if config is None else Model(config, NamedTensors(), None)
        return self._model(Path(section.init.source), START, spec)

    def _student(
        self, spec: TaskSpec | None, first: Model | None, start: Model | None, tokenizer: Tokenizer | WordTokenizer | None
    ) -> Model | None:
        """The student, or None where it would start from a model that is not there."""
        recipe, section = self._recipe, self._recipe.student
        if recipe.model_teachers and first is None and section.init.source in ("teacher", "random"):
            return None
        # Without a task the head does not matter: the student is only made to find what else is wrong with it.
        outputs, labels = (2, None) if spec is None else (term_context(spec).outputs, spec.label_names)
        kind = ONE_CLASS if spec is None else spec.kind
        if section.is_bilstm:
            if not kind.has_targets or kind.over_tokens or not kind.one_row:
                problem = f"student: a BiLSTM learns labels or logits of whole texts, but task.kind is '{recipe.task.kind}'"
                raise RecipeError(self._source, [problem])
            pairs = spec is not None and spec.text_pair is not None
            student, problems = plan_bilstm(section, pairs, outputs, labels, kind)
        else:
            if start is None and section.init.source not in ("teacher", "random"):
                return None
            size = None if tokenizer is None else tokenizer.vocab_size
            like = next((model.config for model in (start, first) if model is not None), None)
            own = start if self._trains else None
            pooling = pooling_of(recipe.task, start, first) if kind.embeds else None
            student, problems = plan_student(section, like, own, outputs, labels, kind, size, self._free(), pooling)
        if problems:
            self._errors.append(RecipeError(self._source, problems))
        return student

    def _free(self) -> frozenset[str]:
        """What need not fit of the model that the student starts from, because that is only assumed."""
        init, teachers = self._recipe.student.init.source, list(self._recipe.model_teachers)
        if init == "teacher":
            return frozenset({"sizes"} if teachers and teacher_key(self._recipe, teachers[0]) in self._assumed else ())
        return frozenset({"sizes", "layers"} if START in self._assumed else ())

    def _check_fit(
        self,
        spec: TaskSpec | None,
        tokenizer: Tokenizer | WordTokenizer | None,
        tokenizers: Mapping[str, Tokenizer | None],
        teachers: Mapping[str, Model],
        student: Model | None,
        context: TermContext | None,
        others: bool,
    ) -> bool:
        """True if those parts that could be made fit each other. `others` is whether the student starts from weights of other
        words than its tokenizer's, which is told already: how many there are then says nothing."""
        recipe, problems = self._recipe, []
        for name, teacher in teachers.items():
            if is_there(teacher):
                key = teacher_key(recipe, name)
                if spec is not None and spec.kind.has_targets:
                    problems += teacher_problems(teacher, spec, f"{key} ({teacher.source})", name in recipe.rerankers)
                problems += words_problems_of(recipe, name, teacher)
                if tokenizers.get(name) is not None:
                    given = key, teacher.config, tokenizers[name]
                    problems += vocabulary_problems(*given) if name in recipe.rerankers else fit_problems(*given, recipe.task)
        if student is not None:
            problems += trimming_problems(recipe, student.config, spec is not None and spec.kind.guesses_words)
        first = next(iter(teachers.values()), None)
        if tokenizer is not None and student is not None and "sizes" not in self._free():
            if first is None or not same_inputs(first, student):
                problems += [] if others else vocabulary_problems("student", student.config, tokenizer)
                problems += length_problems("student", student.config, recipe.task)
        if tokenizer is not None and student is not None and spec is not None and spec.reads_pairs:
            problems += types_problems("student", student.config, tokenizer)
        if tokenizer is not None and spec is not None and spec.kind.per_token:
            problems += window_problems(tokenizer, recipe.task)
        if context is not None:
            problems += stage_problems(recipe, context, apart(tokenizer, tokenizers))
        elif spec is not None and not recipe.model_teachers:
            problems += stage_problems(recipe, term_context(spec, files=recipe.file_teachers), [], 1)
        if problems:
            raise RecipeError(self._source, problems)
        return True

    def _projections(self, student: Model | None) -> dict[str, tuple[int, ...]]:
        start = self._recipe.student.init.source
        if student is None or not self._trains or start in ("teacher", "random") or self._starts_elsewhere:
            return {}
        return projection_shapes(Path(start))

    def _check_projections(self, context: TermContext, projections: dict[str, tuple[int, ...]]) -> None:
        conflicts = projection_problems(self._recipe.stages, context, projections)
        if conflicts:
            raise RecipeError(self._source, conflicts)


def is_there(model: Model) -> bool:
    """Whether a model has a folder with tensors, and is not only assumed or known by its configuration."""
    return model.source is not None


def words_problems_of(recipe: Recipe, name: str, teacher: Model) -> list[str]:
    """Why a teacher cannot teach which words fit, where that is asked of it."""
    if not any(term.needs_words and term.needs_teacher for stage in recipe.stages for term in stage.objective):
        return []
    return words_problems(teacher, f"{teacher_key(recipe, name)} ({teacher.source})")
