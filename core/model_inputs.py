"""What a model takes: up to which length, whether one text or a pair, and as which arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from .checkpoint import Model, trained_tokens
from .data.task_specs import glue_task
from .kinds.known_kinds import ANSWERS, RANKING
from .models.architectures import Config


def trained_length(model: Model, given: int | None = None) -> int:
    """To how many tokens texts are cut: as told, else as in training, else 128."""
    return given or trained_tokens(model)


def takes_pairs(task: dict[str, Any]) -> bool:
    """Whether a model with that description of its task was trained on pairs of texts."""
    return own_columns(task)[1] is not None


def own_columns(task: dict[str, Any]) -> tuple[str | None, str | None]:
    """The columns of the texts in the tables of a task, as far as its description tells them."""
    if task.get("kind") == ANSWERS.name:
        return task.get("text") or "question", task.get("text_pair") or "context"
    if task.get("kind") == RANKING.name:
        return task.get("text") or "query", task.get("text_pair") or "text"
    official = glue_task(task.get("name", ""))
    if official is None:
        return task.get("text"), task.get("text_pair")
    return task.get("text", official.text), task.get("text_pair", official.text_pair)


def inputs_of(config: Config) -> dict[str, tuple[type, tuple[str, str]]]:
    """Name -> type and sizes of what a model takes of a batch."""
    sizes = ("batch", "length")
    inputs = {"input_ids": (np.int32, sizes), "attention_mask": (np.float32, sizes)}
    if getattr(config, "pairs", False):
        return inputs | {"second_ids": (np.int32, sizes), "second_mask": (np.float32, sizes)}
    return inputs | ({"token_type_ids": (np.int32, sizes)} if getattr(config, "type_vocab_size", 0) else {})
