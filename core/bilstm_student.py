"""The BiLSTM as a student: from the words of its tokenizer, with vectors of a file where the recipe has one."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from .checkpoint import Model
from .data.word_vocabulary import WordTokenizer, word_vectors
from .kinds.kind import Kind
from .kinds.known_kinds import ONE_CLASS
from .model_sections import StudentSection, WordsSection
from .models.architectures import tensor_shapes
from .models.families.bilstm import BiLstmConfig
from .recipe_errors import describe
from .stored_tensors import NamedTensors


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
