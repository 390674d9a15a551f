"""The answers that a model finds to questions, each in a text of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..checkpoint import Model
from ..data.answer_format import format_of
from ..data.answer_tokens import question_table
from ..data.row_batches import Batch
from ..data.tokenize import Tokenizer
from ..model_answers import answers_to
from ..world import World


def answers_in(
    model: Model,
    tokenizer: Tokenizer,
    infer: Callable[[Batch], list[np.ndarray]],
    questions: Sequence[str],
    contexts: Sequence[str],
    length: int,
    buckets: tuple[int, ...],
    world: World,
) -> list[dict[str, Any]]:
    """The answer to each question, as `predict` says it; `length` is the tokens of a window."""
    format = format_of(model.about.get("task", {}))
    table = question_table(questions, contexts, None, tokenizer, length, format)
    return [answer.said() for answer in answers_to(world, table, contexts, format, buckets, infer)]
