"""Evaluation metrics with their GLUE names, as fractions. Libraries are imported on use: they cost a second to load.

A metric that is undefined (a model that predicts one value only) is 0.0: NaN is not JSON, and 0 means no relation. Of an area
under the ROC curve 0.5 means that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from .class_metrics import PER_CLASS, is_class_metric, mean_area
from .errors import DataError, TrainingError, did_you_mean

_AVERAGED = {
    "macro_precision": ("precision", "macro"),
    "macro_recall": ("recall", "macro"),
    "weighted_f1": ("f1", "weighted"),
}
"""Name -> what it is the mean of, over the classes, alike or by their examples."""
BINARY_METRICS = ("f1", "precision", "recall")
"""Those of class 1, of a task with two classes."""
CLASSIFICATION_METRICS = ("accuracy", "f1", "macro_f1", "matthews", "precision", "recall", *_AVERAGED, "auc")
REGRESSION_METRICS = ("pearson", "spearman")
MULTI_LABEL_DEFAULTS = ("micro_f1", "macro_f1", "exact_match")
MULTI_LABEL_METRICS = (*MULTI_LABEL_DEFAULTS, "auc")
ENTITY_METRICS = ("entity_f1", "entity_precision", "entity_recall")
"""Of whole spans of words, all types together; `entity_f1/PER` is that of one type."""
WORD_ACCURACY = "word_accuracy"
ANSWER_METRICS = ("exact_match", "answer_f1")
"""Of answers that are parts of a text: the mean over the questions (`core.answer_scores`)."""
UNANSWERABLE_METRICS = ("has_answer_f1", "no_answer_exact", "best_f1", "best_f1_threshold")
"""Where questions may have no answer: of those that have one, of those that have none, and at the best threshold."""
MORE_UNANSWERABLE_METRICS = ("has_answer_exact", "best_exact", "best_exact_threshold")
RANKING_METRICS = ("ndcg@10", "mrr@10", "map")
"""Of the candidates of a query, the mean over the queries (`core.ranking_scores`)."""
MLM_LOSS, CLM_LOSS = "mlm_loss", "clm_loss"
KNOWN_METRICS = frozenset(
    (
        *(*CLASSIFICATION_METRICS, *REGRESSION_METRICS, *MULTI_LABEL_METRICS, *ENTITY_METRICS, WORD_ACCURACY),
        *(*ANSWER_METRICS, *UNANSWERABLE_METRICS, *MORE_UNANSWERABLE_METRICS, *RANKING_METRICS, MLM_LOSS, CLM_LOSS, "perplexity"),
    )
)
"""The names of all."""
SCORED_ALONE = (ANSWER_METRICS, RANKING_METRICS)
"""Those that are the mean of what each example scored, which stands in place of its logits, in this order."""
LOWER_IS_BETTER = frozenset({MLM_LOSS, CLM_LOSS})
Metric = Callable[[np.ndarray, np.ndarray], float]


def is_known_metric(name: str) -> bool:
    """Whether a metric is crossdistil's own, and no plugin's."""
    return name.partition("/")[0] in KNOWN_METRICS or name == PER_CLASS or is_class_metric(name)


def compute_metrics(
    names: Sequence[str], logits: np.ndarray, labels: np.ndarray, own: Mapping[str, Metric] = MappingProxyType({})
) -> dict[str, float]:
    """Score `logits` (examples, classes), or (examples, 1) for regression, against `labels` (examples,).

    `f1`, `precision` and `recall` are those of class 1, as in GLUE's MRPC and QQP; `macro_f1` and its like are the mean over all
    classes of the logits, `weighted_f1` by how many examples each has; `auc` is `core.class_metrics.mean_area`. With labels
    (examples, classes) of zeros and ones, each class is predicted where its sigmoid is above 0.5: `micro_f1` counts all
    decisions together, `macro_f1` is the mean over the classes, `exact_match` the share of examples without a wrong one. Of
    answers that are parts of a text `logits` (questions, 2) are what each scored, exact match and F1, and all labels are 1.
    `own` holds the metrics of plugins. Raises TrainingError for logits that are not finite, DataError for a metric that is
    unknown or does not fit.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape not in (logits.shape[:1], logits.shape) or not len(labels):
        raise ValueError(f"logits {logits.shape} and labels {labels.shape}: expected (n, classes) and (n,) or both alike, n > 0")
    check_finite(logits, "examples")
    compute = _compute if labels.ndim == 1 else _compute_multi_label
    return {name: own[name](logits, labels) if name in own else compute(name, logits, labels) for name in names}


def check_finite(outputs: np.ndarray, of: str, what: str = "logits") -> None:
    """Raise TrainingError where a model answers with what is no number. `outputs` (rows, ...) are its logits, or `what` they are,
    of rows that are called `of`."""
    broken = ~np.isfinite(outputs).all(axis=tuple(range(1, np.ndim(outputs))))
    if broken.any():
        raise TrainingError(f"the {what} of {int(broken.sum())} {of} are not finite")


def _compute(name: str, logits: np.ndarray, labels: np.ndarray) -> float:
    for scored in SCORED_ALONE:
        if name in scored and logits.shape[1] == len(scored) and (labels == 1).all():
            return float(logits[:, scored.index(name)].mean())
    known = (*CLASSIFICATION_METRICS, *REGRESSION_METRICS)
    if name not in known:
        raise DataError(f"unknown metric '{name}'{did_you_mean(name, known) or ';'} the metrics are {', '.join(known)}")
    classes = logits.shape[1]
    if (name in REGRESSION_METRICS) != (classes == 1):
        raise DataError(f"metric '{name}' does not fit a model with {classes} output{'s' if classes > 1 else ''}")
    if name in REGRESSION_METRICS:
        return _correlation(name, logits[:, 0], labels)

    if name == "auc":
        return mean_area(logits, labels)

    from sklearn import metrics

    predictions = logits.argmax(axis=1)
    if name == "accuracy":
        return float(metrics.accuracy_score(labels, predictions))
    if name == "matthews":
        return float(metrics.matthews_corrcoef(labels, predictions))
    if name in BINARY_METRICS and classes != 2:
        raise DataError(f"metric '{name}' needs two classes, the model has {classes}; use 'macro_{name}'")
    counted = [1] if name in BINARY_METRICS else list(range(classes))
    kind, average = _AVERAGED.get(name, (name.removeprefix("macro_"), "macro"))
    measure = {"f1": metrics.f1_score, "precision": metrics.precision_score, "recall": metrics.recall_score}[kind]
    return float(measure(labels, predictions, labels=counted, average=average, zero_division=0))


def _compute_multi_label(name: str, logits: np.ndarray, labels: np.ndarray) -> float:
    if name not in MULTI_LABEL_METRICS:
        near = did_you_mean(name, MULTI_LABEL_METRICS) or ";"
        known = ", ".join(MULTI_LABEL_METRICS)
        raise DataError(f"metric '{name}' does not fit several labels an example{near} the metrics are {known}")
    if name == "auc":
        return mean_area(logits, labels)
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
