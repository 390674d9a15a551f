"""Evaluation metrics with their GLUE names, as fractions. Libraries are imported on use: they cost a second to load.

A metric that is undefined (a model that predicts one value only) is 0.0: NaN is not JSON, and 0 means no relation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from .errors import DataError, TrainingError, did_you_mean

CLASSIFICATION_METRICS = ("accuracy", "f1", "macro_f1", "matthews")
REGRESSION_METRICS = ("pearson", "spearman")
MULTI_LABEL_METRICS = ("micro_f1", "macro_f1", "exact_match")
MLM_LOSS = "mlm_loss"
KNOWN_METRICS = frozenset({*CLASSIFICATION_METRICS, *REGRESSION_METRICS, *MULTI_LABEL_METRICS, MLM_LOSS, "perplexity"})
"""The names of all."""
LOWER_IS_BETTER = frozenset({MLM_LOSS})
Metric = Callable[[np.ndarray, np.ndarray], float]


def compute_metrics(
    names: Sequence[str], logits: np.ndarray, labels: np.ndarray, own: Mapping[str, Metric] = MappingProxyType({})
) -> dict[str, float]:
    """Score `logits` (examples, classes), or (examples, 1) for regression, against `labels` (examples,).

    `f1` is that of class 1, as in GLUE's MRPC and QQP; `macro_f1` is the mean over all classes of the logits. With labels
    (examples, classes) of zeros and ones, each class is predicted where its sigmoid is above 0.5: `micro_f1` counts all
    decisions together, `macro_f1` is the mean over the classes, `exact_match` the share of examples without a wrong one.
    `own` holds the metrics of plugins. Raises TrainingError for logits that are not finite, DataError for a metric that is
    unknown or does not fit.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape not in (logits.shape[:1], logits.shape) or not len(labels):
        raise ValueError(f"logits {logits.shape} and labels {labels.shape}: expected (n, classes) and (n,) or both alike, n > 0")
    if not np.isfinite(logits).all():
        raise TrainingError(f"the logits of {int((~np.isfinite(logits)).any(axis=1).sum())} examples are not finite")
    compute = _compute if labels.ndim == 1 else _compute_multi_label
    return {name: own[name](logits, labels) if name in own else compute(name, logits, labels) for name in names}


def _compute(name: str, logits: np.ndarray, labels: np.ndarray) -> float:
    known = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
    if name not in known:
        raise DataError(f"unknown metric '{name}'{did_you_mean(name, known) or ';'} the metrics are {', '.join(known)}")
    classes = logits.shape[1]
    if (name in REGRESSION_METRICS) != (classes == 1):
        raise DataError(f"metric '{name}' does not fit a model with {classes} output{'s' if classes > 1 else ''}")
    if name in REGRESSION_METRICS:
        return _correlation(name, logits[:, 0], labels)

    from sklearn import metrics

    predictions = logits.argmax(axis=1)
    if name == "accuracy":
        return float(metrics.accuracy_score(labels, predictions))
    if name == "matthews":
        return float(metrics.matthews_corrcoef(labels, predictions))
    if name == "f1" and classes != 2:
        raise DataError(f"metric 'f1' needs two classes, the model has {classes}; use 'macro_f1'")
    counted = [1] if name == "f1" else list(range(classes))
    return float(metrics.f1_score(labels, predictions, labels=counted, average="macro", zero_division=0))


def _compute_multi_label(name: str, logits: np.ndarray, labels: np.ndarray) -> float:
    if name not in MULTI_LABEL_METRICS:
        near = did_you_mean(name, MULTI_LABEL_METRICS) or ";"
        known = ", ".join(MULTI_LABEL_METRICS)
        raise DataError(f"metric '{name}' does not fit several labels an example{near} the metrics are {known}")
    predicted, true = logits > 0.0, labels > 0.5  # sigmoid(0) is 0.5
    if name == "exact_match":
        return float((predicted == true).all(axis=1).mean())
    hits, decisions = (predicted & true).sum(axis=0), predicted.sum(axis=0) + true.sum(axis=0)
    if name == "micro_f1":
        hits, decisions = hits.sum(keepdims=True), decisions.sum(keepdims=True)
    # 2 TP / (2 TP + FP + FN); a class that is neither there nor predicted scores 0, as in scikit-learn.
    return float((2.0 * hits / np.maximum(decisions, 1)).mean())


def _correlation(name: str, predictions: np.ndarray, labels: np.ndarray) -> float:
    if len(labels) < 2:
        return 0.0
    from scipy import stats

    measure = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant input: the value is NaN, which becomes 0 below
        value = float(measure(predictions, labels.astype(np.float64))[0])
    return value if math.isfinite(value) else 0.0
