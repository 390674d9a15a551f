"""Metrics against their definitions, counted by hand, and at the edges where libraries give NaN or a warning."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest

from crossdistil.core.errors import DataError, TrainingError
from crossdistil.core.metrics import compute_metrics


def one_hot(predictions, classes):
    return np.eye(classes, dtype=np.float32)[predictions]


def test_binary_metrics_by_hand():
    # 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
    labels = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0], dtype=np.int32)
    predictions = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    scores = compute_metrics(["accuracy", "f1", "macro_f1", "matthews"], one_hot(predictions, 2), labels)
    assert scores == pytest.approx(
        {
            "accuracy": 7 / 10,
            "f1": 2 * 3 / (2 * 3 + 1 + 2),
            "macro_f1": (6 / 9 + 2 * 4 / (2 * 4 + 2 + 1)) / 2,
            "matthews": (3 * 4 - 1 * 2) / math.sqrt((3 + 1) * (3 + 2) * (4 + 1) * (4 + 2)),
        }
    )


def test_f1_is_that_of_class_one():
    labels, predictions = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    assert compute_metrics(["f1"], one_hot(predictions, 2), labels) == {"f1": 0.0}


def test_macro_f1_counts_a_class_that_never_occurs():
    labels = np.array([0, 1, 0, 1])
    assert compute_metrics(["macro_f1"], one_hot(labels, 3), labels) == pytest.approx({"macro_f1": 2 / 3})


def test_correlations_by_hand():
    predictions, labels = np.array([1.0, 2.0, 4.0, 8.0]), np.array([1.0, 2.0, 3.0, 5.0], dtype=np.float32)
    scores = compute_metrics(["pearson", "spearman"], predictions[:, None], labels)
    x, y = predictions - 3.75, labels - 2.75
    assert scores["pearson"] == pytest.approx((x @ y) / math.sqrt((x @ x) * (y @ y)))
    assert scores["spearman"] == pytest.approx(1.0)  # monotone, not linear
    swapped = compute_metrics(["spearman"], np.array([[2.0], [1.0], [3.0], [4.0]]), labels)
    assert swapped["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))  # 1 - 6 sum(d^2) / (n (n^2 - 1))


@pytest.mark.parametrize(
    "names, logits", [(["pearson", "spearman"], np.ones((5, 1))), (["matthews", "f1"], one_hot([0] * 5, 2))]
)
def test_constant_predictions_score_zero_without_warnings(names, logits):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = compute_metrics(names, logits, np.array([0, 1, 0, 1, 1]))
    assert scores == {name: 0.0 for name in names}
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores


def test_one_regression_example_scores_zero():
    assert compute_metrics(["pearson"], np.array([[1.0]]), np.array([1.0])) == {"pearson": 0.0}


def test_scores_are_plain_floats():
    scores = compute_metrics(["accuracy"], np.eye(2, dtype=np.float16), np.array([0, 1]))
    assert type(scores["accuracy"]) is float and scores == {"accuracy": 1.0}


def test_errors():
    labels = np.array([0, 1])
    with pytest.raises(DataError, match="unknown metric 'mathews'; did you mean 'matthews'"):
        compute_metrics(["mathews"], np.eye(2), labels)
    with pytest.raises(DataError, match="'accuracy' does not fit a model with 1 output"):
        compute_metrics(["accuracy"], np.ones((2, 1)), labels)
    with pytest.raises(DataError, match="'pearson' does not fit a model with 2 outputs"):
        compute_metrics(["pearson"], np.eye(2), labels)
    with pytest.raises(DataError, match="'f1' needs two classes, the model has 3"):
        compute_metrics(["f1"], np.eye(3)[:2], labels)
    with pytest.raises(TrainingError, match="logits of 1 examples are not finite"):
        compute_metrics(["accuracy"], np.array([[np.nan, 0.0], [0.0, 1.0]]), labels)
    with pytest.raises(ValueError, match="expected"):
        compute_metrics(["accuracy"], np.eye(3), labels)
