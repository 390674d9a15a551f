"""To which lengths a stage pads where each shape of a batch costs a compilation: chosen by the lengths that its steps have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MULTIPLE = 4
COMPILATION = 28_000
"""Tokens, padding included, that optimizer steps compute in the time of a compilation. On MindSpore, one thread of a CPU, it was
11,000 where 12 layers x 768 teach 6, 29,000 at half that width, 36,000 where 6 layers x 384 teach 3, and 80,000 and more for
small models. Near the cheapest lengths the cost is flat, and there are never more shapes than usual: a wrong number costs
little."""


def few_lengths(longest: np.ndarray, steps: int, batch_size: int, usual: Sequence[int]) -> tuple[int, ...]:
    """The lengths, in rising order, that cost least in all: each step is padded to the next one, and each one is compiled once.

    `longest` are the lengths of the longest texts of the steps of an epoch (steps,), in their order; a stage takes `steps` steps
    of `batch_size` examples. Of the `usual` lengths the last is the longest allowed, and there are never more shapes than with
    them. The lengths are multiples of 4, and the last holds every text.
    """
    usual = np.sort(np.asarray(usual))
    longest = np.maximum(longest, 1)  # texts without a known word
    rounded = np.minimum(-(-longest // MULTIPLE) * MULTIPLE, usual[-1])
    taken = rounded[:steps]
    lengths, counts = np.unique(taken, return_counts=True)
    most = len(np.unique(np.searchsorted(usual, longest[:steps])))
    epochs = max(1.0, steps / len(longest))
    best = _cheapest(lengths, counts * epochs * batch_size, most)
    return (*best, *{int(rounded.max())}.difference(best))


def _cheapest(lengths: np.ndarray, texts: np.ndarray, most: int) -> list[int]:
    """At most that many of rising `lengths` (N,), the last among them, such that `texts` (N,) padded to the next one and the
    compilations cost least: by the cheapest way to the lengths before the last one (dynamic programming)."""
    before = np.concatenate([[0.0], np.cumsum(texts)])
    cost, ways = np.full(len(lengths) + 1, np.inf), []
    cost[0] = 0.0
    best, chosen = np.inf, 0
    for number in range(1, most + 1):
        found = [cost[: end + 1] + (before[end + 1] - before[: end + 1]) * lengths[end] for end in range(len(lengths))]
        ways.append([int(np.argmin(each)) for each in found])
        cost = np.array([np.inf, *(each.min() + COMPILATION for each in found)])
        if cost[-1] < best:
            best, chosen = cost[-1], number
    end, kept = len(lengths), []
    for way in reversed(ways[:chosen]):
        kept.append(int(lengths[end - 1]))
        end = way[end - 1]
    return kept[::-1]
