"""The section of a recipe that is one stage: what is minimised, what is left as it is, how it is trained."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from .losses.catalogue import Term
from .losses.presets import expand
from .models.theseus import SCHEDULES as REPLACEMENT_SCHEDULES
from .section import Section
from .train_section import TrainSection


class ReplacementSection(Section):
    """BERT-of-Theseus: encoder layers of the student stand in for modules of the teacher at random, all of them
    for good from `until` on. Before, `constant`: with probability `rate`; `linear`: with one that rises from there to 1."""

    schedule: Literal[REPLACEMENT_SCHEDULES] = "linear"  # type: ignore[valid-type]
    """How the probability of a replacement goes on."""
    rate: float = Field(0.3, ge=0, le=1)
    """The probability, or where it begins."""
    until: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Below 1 a share of the stage's steps, from 1 on a number of steps; None: the stage's end."""


PARTS = ("embeddings", "encoder", "pooler", "classifier", "words")
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


class StageSection(Section):
    """A weighted sum of loss terms and a training schedule."""

    name: str = Field(min_length=1, pattern=r"^[\w-]+$")
    """Of the stage, in logs and reports."""
    objective: tuple[Term, ...] = Field(min_length=1)
    """The terms whose weighted sum is minimised, or names of TextBrewer's matches."""
    freeze: tuple[Literal[PARTS + TABLES], ...] = ()  # type: ignore[valid-type]
    """Parts of the student, or single tables of its embeddings, that this stage leaves as they are. `words` is the head that
    predicts words; the table it predicts with is that of the embeddings."""
    replacement: ReplacementSection | None = None
    """BERT-of-Theseus: modules of the teacher are replaced by the student's."""
    train: TrainSection
    """How it is trained."""

    @field_validator("objective", mode="before")
    @classmethod
    def _expand_presets(cls, value: Any) -> Any:
        """`- L4t_hidden_mse` stands for the terms of TextBrewer's preset of that name."""
        if not isinstance(value, list):
            return value
        terms: list[Any] = []
        for item in value:
            terms += expand(item) if isinstance(item, str) else [item]
        return terms

    @field_validator("objective")
    @classmethod
    def _something_to_minimise(cls, value: tuple[Term, ...]) -> tuple[Term, ...]:
        if not any(term.weight for term in value):
            raise ValueError("every weight is 0: there is nothing to minimise")
        return value
