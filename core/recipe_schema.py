"""What a recipe holds: its sections, what must be true of them together, and its digest.

What can only be judged with data and models at hand is checked in `core.plan`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, create_model, field_validator, model_validator
from ruamel.yaml import YAML

from .data.texts_alone import is_unlabelled
from .files import write_text
from .log_section import LogSection, log_type
from .losses.base import LossTerm
from .losses.catalogue import union_of
from .model_sections import CacheSection, StudentSection, TeacherSection
from .number_keys import FOR_DIGEST
from .plain_names import EXPECTED, is_plain_name
from .plugin_files import PluginSection, load_plugins
from .registered import Registered, RegisteredKind, RegisteredOptimizer, RegisteredSchedule, RegisteredSink
from .schedules import SCHEDULES
from .section import Section
from .shown import shown
from .stage_section import StageSection
from .task_section import AuxSection, TaskSection, task_types
from .train_section import OPTIMIZERS, TrainSection


class NotesSection(Section):
    """What is known about a method, for people; it changes nothing in a run."""

    paper: str = ""
    """Where the method is from."""
    published: str = ""
    """The paper's number and its conditions."""
    measured: str = ""
    """Ours."""


class Recipe(Section):
    """A whole recipe."""

    newer: ClassVar[tuple[str, ...]] = ("plugins",)

    _beside: tuple[str, ...] = PrivateAttr(())
    _left_out: tuple[str, ...] = PrivateAttr(())
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
            if any(stage.replacement for stage in self.stages):
                raise ValueError("a replacement needs its predecessor: give teacher.model")
            if self.student.init.source == "teacher":
                raise ValueError("student.init.from is 'teacher', but there is no teacher: give teacher.model")
        elif not self.model_teachers:
            if self.student.init.source == "teacher":
                told = "student.init.from is 'teacher', but a file of answers has no weights"
                raise ValueError(f"{told}: name a model folder, or random")
            if any(stage.replacement for stage in self.stages):
                raise ValueError("a replacement needs its predecessor, and a file of answers has no layers: give teacher.model")
            if self.teacher_cache.use == "always":
                told = "teacher_cache.use: always, but the teacher is a file, whose answers are all there"
                raise ValueError(f"{told}; leave {'use' if self.teacher_cache.top_k is None else 'use and top_k'} out")
        return self

    @model_validator(mode="after")
    def _rerankers_teach_embedders(self) -> Recipe:
        for name, section in self.all_teachers.items():
            if section.kind is not None and self.task.kind != "embeddings":
                key = "teacher.kind" if self.teacher is not None else f"teachers.{name}.kind"
                told = f"'{section.kind}' is for task.kind: embeddings, whose teacher may score pairs of texts"
                raise ValueError(f"{key}: {told}; leave it out")
            if section.kind is not None and not any(term.needs_teacher for stage in self.stages for term in stage.objective):
                key = "teacher" if self.teacher is not None else f"teachers.{name}"
                learn = "margin_mse, and similarity_kl with candidates: own, learn what it scores the pairs of triplets with"
                why = "similarity_mse learns scores of the data, since a cosine has bounds, and a reranker's score none"
                raise ValueError(f"{key}: no term learns from the reranker; {learn}; {why}")
        return self

    @model_validator(mode="after")
    def _files_are_of_use(self) -> Recipe:
        learns = any(term.needs_teacher for stage in self.stages for term in stage.objective)
        for name, section in self.file_teachers.items():
            if not learns and section.file.as_labels == "never":
                key = "teacher.file" if self.teacher is not None else f"teachers.{name}.file"
                raise ValueError(f"{key}: no term learns from a teacher; kd_ce does, and as_labels makes the answers labels")
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

    @property
    def model_teachers(self) -> dict[str, TeacherSection]:
        """Those that are models."""
        return {name: section for name, section in self.all_teachers.items() if section.model is not None}

    @property
    def file_teachers(self) -> dict[str, TeacherSection]:
        """Those that are files of answers."""
        return {name: section for name, section in self.all_teachers.items() if section.file is not None}

    @property
    def rerankers(self) -> frozenset[str]:
        """Those that score pairs, where the student embeds texts."""
        return frozenset(name for name, section in self.all_teachers.items() if section.kind is not None)

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
    def left_out(self) -> tuple[str, ...]:
        """What settings of whole mappings left out of the recipe, in words."""
        return self._left_out

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


def _only_watches(plugin: PluginSection) -> bool:
    return all(isinstance(each, RegisteredSink) for each in load_plugins([plugin]).all)


@functools.lru_cache(maxsize=16)
def recipe_type(
    terms: tuple[type[LossTerm], ...] = (),
    schedules: tuple[RegisteredSchedule, ...] = (),
    optimizers: tuple[RegisteredOptimizer, ...] = (),
    sinks: tuple[RegisteredSink, ...] = (),
    kinds: tuple[RegisteredKind, ...] = (),
) -> type[Recipe]:
    """The schema of recipes that may hold these loss terms, schedules, optimizers, sinks and kinds of tasks of plugins beside the
    catalogue's."""
    if not (terms or schedules or optimizers or sinks or kinds):
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
    log, (task, aux) = log_type(sinks), task_types(tuple(each.name for each in kinds))
    stages = (tuple[stage, ...], Field(min_length=1))
    own = {"task": (task, ...), "aux_data": (tuple[aux, ...], ()), "log": (log, log())}
    return create_model("Recipe", __base__=Recipe, stages=stages, **own)


def schema_parts(registered: Registered) -> tuple[tuple[Any, ...], ...]:
    """What plugins add to the schema, as `recipe_type` takes it."""
    kinds = RegisteredSchedule, RegisteredOptimizer, RegisteredSink, RegisteredKind
    return registered.terms, *(tuple(registered.of(kind).values()) for kind in kinds)
