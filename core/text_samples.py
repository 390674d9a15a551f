"""Scores of labels of words on many resamples of the texts at once, for `core.significance`.

Words of one text hang together and a span may be several of them, so what is drawn is a text with all its words and spans. A
score is that of the sums over the drawn texts, and not the mean of the texts' scores: as `core.kinds.token_labels` has it of a
whole split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .kinds.token_labels import counted_spans, decoded
from .metric_samples import Sample, ratio
from .metrics import ENTITY_METRICS, WORD_ACCURACY
from .predictions import WordsOfTexts

_F1, _PRECISION, _RECALL = ENTITY_METRICS


def text_samples(
    names: Sequence[str], logits: np.ndarray, true: np.ndarray, texts: WordsOfTexts, labels: tuple[str, ...]
) -> dict[str, Sample]:
    """The scores of these names, of resamples of texts, by the logits (words, outputs) and labels (words,) of all words; of what
    there is none of 0. `word_accuracy`, one of `ENTITY_METRICS`, or one of a type, as `entity_f1/PER`."""
    ends = np.cumsum(texts.counts)
    predicted = np.concatenate([decoded(part, labels, texts.constrained) for part in np.split(logits, ends[:-1])])
    spans = None
    found: dict[str, Sample] = {}
    for name in names:
        kind, _, of_type = name.partition("/")
        if kind == WORD_ACCURACY:
            hits = [part.sum() for part in np.split(predicted == true, ends[:-1])]
            found[name] = _shares(np.stack([hits, texts.counts], axis=1).astype(np.float64), lambda hits, words: (hits, words))
            continue
        if spans is None:
            spans = list(counted_spans(predicted, true, ends, labels))
        found[name] = _shares(_span_counts(spans, of_type), _PARTS[kind])
    return found


def _span_counts(spans: Sequence[dict[str, set]], of_type: str) -> np.ndarray:
    """(texts, 3) float64: how many spans of a type, or of all, are right, predicted and true in each text."""
    keys = ("right", "predicted", "true")
    return np.array([[sum(of_type in ("", span.type) for span in text[key]) for key in keys] for text in spans], np.float64)


_PARTS = {
    _F1: lambda right, predicted, true: (right, (predicted + true) / 2),
    _PRECISION: lambda right, predicted, true: (right, predicted),
    _RECALL: lambda right, predicted, true: (right, true),
}
"""Score -> what is divided by what."""


def _shares(counts: np.ndarray, parts: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Sample:
    """Of `counts` (texts, n), whose sums over the drawn texts `parts` makes two of."""
    return lambda weights: ratio(*parts(*(weights @ counts).T))
