"""The student's architecture and first weights, from the recipe and the models that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from .checkpoint import Model, load_model
from .data.word_vocabulary import WordTokenizer, word_vectors
from .kinds.kind import Kind
from .kinds.known_kinds import ONE_CLASS
from .losses.layers import even_layers
from .models.architectures import (
    CONFIGURATIONS,
    Config,
    head_names,
    is_encoder,
    layer_sources,
    model_type,
    shares_layers,
    tensor_shapes,
)
from .models.families import BiLstmConfig
from .models.head_classes import other_words
from .models.known_families import answer_families, plugin_hint, token_families
from .models.parts import LAYER
from .models.pooling import Pooling
from .models.transfer import can_transfer, transferred
from .models.tree import encoder_sizes
from .recipe_errors import describe
from .sections import AFRESH, StudentSection, WordsSection
from .shown import shown
from .stored_tensors import NO_WEIGHTS, NamedTensors, StoredTensors
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
        layers, problems = _layers(section, start.config, config, "layers" in assumed)
        student = dataclasses.replace(student, notes=(*notes, *([] if problems else _layer_notes(start.config, config, layers))))
    if "sizes" not in assumed:
        problems += _size_problems(section, start.config, config)
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
    layers = _layers(section, start.config, student.config)[0] if is_encoder(student.config) else ()
    if can_transfer(start.config, student.config):
        return transferred(start.config, parameters, student.config, layers)
    same_task = (start.outputs, start.labels, start.kind) == (student.outputs, student.labels, student.kind)
    return _copied(start, parameters, student.config, layers, keep_head=same_task)


def plan_bilstm(
    section: StudentSection, pairs: bool, outputs: int, labels: tuple[str, ...] | None, kind: Kind = ONE_CLASS
) -> tuple[Model | None, list[str]]:
    """What `build_bilstm` will make, with as many words as there may be."""
    given = {"vocab_size": (section.words or WordsSection()).vocabulary, "pairs": pairs}
    config, problems = _bilstm_config(section, given)
    if config is None:
        return None, problems
    shapes = tensor_shapes(config, outputs)
    return Model(config, NamedTensors(shapes), outputs, labels, tuple(shapes), kind=kind), []


def _bilstm_config(section: StudentSection, given: dict[str, Any]) -> tuple[BiLstmConfig | None, list[str]]:
    try:
        return BiLstmConfig(**{**section.architecture, **given}), []
    except ValidationError as error:
        return None, describe(error, BiLstmConfig, "student.architecture")


def build_bilstm(
    section: StudentSection,
    tokenizer: WordTokenizer,
    pairs: bool,
    outputs: int,
    labels: tuple[str, ...] | None,
    seed: int,
    kind: Kind = ONE_CLASS,
) -> tuple[Model | None, list[str]]:
    """A BiLSTM over the words of `tokenizer`, or the problems that forbid it. Its embeddings start from word vectors where
    the recipe has a file of them; `init.from` is a BiLSTM's folder, else it starts at random."""
    given = {"vocab_size": tokenizer.vocab_size, "pairs": pairs, "pad_token_id": tokenizer.pad_id}
    config, problems = _bilstm_config(section, given)
    if config is None:
        return None, problems
    shapes = tensor_shapes(config, outputs)
    parameters = {name: config.new_tensor(name, shape, seed) for name, shape in shapes.items()}
    if section.words is not None and section.words.vectors is not None:
        table, _ = word_vectors(section.words.vectors, tokenizer, parameters["embeddings.weight"])
        parameters["embeddings.weight"] = table
    return Model(config, parameters, outputs, labels, tuple(shapes), kind=kind), []


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


def _layers(
    section: StudentSection, source: Config, config: Config, assumed: bool = False
) -> tuple[tuple[int, ...], list[str]]:
    """The layers that the student takes, and what is wrong with them; of an `assumed` source it may be all."""
    available, wanted = source.num_hidden_layers, config.num_hidden_layers
    layers = section.init.layers
    if shares_layers(config):
        return (), shared_layers_problems(layers)
    if layers is None and (assumed or wanted == available):
        return tuple(range(available)), []
    return layers or (), layer_problems(layers, available, wanted)


def layer_problems(layers: tuple[int, ...] | None, available: int, wanted: int) -> list[str]:
    """What does not fit between the layers that a student of `wanted` layers starts from and a source that has `available`."""
    if layers is None:
        name = f", so name {wanted} of 0 to {available - 1} (counted from 0)" if wanted <= available else ""
        problems = [f"student.init.layers: missing; the source has {available} layers and the student {wanted}{name}"]
    else:
        problems = [
            f"student.init.layers: layer {layer} does not exist; the source has layers 0 to {available - 1} (counted from 0)"
            for layer in layers
            if not 0 <= layer < available
        ]
        if len(layers) != wanted:
            problems.append(f"student.init.layers: {len(layers)} layers for a student with num_hidden_layers {wanted}")
    if problems:
        # A student that is deeper than its source can only be made less deep.
        fewer = wanted if wanted < available else max(1, available // 2)
        settings = [f"--set 'student.init.layers={even_layers(available, fewer)}'"]
        settings += [f"--set student.architecture.num_hidden_layers={fewer}"] if fewer != wanted else []
        problems[-1] += f"; for example {' '.join(settings)}"
    return problems


def _layer_notes(source: Config, config: Config, layers: tuple[int, ...]) -> list[str]:
    """What to know of the layers that a student takes: all are low ones, or one has a part that its own lacks, or lacks one."""
    notes = _shallow_notes(source.num_hidden_layers, layers)
    if source.family is not config.family:
        return notes
    for own, taken in enumerate(layers):
        parts = {part.name: (part.is_there(config, own), part.is_there(source, taken)) for part in config.family.at(LAYER)}
        for name, (wanted, given) in parts.items():
            if wanted != given:
                what = f"which has no {name}: it is left out" if given else f"whose {name} it has not: it is drawn anew"
                notes.append(f"student.init.layers: layer {taken} of the source becomes the student's layer {own}, {what}")
    return notes


def _shallow_notes(available: int, layers: tuple[int, ...]) -> list[str]:
    """Layers of the lower half alone: mostly those of a recipe that was written for a source of fewer layers."""
    if not layers or 2 * (max(layers) + 1) > available or list(layers) == (even := even_layers(available, len(layers))):
        return []
    spread = f"--set 'student.init.layers={even}'"
    which = f"{list(layers)}: all of the lower half of the source's {available} layers (counted from 0)"
    return [f"student.init.layers: {which}; spread over all of them: {spread}"]


def other_architecture(source: Config, student: Config) -> str:
    """The problem of a student that should start from the weights of another kind of model."""
    return (
        f"student.architecture.model_type: {model_type(student)}, but the weights of student.init.from are of another "
        f"architecture, {model_type(source)}; new ones: {AFRESH}"
    )


def shared_layers_problems(layers: tuple[int, ...] | None) -> list[str]:
    """Why layers cannot be chosen where all of them are the same one; their number may differ."""
    if layers is None:
        return []
    return ["student.init.layers: the layers of an ALBERT are shared, so there is none to choose; leave out layers"]


def _size_problems(section: StudentSection, source: Config, config: Config) -> list[str]:
    if not is_encoder(config):
        return []
    keys = (*encoder_sizes(config), "num_hidden_groups", "inner_group_num")
    sizes = {config.own_key(key): key for key in keys}
    problems = [
        f"student.architecture.{own}: {getattr(config, own)}, but the weights of student.init.from "
        f"('{section.init.source}') have {getattr(source, key, 'none')}; for another size: {AFRESH}"
        for own, key in sizes.items()
        if own in type(config).model_fields and getattr(source, key, None) != getattr(config, own)
    ]
    # Sizes that follow from several keys, which tell of a difference first where they are sizes themselves.
    return problems or [
        f"student.architecture: its {own} is {getattr(config, own)}, but the weights of student.init.from "
        f"('{section.init.source}') have {getattr(source, key)}; for another size: {AFRESH}"
        for own, key in sizes.items()
        if hasattr(config, own) and hasattr(source, key) and getattr(source, key) != getattr(config, own)
    ]


def _copied(
    source: Model, parameters: Mapping[str, np.ndarray], config: Config, layers: tuple[int, ...], keep_head: bool
) -> dict[str, np.ndarray]:
    """The source's tensors under the student's names: student layer i is source layer `layers[i]`."""
    own = layer_sources(config, source.config, layers)
    head, copied = head_names(config), {}
    for name in tensor_shapes(config, 1, source.words):
        prefix = next((p for p in own if name.startswith(p)), None)
        taken = name if prefix is None else own[prefix] + name.removeprefix(prefix)
        if taken in parameters and (keep_head or name not in head):
            copied[name] = parameters[taken]
    return copied
