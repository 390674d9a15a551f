"""Tables of numbers that a model computes with and that nothing trains, each made once from a few numbers (`Ops.static`)."""

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


def rotary_cosines(length: int, size: int, base: float) -> np.ndarray:
    """(length, size) float32: the cosines of the angles by which the two halves of a head of this `size` are rotated at each
    place (Su et al. 2021, equation 34)."""
    return np.cos(_angles(length, size, base).astype(np.float64)).astype(np.float32)


def rotary_sines(length: int, size: int, base: float) -> np.ndarray:
    """(length, size) float32: the sines of the same angles."""
    return np.sin(_angles(length, size, base).astype(np.float64)).astype(np.float32)


def _angles(length: int, size: int, base: float) -> np.ndarray:
    """(length, size): place times base^(-2 i / size), once for each half."""
    # In float32, as the published code has it: at far places the rounding is larger than the results' own.
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    frequencies = np.float32(1) / np.power(np.float32(base), exponents, dtype=np.float32)
    angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
    return np.concatenate([angles, angles], axis=1)


def places(length: int) -> np.ndarray:
    """(length,) float32: the numbers of the places of a text, from 0."""
    return np.arange(length, dtype=np.float32)


def zeros(size: int) -> np.ndarray:
    """(size,) float32: what stands for a bias that a model does not have."""
    return np.zeros(size, np.float32)


def tokens_behind(length: int) -> np.ndarray:
    """(length, length) float32: 1 where place j is behind place i, else 0."""
    return np.triu(np.ones((length, length), np.float32), 1)


def distance_rows(length: int, buckets: int, farthest: int, span: int) -> np.ndarray:
    """(length, length) int32: the row, of a table of 2 `span`, for the distance from place j to place i. Row `span` is that of no
    distance. Of `buckets` half are for what lies ahead; in each half one for each of the nearest distances, then wider ones up to
    `farthest`, as DeBERTa's second version has them; without buckets there is a row for each distance."""
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    if exact := buckets // 2:
        size = np.abs(distance)
        # In float32, as the published code has it: at a bucket's edge the rounding decides.
        share = np.log(np.maximum(size, exact).astype(np.float32) / np.float32(exact))
        share = share / np.log(np.float32((farthest - 1) / exact))
        wide = np.sign(distance) * (np.ceil(share * np.float32(exact - 1)).astype(np.int64) + exact)
        distance = np.where(size <= exact, distance, wide)
    return np.clip(distance + span, 0, 2 * span - 1).astype(np.int32)


def identity(size: int) -> np.ndarray:
    """(size, size) float32: 1 where a row is compared with itself."""
    return np.eye(size, dtype=np.float32)


TABLES: dict[str, Callable[..., np.ndarray]] = {
    "relative_buckets": relative_buckets,
    "rotary_cosines": rotary_cosines,
    "rotary_sines": rotary_sines,
    "places": places,
    "zeros": zeros,
    "tokens_behind": tokens_behind,
    "distance_rows": distance_rows,
    "identity": identity,
}
"""Name -> what makes it."""


@functools.lru_cache(16)
def static_table(name: str, arguments: tuple[float, ...]) -> np.ndarray:
    """The table `name` of these arguments; KeyError where there is none."""
    return TABLES[name](*arguments)
