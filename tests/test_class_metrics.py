"""Metrics of single classes and areas under the ROC curve against scikit-learn, and by which names a recipe asks for them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, precision_score, recall_score, roc_auc_score

from crossdistil.core.data.tasks import resolve_task
from crossdistil.core.errors import DataError
from crossdistil.core.metrics import compute_metrics
from crossdistil.core.task_section import TaskSection


def drawn(classes, count=200, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    logits = generator.normal(0, 1, (count, classes)) + 0.8 * np.eye(classes)[labels]
    logits = np.round(logits * 4) / 4 if classes == 2 else logits  # with ties, whose differences are exact
    return logits, labels


def spec(metrics, kind=None, labels=("low", "middle", "top"), tmp="."):
    section = TaskSection(name="t", data=tmp, text="text", label="label", labels=labels, metrics=metrics, kind=kind)
    return resolve_task(section)


def scored(metrics, logits, labels, classes=("low", "middle", "top"), **options):
    made = spec(metrics, labels=classes, **options)
    return compute_metrics(made.metrics, logits, labels, made.own_metrics)


def test_each_class_has_the_figures_of_scikit_learn():
    logits, labels = drawn(3)
    found = scored(("accuracy", "per_class"), logits, labels)
    names = ("low", "middle", "top")
    assert list(found) == ["accuracy", *(f"{kind}/{name}" for name in names for kind in ("precision", "recall", "f1"))]
    expected = precision_recall_fscore_support(labels, logits.argmax(axis=1), labels=[0, 1, 2])
    for kind, values in zip(("precision", "recall", "f1"), expected):
        assert [found[f"{kind}/{name}"] for name in names] == pytest.approx(list(values), abs=1e-12)


def test_two_classes():
    logits, labels = drawn(2, seed=1)
    found = scored(("precision", "recall", "auc", "auc/no", "f1/no"), logits, labels, ("no", "yes"))
    predicted = logits.argmax(axis=1)
    probabilities = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))
    assert found["precision"] == pytest.approx(precision_score(labels, predicted))
    assert found["recall"] == pytest.approx(recall_score(labels, predicted))
    assert found["auc"] == pytest.approx(roc_auc_score(labels, np.round(probabilities, 12)))
    assert found["auc/no"] == pytest.approx(roc_auc_score(1 - labels, np.round(1 - probabilities, 12)))


def test_means_over_the_classes():
    logits, labels = drawn(4, seed=2)
    found = scored(("macro_precision", "macro_recall", "weighted_f1", "auc"), logits, labels, ("a", "b", "c", "d"))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    predicted = logits.argmax(axis=1)
    assert found["macro_precision"] == pytest.approx(precision_score(labels, predicted, average="macro"))
    assert found["macro_recall"] == pytest.approx(recall_score(labels, predicted, average="macro"))
    assert found["weighted_f1"] == pytest.approx(precision_recall_fscore_support(labels, predicted, average="weighted")[2])
    assert found["auc"] == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr", average="macro"))


def test_several_labels():
    generator = np.random.default_rng(3)
    labels = (generator.random((80, 3)) > 0.6).astype(np.float32)
    logits = generator.normal(0, 1, (80, 3)) + labels
    found = scored(("micro_f1", "auc", "per_class"), logits, labels, kind="multi_label")
    assert found["auc"] == pytest.approx(roc_auc_score(labels, logits, average="macro"))
    expected = precision_recall_fscore_support(labels, logits > 0)
    assert [found[f"recall/{name}"] for name in ("low", "middle", "top")] == pytest.approx(list(expected[1]))


def test_what_is_undefined_means_no_relation():
    logits = np.array([[0.0, 9.0], [0.0, 9.0]])
    found = scored(("auc", "precision/no", "recall/no", "f1/no"), logits, np.array([1, 1]), ("no", "yes"))
    assert found == {"auc": 0.5, "precision/no": 0.0, "recall/no": 0.0, "f1/no": 0.0}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (("per_class", "accuracy"), "put one before per_class, or f1/top"),
        (("accuracy", "f1/midle"), "'f1/midle': no class 'midle'; did you mean 'middle'"),
        (("accuracy", "f1"), "'f1' is no metric for this task"),
        (("accuracy", "acc/top"), "'acc/top' is no metric"),
    ],
)
def test_names_that_mean_nothing(metrics, message):
    with pytest.raises(DataError, match=message):
        spec(metrics)
