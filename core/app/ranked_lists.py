"""Queries with their candidates, as `predict` puts them in order."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from .predicting import Prediction


def ranked_lines(found: Sequence[Prediction], lists: Sequence[int]) -> str:
    """A line of JSON for each query: `scores` of its candidates as they came, and their `order`, the best one first, counted from
    0; of equal scores the first one comes first."""
    lines = []
    for start, end in zip(lists[:-1], lists[1:]):
        scores = [float(str(np.float32(each.score))) for each in found[start:end]]
        order = np.argsort(-np.array(scores), kind="stable").tolist()
        lines.append(json.dumps({"query": found[start].text, "scores": scores, "order": order}, ensure_ascii=False) + "\n")
    return "".join(lines)
