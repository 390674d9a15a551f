"""All loss terms by name: what a recipe's `objective` may hold."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import Field

from . import (
    attention,
    candidate_lists,
    candidate_scores,
    hard_label,
    hidden,
    logits,
    relations,
    sentence_similarities,
    sentence_vectors,
    word_losses,
)
from .base import LossTerm

TERMS: tuple[type[LossTerm], ...] = (
    hard_label.HardLabel,
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
    word_losses.MaskedLanguageModel,
    word_losses.CausalLanguageModel,
    word_losses.WordDivergence,
    word_losses.WordMeanSquaredError,
    sentence_vectors.SentenceMeanSquaredError,
    sentence_vectors.SentenceCosine,
    sentence_vectors.SimilarityMeanSquaredError,
    sentence_similarities.MarginMeanSquaredError,
    sentence_similarities.SimilarityDivergence,
    sentence_similarities.Contrastive,
    candidate_scores.RankingCrossEntropy,
    candidate_scores.RankingMeanSquaredError,
    candidate_lists.RankingMargin,
    candidate_lists.RankNet,
    candidate_lists.LambdaRank,
    candidate_lists.ListNet,
)

LOSSES: dict[str, type[LossTerm]] = {term.model_fields["loss"].annotation.__args__[0]: term for term in TERMS}


def union_of(own: tuple[type[LossTerm], ...] = ()) -> Any:
    """The type of a term in a recipe: all of these, and a recipe's own."""
    return Annotated[Union[TERMS + own], Field(discriminator="loss")]  # noqa: UP007 - a union of what the tuple holds


Term = union_of()
