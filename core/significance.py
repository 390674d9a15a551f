"""Whether one model scores better than another on the same examples, or only seems to.

Two tests, both paired, since both models answered the same rows: the exact McNemar test for the share of right answers (McNemar
1947, with the binomial distribution in place of chi-squared), and a bootstrap over the examples for any metric (Efron and
Tibshirani 1993; Berg-Kirkpatrick et al. 2012 for its use in language processing). Where a recipe was run with several seeds,
the bootstrap draws over the seeds too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .metric_samples import Sample

MOST_RESAMPLES = 5000
_CELLS = 20_000_000
"""Draws in all, where that leaves at least `_FEWEST` resamples."""
_FEWEST = 1000
_BLOCK = 2_000_000
"""Draws that are made at once: 16 MB."""

Values = dict[str, list[np.ndarray]]
"""Metric -> of each side its values: (1 + resamples, seeds), the first row on the examples as they are."""


@dataclass(frozen=True)
class Difference:
    """How far the metric of one side is above the other's."""

    value: float
    low: float
    """Of the 95% interval, as `high`."""
    high: float
    p: float
    """Two-sided: how often chance alone would give a difference as large."""


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> float:
    """The exact two-sided p-value that two models with right answers (examples,), booleans, are equally often right. Only rows
    where one is right and the other wrong count; without any it is 1."""
    from scipy.stats import binomtest

    first_only = int((first_right & ~second_right).sum())
    second_only = int((second_right & ~first_right).sum())
    if first_only + second_only == 0:
        return 1.0
    return float(binomtest(first_only, first_only + second_only, 0.5).pvalue)


def drawn_values(samples: Mapping[str, Sequence[Sequence[Sample]]], count: int, seed: int = 0) -> Values:
    """The metrics of each side on the examples and on resamples of them, which are the same for all sides. `samples` says what
    each metric is of a resample, by side and seed; `count` is how many examples there are to draw from."""
    generator = np.random.default_rng(seed)
    resamples = min(MOST_RESAMPLES, max(_FEWEST, _CELLS // count))
    found: dict[str, list[list[np.ndarray]]] = {name: [[] for _ in sides] for name, sides in samples.items()}
    done, block = 0, max(1, _BLOCK // count)
    while done <= resamples:
        rows = 1 if done == 0 else min(block, resamples + 1 - done)
        weights = np.ones((1, count)) if done == 0 else _draws(generator, rows, count)
        for name, own in samples.items():
            for index, side in enumerate(own):
                found[name][index].append(np.stack([sample(weights) for sample in side], axis=1))
        done += rows
    return {name: [np.concatenate(parts) for parts in own] for name, own in found.items()}


def _draws(generator: np.random.Generator, rows: int, count: int) -> np.ndarray:
    """How often each of `count` examples is drawn, of as many draws: (rows, count)."""
    drawn = generator.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def difference(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Difference:
    """first - second of two sides of `resampled`, of the means over their seeds.

    The seeds of a side vary by Student's t distribution with one degree of freedom less than there are seeds: with a handful of
    seeds, drawing among them would make their spread too small, and chance would be called a difference too often. The p-value
    is twice the smaller share of resamples on one side of zero, with one added so that it is never 0 (Davison and Hinkley
    1997, eq. 4.11).
    """
    value = float(first[0].mean() - second[0].mean())
    if first.shape == second.shape and np.array_equal(first, second):
        return Difference(0.0, 0.0, 0.0, 1.0)
    generator = np.random.default_rng(seed)
    ends = [side[1:].mean(axis=1) + _seed_deviation(side[1:], generator) for side in (first, second)]
    drawn = ends[0] - ends[1]
    below, above = int((drawn <= 0).sum()), int((drawn >= 0).sum())
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Difference(value, float(low), float(high), min(1.0, 2 * (1 + min(below, above)) / (len(drawn) + 1)))


def _seed_deviation(values: np.ndarray, generator: np.random.Generator) -> np.ndarray | float:
    """How far the mean over other seeds may be from that over these, of `values` (resamples, seeds): (resamples,)."""
    seeds = values.shape[1]
    if seeds == 1:
        return 0.0
    return values.std(axis=1, ddof=1) / np.sqrt(seeds) * generator.standard_t(seeds - 1, size=len(values))


def holm(values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979): the chance that any of several equal pairs is called different stays
    that of one."""
    order, adjusted, largest = np.argsort(values, kind="stable"), [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, float(values[index]) * (len(values) - rank)))
        adjusted[index] = largest
    return adjusted
