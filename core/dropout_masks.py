"""Which elements dropout keeps, on a CPU, by 16-bit random numbers: four of each 64-bit number of NumPy's SFC64, which costs
less than any generator of the frameworks there.

An element is dropped where its number is below a threshold of 65,536 ones, so a rate is rounded to 1/65,536: 0.1 drops
6,554 of 65,536, which is 0.100006. Kept elements are multiplied by the scale of that rounded rate, so that the expectation is
exact. Masks are a function of the seed and of the order in which they are drawn, not of threads or processes.
"""

from __future__ import annotations

import math

import numpy as np

LEVELS = 65536


def threshold(rate: float) -> int:
    """Below which of 65,536 numbers an element is dropped: no rate above 0 becomes none, and none below 1 becomes all."""
    return min(max(round(rate * LEVELS), 1), LEVELS - 1)


def scale(rate: float) -> float:
    """What kept elements are multiplied by."""
    return LEVELS / (LEVELS - threshold(rate))


class Draws:
    """A sequence of masks that a seed decides."""

    def __init__(self, seed: int = 0):
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin the sequence of that seed."""
        self._generator = np.random.SFC64(seed)

    def kept(self, shape: tuple[int, ...], rate: float) -> np.ndarray:
        """The next mask: booleans of that shape, True with a probability of 1 - `threshold(rate)` / 65,536."""
        size = math.prod(shape)
        numbers = self._generator.random_raw(-(-size // 4)).view(np.uint16)[:size]
        return (numbers >= threshold(rate)).reshape(shape)
