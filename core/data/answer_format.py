"""How questions and their answers are read, cut into windows and scored, as a recipe's `task` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SQUAD, CMRC = "squad", "cmrc"
"""Whose script's scores: by words, or by characters."""


@dataclass(frozen=True)
class AnswerFormat:
    """What a file does not say about itself, and what is made of it."""

    question: str = "question"
    """The key of the question where a file has one question a line."""
    context: str = "context"
    answers: str = "answers"
    stride: int = 128
    question_length: int = 64
    answer_length: int = 30
    unanswerable: bool = False
    null_threshold: float = 0.0
    scores: str = "auto"
    nearest: bool = False
    """Whether an answer that is not at its place is looked for in the context."""


def format_of(task: Mapping[str, Any]) -> AnswerFormat:
    """How the task of a model, as its folder describes it, reads and answers."""
    own = dict(task.get("answers") or {})
    known = {name: own[name] for name in AnswerFormat.__dataclass_fields__ if name in own}
    names = task.get("text") or AnswerFormat.question, task.get("text_pair") or AnswerFormat.context
    return AnswerFormat(*names, **known)
