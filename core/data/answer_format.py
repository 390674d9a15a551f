"""How questions and their answers are read, cut into windows and scored, as a recipe's `task` says."""

from __future__ import annotations

from dataclasses import dataclass

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
