"""Ranking: a model scores pairs of a query and a candidate with one number, and the candidates of a query are put in the order of
their scores.

`targets` (rows,) float32 are how relevant the candidates are, list after list. Of a split what is kept is what each list scored,
(queries, 3) float32: nDCG@10, MRR@10 and average precision (`core.ranking_scores`).
"""

from __future__ import annotations

import numpy as np

from ..metrics import RANKING_METRICS
from .one_number import OneNumber


class Ranking(OneNumber):
    """A number for a query and a candidate, of which only the order matters."""

    name, title, described = "ranking", "ranking", "a ranking"
    what = "queries"
    problem_type = None
    ranks = True
    default_metrics = RANKING_METRICS
    page = "questions"

    def metrics(self, classes):
        return RANKING_METRICS

    def differs(self, logits, others, limit):
        return (np.abs(logits - others) > limit).any(axis=1)

    def errors(self, logits, targets):
        """How far the nDCG is from 1."""
        return logits[:, 0] < 1, 1.0 - self.values(logits)[:, 0]

    def target_text(self, labels, target):
        return "1"
