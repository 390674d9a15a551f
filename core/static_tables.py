"""Tables of numbers that a model computes with and that nothing trains, each made once from a few integers (`Ops.static`)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np


def relative_buckets(length: int, buckets: int, farthest: int) -> np.ndarray:
    """(length, length) int32: the bucket of the distance from place i to place j. Half of the buckets are for what lies behind;
    in each half one for each of the nearest distances, then wider ones up to `farthest`, from where on all are in the last
    (Raffel et al. 2020, section 2.1; Song et al. 2020 have it for MPNet)."""
    half, exact = buckets // 2, buckets // 4
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    size = np.abs(distance)
    # In float32, as the published code has it: at a bucket's edge the rounding decides.
    share = np.log(np.maximum(size, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(farthest / exact))
    wide = exact + (share * np.float32(half - exact)).astype(np.int32)
    return ((distance > 0) * half + np.where(size < exact, size, np.minimum(wide, half - 1))).astype(np.int32)


TABLES: dict[str, Callable[..., np.ndarray]] = {"relative_buckets": relative_buckets}
"""Name -> what makes it."""


@functools.lru_cache(16)
def static_table(name: str, arguments: tuple[int, ...]) -> np.ndarray:
    """The table `name` of these arguments; KeyError where there is none."""
    return TABLES[name](*arguments)
