"""Scores of entities on many resamples of the texts at once, for `core.significance`.

Words of one text hang together and a span may be several of them, so what is drawn is a text with all its spans. A score is that
of the sums over the drawn texts, and not the mean of the texts' scores: as `core.kinds.token_labels` has it of a whole split.
"""

from __future__ import annotations

import numpy as np

from .kinds.token_labels import counted_spans, decoded
from .metric_samples import Sample, ratio
from .metrics import ENTITY_METRICS
from .predictions import WordsOfTexts

_F1, _PRECISION, _RECALL = ENTITY_METRICS


def text_spans(logits: np.ndarray, true: np.ndarray, texts: WordsOfTexts, labels: tuple[str, ...]) -> np.ndarray:
    """(texts, 3) float64: how many spans are right, predicted and true in each text, by the logits (words, outputs) and labels
    (words,) of all words."""
    ends = np.cumsum(texts.counts)
    predicted = np.concatenate([decoded(part, labels, texts.constrained) for part in np.split(logits, ends[:-1])])
    found = counted_spans(predicted, true, ends, labels)
    return np.array([[len(text[key]) for key in ("right", "predicted", "true")] for text in found], np.float64)


def sampled_entities(name: str, counts: np.ndarray) -> Sample:
    """The metric, one of `ENTITY_METRICS`, of resamples of texts with `counts` as `text_spans` has them; 0 without spans."""

    def sample(weights: np.ndarray) -> np.ndarray:
        right, predicted, true = (weights @ counts).T
        return ratio(right, {_F1: (predicted + true) / 2, _PRECISION: predicted, _RECALL: true}[name])

    return sample
