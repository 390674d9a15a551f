"""How good an order of candidates is, by the scores that a model gives them and by what is relevant to the query.

nDCG@k is sum over the first k places of relevance / log2(1 + place), over the same of the best order (Järvelin and Kekäläinen
2002, with the relevance itself as the gain, and 0 below 0); candidates of one score share the mean of the gains of their
places, as `sklearn.metrics.ndcg_score` has it (McSherry and Najork 2008). MRR@k is one over the place of the first relevant
candidate, 0 behind place k; average precision is the mean over the relevant ones of the precision at the score of each
(`sklearn.metrics.average_precision_score`). Whatever is above 0 is relevant to these two. A relevant candidate stands behind
others of the same score, so that equal scores are never better than any order. A query without a relevant candidate scores 0, as
in sentence-transformers' evaluators.
"""

from __future__ import annotations

import numpy as np

CUT = 10
"""How many places count."""


def list_scores(scores: np.ndarray, relevance: np.ndarray, lists: np.ndarray, cut: int = CUT) -> np.ndarray:
    """(lists, 3) float64: nDCG@cut, MRR@cut and average precision of each list. `scores` and `relevance` (rows,) are list after
    list, which begin at `lists` (lists + 1,)."""
    scores, relevance = np.asarray(scores, np.float64), np.asarray(relevance, np.float64)
    found = np.zeros((len(lists) - 1, 3))
    for place, (start, end) in enumerate(zip(lists[:-1], lists[1:])):
        own, gains = scores[start:end], relevance[start:end]
        if (gains > 0).any():
            found[place] = ndcg(own, gains, cut), reciprocal_rank(own, gains > 0, cut), average_precision(own, gains > 0)
    return found


def ndcg(scores: np.ndarray, gains: np.ndarray, cut: int = CUT) -> float:
    """Of one list: scores and gains (n,), at least one gain above 0; below 0 is none."""
    places, gains = np.arange(len(scores)), np.maximum(gains, 0)
    discounts = np.where(places < cut, 1 / np.log2(places + 2), 0)
    ideal = np.sort(gains)[::-1] @ discounts
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    total = np.concatenate([[0], np.cumsum(discounts)])
    of_groups = total[ends] - total[ends - sizes]
    mean_gains = np.bincount(group, gains) / sizes
    return float(mean_gains @ of_groups / ideal)


def reciprocal_rank(scores: np.ndarray, relevant: np.ndarray, cut: int = CUT) -> float:
    """Of one list: scores (n,) and booleans (n,), at least one of them true."""
    place = 1 + int((scores[~relevant] >= scores[relevant].max()).sum())
    return 1 / place if place <= cut else 0.0


def average_precision(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Of one list, without a cut."""
    _, group, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(group, relevant)
    return float((np.cumsum(hits) / np.cumsum(sizes)) @ hits / relevant.sum())
