"""Is a difference real: against scikit-learn and scipy on the drawn rows, the binomial formula, and on pure chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from crossdistil.core.metric_samples import sampled_class, sampled_metric
from crossdistil.core.metrics import compute_metrics
from crossdistil.core.significance import difference, drawn_values, holm, mcnemar


@pytest.mark.parametrize("first_only, second_only", [(0, 0), (1, 0), (0, 5), (3, 3), (10, 2), (40, 61)])
def test_mcnemar_is_the_exact_binomial_test(first_only, second_only):
    first = np.array([True] * first_only + [False] * second_only + [True] * 7 + [False] * 3)
    second = np.array([False] * first_only + [True] * second_only + [True] * 7 + [False] * 3)
    n = first_only + second_only
    expected = min(1.0, 2 * sum(math.comb(n, k) for k in range(min(first_only, second_only) + 1)) / 2**n)
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-12)
    if n:
        assert mcnemar(first, second) == pytest.approx(binomtest(first_only, n).pvalue, rel=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "names, outputs, kind",
    [
        (("accuracy", "f1", "macro_f1", "matthews", "precision", "recall", "weighted_f1", "auc"), 2, "classes"),
        (("accuracy", "macro_f1", "matthews", "macro_precision", "macro_recall", "weighted_f1", "auc"), 5, "classes"),
        (("pearson", "spearman"), 1, "scores"),
        (("micro_f1", "macro_f1", "exact_match", "auc"), 3, "several"),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 3, 60])
def test_resamples_are_scored_as_the_drawn_rows_are(names, outputs, kind, count):
    generator = np.random.default_rng(count)
    logits = np.round(generator.normal(size=(count, outputs)), 1)  # with ties
    labels = {
        "classes": lambda: generator.integers(0, outputs, count),
        "scores": lambda: np.round(generator.normal(size=count)).astype(np.float32) + 1000,
        "several": lambda: (generator.random((count, outputs)) > 0.5).astype(np.float32),
    }[kind]()
    weights = generator.multinomial(count, np.full(count, 1 / count), size=25).astype(np.float64)
    for name in names:
        values = sampled_metric(name, logits, labels)(weights)
        for drawn, value in zip(weights, values, strict=True):
            rows = np.repeat(np.arange(count), drawn.astype(int))
            assert value == pytest.approx(compute_metrics([name], logits[rows], labels[rows])[name], abs=1e-9)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("several", [False, True])
def test_resamples_of_one_class_are_scored_as_scikit_learn_scores_them(several):
    from sklearn import metrics

    generator, count = np.random.default_rng(4), 40
    logits = np.round(generator.normal(size=(count, 3)), 1)  # with ties
    labels = (generator.random((count, 3)) > 0.5).astype(np.float32) if several else generator.integers(0, 3, count)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for index in range(3):
        true = labels[:, index] > 0.5 if several else labels == index
        said = logits[:, index] > 0 if several else logits.argmax(axis=1) == index
        scores = logits[:, index] if several else np.round(shares[:, index], 12)
        for drawn in generator.multinomial(count, np.full(count, 1 / count), size=5):
            rows = np.repeat(np.arange(count), drawn)
            counted = metrics.precision_recall_fscore_support(true[rows], said[rows], average="binary")
            expected = dict(zip(("precision", "recall", "f1"), counted))
            expected["auc"] = metrics.roc_auc_score(true[rows], scores[rows])
            found = {name: sampled_class(name, index, logits, labels)(drawn[None].astype(float))[0] for name in expected}
            assert found == pytest.approx(expected, abs=1e-9)


def _binary(labels, right):
    predicted = np.where(right, labels, 1 - labels)
    return np.eye(2)[predicted]


def _p(sides, labels, name="accuracy"):
    samples = [[sampled_metric(name, logits, labels) for logits in side] for side in sides]
    return difference(*drawn_values({name: samples}, len(labels))[name])


def test_the_bootstrap_agrees_with_the_normal_approximation():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 2, 800)
    rights = [generator.random(800) < share for share in (0.86, 0.83)]
    found = _p([[_binary(labels, right)] for right in rights], labels)
    each = rights[0].astype(float) - rights[1]
    error = each.std() / math.sqrt(800)
    assert found.value == pytest.approx(each.mean())
    assert (found.low, found.high) == pytest.approx((each.mean() - 1.96 * error, each.mean() + 1.96 * error), abs=0.1 * error)
    assert found.p == pytest.approx(math.erfc(abs(each.mean()) / error / math.sqrt(2)), abs=0.02)


def test_identical_answers_differ_by_nothing():
    labels = np.array([0, 1, 1])
    side = [_binary(labels, np.array([True, False, True]))]
    assert vars(_p([side, side], labels)) == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_chance_is_seldom_called_a_difference(seeds):
    """Two recipes that are alike, whose seeds vary by more than the examples do."""
    generator, called, rounds = np.random.default_rng(seeds), 0, 80
    for _ in range(rounds):
        labels = generator.integers(0, 2, 100)
        hard = generator.random(100)
        shifts = generator.normal(0, 0.05 * (seeds > 1), (2, seeds))
        sides = [[_binary(labels, generator.random(100) > 0.6 * hard - shift) for shift in own] for own in shifts]
        called += _p(sides, labels).p < 0.05
    assert called / rounds < 0.12  # 0.05, and what 80 rounds may be off


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]
