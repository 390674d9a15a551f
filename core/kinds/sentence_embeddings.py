"""Sentence embeddings: a model answers with a vector of each text, and two texts are as alike as the cosine of their vectors.

A split to score on has pairs of texts, with a number that says how alike they are: `targets` (pairs,) float32, from 0 to 1. What
is scored are the cosines, (pairs, 1), as the one number of a regression.
"""

from __future__ import annotations

import numpy as np

from ..models.answer_heads import EMBEDDINGS
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
