"""The axes of the report's charts: from values to pixels, the ticks, and how numbers are written at them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_SMALLEST = 1e-12  # what a logarithmic axis can show; below it a difference counts as zero
_LONGEST_LABEL = 7  # characters that fit left of the vertical axis
_FLAT = 1e-5  # a smaller relative spread is a level line, not one over the whole height
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def scientific(value: float | None, digits: int = 1) -> str:
    """`1.2×10⁻⁵`, with so many digits behind the point; 0 stays 0."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def round_number(value: float) -> str:
    """As `scientific`, for limits and axes: `5×10⁻⁵`, `10⁻⁴`."""
    return scientific(value, 0).removeprefix("1×")


def _labels(ticks: Sequence[float], power: int) -> list[str]:
    """`0.25`, or `2.5e-06` where one would be too long; neighbours differ by a multiple of ten to the `power`."""
    labels = [f"{tick:.{max(0, -power)}f}" for tick in ticks]
    if max(map(len, labels)) <= _LONGEST_LABEL:
        return labels
    largest = max(abs(tick) for tick in ticks)
    digits = max(1, math.floor(math.log10(largest)) - power + 1)
    return ["0" if abs(tick) < 1e-9 * largest else f"{tick:.{digits}g}" for tick in ticks]


class Linear:
    """A linear axis from `start` to `end` pixels."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        low, high = min(values, default=0.0), max(values, default=1.0)
        spread = high - low
        largest = max(abs(low), abs(high))
        if spread <= _FLAT * largest:
            spread = largest or 1.0
        step = 10.0 ** math.floor(math.log10(spread / 5))
        step *= next(factor for factor in (1, 2, 5, 10) if spread / (step * factor) <= 6)
        self.low, self.high = math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step
        self.start, self.end = start, end
        count = round((self.high - self.low) / step)
        ticks = [self.low + i * step for i in range(count + 1)]
        self.ticks = list(zip(ticks, _labels(ticks, math.floor(math.log10(step))), strict=True))

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class Steps(Linear):
    """A linear axis that ends with the data: no empty margin after the last training step."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        super().__init__(values, start, end)
        self.low, self.high = min(values, default=0.0), max(values, default=1.0)
        if self.low == self.high:
            self.high += 1
        self.ticks = [(value, f"{value:.0f}") for value, _ in self.ticks if self.low < value <= self.high]
        self.ticks = [tick for tick in self.ticks if float(tick[0]).is_integer()]
        if not self.ticks or self.ticks[0][0] - self.low > 0.06 * (self.high - self.low):
            self.ticks.insert(0, (self.low, f"{self.low:.0f}"))


class Epochs(Linear):
    """A linear axis that ends with the data, whose ticks may be fractions."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        super().__init__([0.0, *values], start, end)
        self.high = max([0.0, *values]) or 1.0
        self.ticks = [tick for tick in self.ticks if self.low <= tick[0] <= self.high]


class Logarithmic:
    """Whole decades around the values and the limit; zeros sit on the axis's foot, which says `0`."""

    def __init__(self, values: Sequence[float], limit: float, start: float, end: float):
        shown = [min(max(value, _SMALLEST), 1e6) for value in values if value > 0] + [limit]
        self.low, self.high = math.floor(math.log10(min(shown)) - 0.15), math.ceil(math.log10(max(shown)) + 0.3)
        self.foot = any(value <= _SMALLEST for value in values)
        if self.foot:
            self.low -= 1
        self.start, self.end = start, end
        every = max(1, math.ceil((self.high - self.low) / 8))
        self.ticks = [(10.0**power, round_number(10.0**power)) for power in range(self.low, self.high + 1, every)]
        if self.foot:
            self.ticks[0] = (0.0, "0")

    def __call__(self, value: float) -> float:
        power = math.log10(value) if value > _SMALLEST else self.low
        power = min(max(power, self.low), self.high)
        return self.start + (power - self.low) / (self.high - self.low) * (self.end - self.start)
