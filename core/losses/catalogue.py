"""All loss terms by name: what a recipe's `objective` may hold."""

from __future__ import annotations

from typing import Annotated, Union

from pydantic import Field

from . import attention, hidden, logits, relations, words
from .base import LossTerm

TERMS: tuple[type[LossTerm], ...] = (
    logits.HardLabel,
    logits.KnowledgeDistillationCrossEntropy,
    logits.KnowledgeDistillationMeanSquaredError,
    logits.KnowledgeDistillationMultiLabel,
    hidden.HiddenMeanSquaredError,
    hidden.EmbeddingMeanSquaredError,
    hidden.HiddenCosine,
    hidden.PatientKnowledgeDistillation,
    hidden.MaximumMeanDiscrepancy,
    hidden.FlowOfSolutionProcedure,
    attention.AttentionMeanSquaredError,
    attention.AttentionSumMeanSquaredError,
    attention.AttentionCrossEntropy,
    attention.AttentionMeanCrossEntropy,
    attention.AttentionScoreMeanSquaredError,
    relations.AttentionDivergence,
    relations.ValueRelationDivergence,
    relations.SelfRelationDivergence,
    words.MaskedLanguageModel,
    words.WordDivergence,
    words.WordMeanSquaredError,
)

LOSSES: dict[str, type[LossTerm]] = {term.model_fields["loss"].annotation.__args__[0]: term for term in TERMS}

Term = Annotated[Union[TERMS], Field(discriminator="loss")]  # noqa: UP007 - a union of what the tuple holds
