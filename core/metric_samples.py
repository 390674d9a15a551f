"""Metrics of many resamples of the same examples at once: a resample is a weight for each example, how often it was drawn.

The values are those of `core.metrics.compute_metrics` on the drawn rows, computed for all resamples together: a thousand calls
of a library take a hundred times longer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from .class_metrics import scores_of
from .metrics import SCORED_ALONE, compute_metrics

Sample = Callable[[np.ndarray], np.ndarray]
"""`f(weights)`: (resamples, examples) counts -> (resamples,) values."""


def sampled_metric(name: str, logits: np.ndarray, labels: np.ndarray) -> Sample:
    """The metric of resamples of logits (examples, outputs) and their labels. Raises what `compute_metrics` raises."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compute_metrics([name], logits, labels)  # whether the metric fits
    if labels.ndim == 2:
        if name == "auc":
            return _area(logits, labels)
        known = {"exact_match": _exact_match, "micro_f1": _micro_f1, "macro_f1": _label_macro_f1}
        made = known.get(name)
        return _each(name, logits, labels) if made is None else made(logits > 0, labels > 0.5)
    for scored in SCORED_ALONE:
        if name in scored:
            return _mean(logits[:, scored.index(name)])
    if logits.shape[1] == 1:
        known = {"pearson": _pearson, "spearman": _spearman}
        made = known.get(name)
        return _each(name, logits, labels) if made is None else made(logits[:, 0], labels.astype(np.float64))
    if name == "auc":
        return _area(logits, labels)
    known = {"accuracy": _accuracy, "matthews": _matthews} | {key: partial(_of_classes, key) for key in _CLASS_SHARES}
    made = known.get(name)
    return _each(name, logits, labels) if made is None else made(labels.astype(np.int64), logits.argmax(axis=1), logits.shape[1])


def sampled_class(name: str, index: int, logits: np.ndarray, labels: np.ndarray) -> Sample:
    """The same of one of `core.class_metrics.CLASS_METRICS` of the class with that number."""
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    several = labels.ndim == 2
    if name == "auc":
        return _area(logits, labels, [index])
    predicted = logits[:, index] > 0 if several else logits.argmax(axis=1) == index
    true = labels[:, index] > 0.5 if several else labels == index
    counts = np.stack([predicted & true, true, predicted], axis=1).astype(np.float64)
    return lambda weights: _CLASS_SHARES[name](*(weights @ counts).T)


def _each(name: str, logits: np.ndarray, labels: np.ndarray) -> Sample:
    """A metric that is not known here, resample by resample."""

    def sample(weights: np.ndarray) -> np.ndarray:
        rows = [np.repeat(np.arange(len(labels)), counts.astype(np.int64)) for counts in weights]
        return np.array([compute_metrics([name], logits[drawn], labels[drawn])[name] for drawn in rows])

    return sample


def _mean(values: np.ndarray) -> Sample:
    return lambda weights: weights @ values / weights.sum(axis=1)


def _accuracy(true: np.ndarray, predicted: np.ndarray, classes: int) -> Sample:
    return _mean((true == predicted).astype(np.float64))


def _confusions(true: np.ndarray, predicted: np.ndarray, classes: int) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    """`f(weights)`: of each class (resamples, classes) how often it was right, true, and predicted."""
    is_true, is_predicted = (np.eye(classes)[each] for each in (true, predicted))
    hits = is_true * is_predicted
    return lambda weights: (weights @ hits, weights @ is_true, weights @ is_predicted)


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """0 where the bottom is."""
    return np.divide(top, bottom, out=np.zeros(np.broadcast(top, bottom).shape), where=bottom > 0)


_CLASS_SHARES = {
    "f1": lambda hits, true, predicted: ratio(2 * hits, true + predicted),
    "precision": lambda hits, true, predicted: ratio(hits, predicted),
    "recall": lambda hits, true, predicted: ratio(hits, true),
}
_CLASS_SHARES |= {f"macro_{key}": share for key, share in _CLASS_SHARES.items()}
_CLASS_SHARES["weighted_f1"] = _CLASS_SHARES["f1"]
"""Metric -> the share (resamples, classes) of hits, true and predicted ones of each class that it is, or is a mean of."""


def _of_classes(name: str, true: np.ndarray, predicted: np.ndarray, classes: int) -> Sample:
    count, share = _confusions(true, predicted, classes), _CLASS_SHARES[name]

    def sample(weights: np.ndarray) -> np.ndarray:
        hits, are_true, are_predicted = count(weights)
        shares = share(hits, are_true, are_predicted)
        if name.startswith("macro_"):
            return shares.mean(axis=1)
        return ratio((shares * are_true).sum(axis=1), are_true.sum(axis=1)) if name.startswith("weighted_") else shares[:, 1]

    return sample


def _area(logits: np.ndarray, labels: np.ndarray, chosen: Sequence[int] | None = None) -> Sample:
    """As `core.class_metrics.mean_area`, or over `chosen` classes, of the ranks that values have among the drawn ones."""
    scores, classes = scores_of(logits, labels.ndim == 2), range(logits.shape[1])
    if chosen is None:
        chosen = [1] if labels.ndim == 1 and len(classes) == 2 else classes
    true = [(labels[:, index] > 0.5 if labels.ndim == 2 else labels == index).astype(np.float64) for index in chosen]
    ranks = [_ranks(scores[:, index]) for index in chosen]

    def sample(weights: np.ndarray) -> np.ndarray:
        total, areas, defined = weights.sum(axis=1), [], []
        for own, rank in zip(true, ranks, strict=True):
            positives = weights @ own
            pairs = positives * (total - positives)
            areas.append(ratio((weights * own * rank(weights)).sum(axis=1) - positives * (positives + 1) / 2, pairs))
            defined.append(pairs > 0)
        known = np.sum(defined, axis=0)
        return np.where(known > 0, ratio(np.where(defined, areas, 0.0).sum(axis=0), known), 0.5)

    return sample


def _matthews(true: np.ndarray, predicted: np.ndarray, classes: int) -> Sample:
    """Gorodkin 2004, eq. 8, which for two classes is Matthews's."""
    count = _confusions(true, predicted, classes)

    def sample(weights: np.ndarray) -> np.ndarray:
        hits, are_true, are_predicted = count(weights)
        total = weights.sum(axis=1)
        covariance = hits.sum(axis=1) * total - (are_true * are_predicted).sum(axis=1)
        own = [total**2 - (each**2).sum(axis=1) for each in (are_true, are_predicted)]
        return ratio(covariance, np.sqrt(own[0] * own[1]))

    return sample


def _exact_match(predicted: np.ndarray, true: np.ndarray) -> Sample:
    return _mean((predicted == true).all(axis=1).astype(np.float64))


def _micro_f1(predicted: np.ndarray, true: np.ndarray) -> Sample:
    hits, decisions = _label_counts(predicted, true)
    return lambda weights: 2 * (weights @ hits.sum(axis=1)) / np.maximum(weights @ decisions.sum(axis=1), 1)


def _label_macro_f1(predicted: np.ndarray, true: np.ndarray) -> Sample:
    hits, decisions = _label_counts(predicted, true)
    return lambda weights: (2 * (weights @ hits) / np.maximum(weights @ decisions, 1)).mean(axis=1)


def _label_counts(predicted: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (predicted & true).astype(np.float64), predicted.astype(np.float64) + true


def _pearson(first: np.ndarray, second: np.ndarray) -> Sample:
    columns = [np.broadcast_to(each - each.mean(), (1, len(each))) for each in (first, second)]
    return lambda weights: _weighted_pearson(weights, *columns)


def _spearman(first: np.ndarray, second: np.ndarray) -> Sample:
    ranks = [_ranks(each) for each in (first, second)]
    return lambda weights: _weighted_pearson(weights, *(rank(weights) for rank in ranks))


def _ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """`f(weights)`: the mean rank (resamples, examples) that each value has among the drawn ones."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    group = np.empty(len(values), np.int64)
    group[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))

    def rank(weights: np.ndarray) -> np.ndarray:
        sizes = np.add.reduceat(weights[:, order], starts, axis=1)
        middles = np.cumsum(sizes, axis=1) - (sizes - 1) / 2
        return middles[:, group]

    return rank


def _weighted_pearson(weights: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of columns (resamples or 1, examples); 0 where one of them does not vary, as in `core.metrics`."""
    total = weights.sum(axis=1, keepdims=True)
    centred = [each - (weights * each).sum(axis=1, keepdims=True) / total for each in (first, second)]
    squares = [(weights * each**2).sum(axis=1) for each in centred]
    largest = [np.where(weights > 0, np.abs(each), 0.0).max(axis=1) for each in (first, second)]
    # Where all drawn values are one, what is left of their squares is rounding.
    varies = [square > total[:, 0] * (1e-13 * (size + 1e-300)) ** 2 for square, size in zip(squares, largest, strict=True)]
    covariance = (weights * centred[0] * centred[1]).sum(axis=1)
    return ratio(covariance, np.where(varies[0] & varies[1], np.sqrt(squares[0] * squares[1]), 0.0))
