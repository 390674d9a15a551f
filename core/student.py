"""The student's architecture and first weights, from the recipe and the models that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from .checkpoint import Model, load_model
from .kinds.kind import Kind
from .kinds.known_kinds import ONE_CLASS
from .model_sections import StudentSection
from .models.architectures import CONFIGURATIONS, Config, is_encoder, model_type, tensor_shapes
from .models.head_classes import other_words
from .models.known_families import answer_families, plugin_hint, token_families
from .models.pooling import Pooling
from .models.transfer import can_transfer, transferred
from .recipe_errors import describe
from .shown import shown
from .stored_tensors import NO_WEIGHTS, NamedTensors, StoredTensors
from .student_layers import chosen_layers, copied, layer_notes, other_architecture, size_problems
from .task_section import TaskSection


def build_student(
    section: StudentSection,
    teacher: Model | None,
    outputs: int | None,
    labels: tuple[str, ...] | None,
    seed: int,
    kind: Kind = ONE_CLASS,
    vocabulary: int | None = None,
    start: Model | None = None,
    pooling: Pooling | None = None,
) -> tuple[Model | None, list[str]]:
    """The student before training, or the problems that forbid it, each as `path: message`. `outputs` None is an encoder
    without a head; of a `kind` that guesses words it predicts words. `vocabulary` is the size of its tokenizer, which decides the
    rows of its word embeddings where they are drawn and the recipe names the tokenizer. `start` is the model in the folder of
    `init.from`, which is read unless it is given; `pooling` is how the student embeds texts.

    Tensors that the source does not have, or whose meaning differs (a head of another task), are drawn anew; they are
    listed in the model's `new`.
    """
    if start is None:
        start = _source(section, teacher, kind)
    like = None if teacher is None else teacher.config
    planned, problems = plan_student(section, like, start, outputs, labels, kind, vocabulary, pooling=pooling)
    if problems:
        return None, problems
    if start is not None and start.decoder is not None:
        return None, [f"student.init.from ({start.source}): its words are predicted with a weight that is not its word "
                      "embeddings; only models whose two are one can be trained"]  # fmt: skip
    parameters = {} if start is None else dict(_taken(section, start, start.parameters, planned))
    shapes = tensor_shapes(planned.config, outputs, kind.guesses_words)
    for name in planned.new:
        parameters[name] = planned.config.new_tensor(name, shapes[name], seed)
    ordered = {name: np.array(parameters[name], np.float32) for name in shapes}
    return dataclasses.replace(planned, parameters=ordered), []


def plan_student(
    section: StudentSection,
    like: Config | None,
    start: Model | None,
    outputs: int | None,
    labels: tuple[str, ...] | None,
    kind: Kind = ONE_CLASS,
    vocabulary: int | None = None,
    assumed: frozenset[str] = frozenset(),
    pooling: Pooling | None = None,
) -> tuple[Model | None, list[str]]:
    """What `build_student` will make, with the names of its tensors alone, and what does not fit. `start` is the model that it
    starts from, of which no weight is read; `like` is a teacher's configuration; `pooling` is how it embeds texts. What is
    `assumed` is no model that is there: `sizes`, of one that only stands for it, and `layers`, where that may be a student of
    just this depth."""
    if start is not None:
        like = start.config
        if not start.has_weights:
            return None, [f"student.init.from ({start.source}): {NO_WEIGHTS}"]
    own_words = vocabulary if section.init.source == "random" and section.tokenizer is not None else None
    config, problems = student_config(section, like, own_words)
    if config is None:
        return None, problems
    if kind.over_tokens:
        known = token_families() if kind.per_token else answer_families()
        if model_type(config) not in known:
            what = "classifier of tokens" if kind.per_token else "head for answers"
            got = f"a {model_type(config)} has no {what} here"
            return None, [f"student.architecture.model_type: {got}, expected one of {', '.join(known)}"]
        config = config.answering(kind.head)
    if kind.guesses_words and is_encoder(config) and (problem := other_words(config, kind.head)):
        return None, [f"student.architecture.model_type: {problem}"]
    if kind.embeds:
        config = config.embedding(pooling or Pooling())
    shapes = tensor_shapes(config, outputs, kind.guesses_words)
    notes = () if start is None else start.notes
    student = Model(config, NamedTensors(shapes), outputs, labels, kind=kind, words=kind.guesses_words, notes=notes)
    if start is None:
        return dataclasses.replace(student, new=tuple(shapes)), []
    same = model_type(start.config) == model_type(config) or can_transfer(start.config, config)
    if not same:
        return student, [] if "sizes" in assumed else [other_architecture(start.config, config)]
    if is_encoder(config):
        layers, problems = chosen_layers(section, start.config, config, "layers" in assumed)
        student = dataclasses.replace(student, notes=(*notes, *([] if problems else layer_notes(start.config, config, layers))))
    if "sizes" not in assumed:
        problems += size_problems(section, start.config, config)
    there = start.parameters
    if not problems and not isinstance(there, NamedTensors):
        if isinstance(there, StoredTensors):
            # Arrays of the right shapes that take no memory: which names there will be, not what is in them.
            there = {name: np.broadcast_to(np.float32(0), there.shape(name)) for name in there}
        taken = _taken(section, start, there, student)
        student = dataclasses.replace(student, new=tuple(name for name in shapes if name not in taken))
    return student, problems


def pooling_of(task: TaskSection, *models: Model | None) -> Pooling:
    """How the student of a recipe embeds texts: as it says, else as the first of these models that does."""
    known = next((model.config.pooling for model in models if model is not None and model.kind.embeds), Pooling())
    how = task.embeddings
    if how is None:
        return known
    return Pooling(how.pooling or known.mode, known.normalised if how.normalise is None else how.normalise)


def _taken(
    section: StudentSection, start: Model, parameters: Mapping[str, np.ndarray], student: Model
) -> Mapping[str, np.ndarray]:
    """The student's tensors that come from the model that it starts from, which has these `parameters`."""
    layers = chosen_layers(section, start.config, student.config)[0] if is_encoder(student.config) else ()
    if can_transfer(start.config, student.config):
        return transferred(start.config, parameters, student.config, layers)
    same_task = (start.outputs, start.labels) == (student.outputs, student.labels) and start.kind.can_teach(student.kind)
    return copied(start, parameters, student.config, layers, keep_head=same_task)


def _source(section: StudentSection, teacher: Model | None, kind: Kind) -> Model | None:
    if section.init.source == "teacher":
        return teacher
    if section.init.source == "random":
        return None
    return load_model(Path(section.init.source), "student.init.from", kind.guesses_words, kind.head)


def student_config(
    section: StudentSection, like: Config | None, vocabulary: int | None = None
) -> tuple[Config | None, list[str]]:
    """The student's configuration, that of `like` with the recipe's own keys, or the problems that forbid it. `vocabulary` is
    the size of a tokenizer that is not that of `like`."""
    kind = section.architecture.get("model_type", "bert" if like is None else model_type(like))
    if kind not in CONFIGURATIONS:
        known = ", ".join(CONFIGURATIONS)
        return None, [f"student.architecture.model_type: unknown architecture {shown(kind)}; known: {known}{plugin_hint(kind)}"]
    chosen = CONFIGURATIONS[kind]
    base: dict[str, Any] = {} if like is None else chosen.keys_like(like)
    if vocabulary is not None:
        base["vocab_size"] = vocabulary
    if "family" in section.architecture and "family" not in chosen.model_fields:
        return None, ["student.architecture.family: unknown key; did you mean 'model_type'?"]
    keys = {chosen.own_key(key): value for key, value in section.architecture.items() if key != "model_type"}
    if like is not None and like.family is chosen.family and is_encoder(like):
        layers = None if section.init.source == "random" else section.init.layers
        base |= chosen.keys_for_layers(like, keys.get(chosen.own_key("num_hidden_layers"), like.num_hidden_layers), layers)
    try:
        return chosen(**{**base, **keys}), []
    except ValidationError as error:
        return None, describe(error, chosen, "student.architecture")
