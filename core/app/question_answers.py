"""The answers that a model finds to questions, each in a text of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Model
from ..data.answer_files import read_questions
from ..data.answer_format import AnswerFormat
from ..data.answer_tokens import question_table
from ..data.row_batches import Batch
from ..data.tokenize import Tokenizer
from ..model_inputs import own_columns
from ..task_data import answers_to
from ..world import World
from .given_texts import GivenTexts


def format_of(task: dict[str, Any]) -> AnswerFormat:
    """How the task of a model, as its folder describes it, reads and answers."""
    own = dict(task.get("answers") or {})
    known = {name: own[name] for name in AnswerFormat.__dataclass_fields__ if name in own}
    return AnswerFormat(*own_columns(task), **known)


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
    return [
        {
            "answer": answer.text, "start": answer.start, "end": answer.end, "score": answer.score,
            "null_score": answer.null_score, "probability": answer.probability,
        }
        for answer in answers_to(world, table, contexts, format, buckets, infer)
    ]  # fmt: skip


def read_given(path: Path, task: dict[str, Any]) -> GivenTexts:
    """The questions and contexts of a file, with their ids, whatever it says of their answers. Raises DataError."""
    found = read_questions(path, format_of(task), reads_answers=False)
    return GivenTexts(found.questions, found.contexts, found.ids, tuple(found.notes))
