"""Sentence embeddings: a model answers with a vector of each text, and two texts are as alike as the cosine of their vectors.

A split to score on has pairs of texts, with a number that says how alike they are: `targets` (pairs,) float32, from 0 to 1. What
is scored are the cosines, (pairs, 1), as the one number of a regression. Or it has queries and texts among which each is to find
its own, by their cosines: then `targets` (judgements,) say how relevant the judged ones are.
"""

from __future__ import annotations

import numpy as np

from ..metrics import RANKING_METRICS, REGRESSION_METRICS
from ..models.answer_heads import EMBEDDINGS
from ..ranking_scores import list_scores
from .asked import whole_texts
from .one_number import OneNumber


class SentenceEmbeddings(OneNumber):
    """A vector of each text."""

    name, title, described = "embeddings", "sentence embedding", "one of sentence embeddings"
    head = EMBEDDINGS
    problem_type = None
    embeds = True
    default_metrics = ("spearman", "pearson")

    agreement = "mean cosine"
    endpoint = "/embed"

    def metrics(self, classes):
        return (*REGRESSION_METRICS, *RANKING_METRICS)

    def outputs(self, labels):
        return None

    def agrees(self, said, others):
        """The cosine of the two vectors of each text."""
        return cosines(said, others)

    def asked(self, tokenizer, texts, pairs, length, labels, task):
        return whole_texts(tokenizer, texts, pairs, length, lambda vectors: [{"embedding": vector} for vector in vectors])


def cosines(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(rows,) float64: of each row of (rows, width) with the row of the others; 0 where one of the two is 0."""
    own, theirs = vectors.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(theirs, axis=1)
    return (own * theirs).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)


def as_numbers(vector: np.ndarray) -> list[float]:
    """A vector (width,) float32 as JSON has it: each number as short as float32 is exact."""
    return [float(str(value)) for value in vector]


def retrieval_scores(
    vectors: np.ndarray, queries: int, relevance: np.ndarray, lists: np.ndarray, among: np.ndarray
) -> np.ndarray:
    """(queries, 3) float64, as `core.ranking_scores` has them, of each query among all texts. `vectors` (queries + texts, width)
    are of the queries and then of the texts; the query i has the judgements `lists[i]` to `lists[i + 1]`, of which each says how
    relevant (`relevance`) which text is (`among`). What is not judged is not relevant."""
    own, others = (part.astype(np.float64) for part in (vectors[:queries], vectors[queries:]))
    own, others = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (own, others))
    found, all_texts = np.zeros((queries, 3)), np.array([0, len(others)])
    for query in range(queries):
        gains = np.zeros(len(others))
        judged = slice(lists[query], lists[query + 1])
        gains[among[judged]] = relevance[judged]
        found[query] = list_scores(others @ own[query], gains, all_texts)[0]
    return found
