"""Metrics of single classes, which a recipe names as `f1/positive`: precision, recall and F1 as scikit-learn counts them, and the
area under the ROC curve. `per_class` stands for the first three of every class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .errors import DataError, did_you_mean

PER_CLASS = "per_class"
_COUNTED = ("precision", "recall", "f1")
CLASS_METRICS = (*_COUNTED, "auc")
"""What there is of one class."""


def is_class_metric(name: str) -> bool:
    """Whether a name is that of a metric of one class."""
    kind, slash, _ = name.partition("/")
    return bool(slash) and kind in CLASS_METRICS


def expanded(metrics: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """`metrics` with those of every class in place of `per_class`, each once. Raises DataError where that comes first: the first
    metric decides which weights are the best."""
    if metrics and metrics[0] == PER_CLASS:
        example = f"f1/{classes[-1]}"
        raise DataError(f"task.metrics: the first one decides which weights are best: put one before {PER_CLASS}, or {example}")
    each = [f"{kind}/{name}" for name in classes for kind in _COUNTED]
    return tuple(dict.fromkeys(one for name in metrics for one in (each if name == PER_CLASS else [name])))


def class_metric(name: str, classes: Sequence[str]) -> Callable[[np.ndarray, np.ndarray], float]:
    """`f(logits, labels)` of a name such as `f1/positive`; arrays as `core.metrics.compute_metrics` takes them. Raises
    DataError for a class that is none of `classes`."""
    kind, _, label = name.partition("/")
    if label not in classes:
        raise DataError(f"task.metrics: '{name}': no class '{label}'{did_you_mean(label, classes) or ';'} {', '.join(classes)}")
    index = list(classes).index(label)
    if kind == "auc":
        return lambda logits, labels: area_under_curve(scores_of(logits, labels.ndim == 2)[:, index], _holds(labels, index))

    def counted(logits: np.ndarray, labels: np.ndarray) -> float:
        predicted = logits[:, index] > 0 if labels.ndim == 2 else logits.argmax(axis=1) == index
        true = _holds(labels, index)
        below = {"precision": predicted.sum(), "recall": true.sum(), "f1": (predicted.sum() + true.sum()) / 2}[kind]
        return float((predicted & true).sum() / below) if below else 0.0

    return counted


def scores_of(logits: np.ndarray, several: bool) -> np.ndarray:
    """(examples, classes): what ranks examples by how much they are of a class. Of two classes or more, the logarithms of the
    softmax, which rank as probabilities do and do not run out of digits; of several labels, the logits."""
    if several:
        return logits
    shifted = logits - logits.max(axis=1, keepdims=True)
    # Of two classes the log-odds: of confident answers the logarithm of a probability near 1 is 0 for all.
    if logits.shape[1] == 2:
        return np.stack([logits[:, 0] - logits[:, 1], logits[:, 1] - logits[:, 0]], axis=1)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def area_under_curve(scores: np.ndarray, true: np.ndarray) -> float:
    """The share of pairs of a true and another example whose order is right, ties counting half (Mann and Whitney 1947); 0.5
    where there is no such pair."""
    from scipy.stats import rankdata

    positives = int(true.sum())
    negatives = len(true) - positives
    if not positives or not negatives:
        return 0.5
    ranks = rankdata(scores)
    return float((ranks[true].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def mean_area(logits: np.ndarray, labels: np.ndarray) -> float:
    """Of two classes, that of the second; of more, or of several labels, the mean over the classes, each against all others, that
    have such pairs (scikit-learn's macro one-versus-rest)."""
    scores, several = scores_of(logits, labels.ndim == 2), labels.ndim == 2
    if not several and logits.shape[1] == 2:
        return area_under_curve(scores[:, 1], labels == 1)
    columns = [_holds(labels, index) for index in range(logits.shape[1])]
    found = [area_under_curve(scores[:, index], true) for index, true in enumerate(columns) if 0 < true.sum() < len(true)]
    return float(np.mean(found)) if found else 0.5


def _holds(labels: np.ndarray, index: int) -> np.ndarray:
    return labels[:, index] > 0.5 if labels.ndim == 2 else labels == index
