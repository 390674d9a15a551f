"""Points on two axes as inline SVG, each with what it is as a read-out: the charts of a search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .chart_axes import Linear
from .charts import BOTTOM, LEFT, RIGHT, TOP, WIDTH, grid, marker, svg

_GAP = 0.06
"""Of the width, free on both sides."""


@dataclass(frozen=True)
class Point:
    """One marker: `kind` is its shape, `slot` its colour class, `name` and `value` its read-out."""

    x: float
    y: float
    slot: str
    kind: int
    name: str
    value: str


class _Powers:
    """A logarithmic axis around the values, whose ticks are 1, 2 and 5 times powers of ten."""

    def __init__(self, values: Sequence[float], start: float, end: float):
        low, high = math.log10(min(values)), math.log10(max(values))
        margin = _GAP * (high - low) or 0.1
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        every = [(factor * 10.0**power) for power in powers for factor in (1, 2, 5)]
        ticks = [value for value in every if self.low <= math.log10(value) <= self.high]
        self.ticks = [(value, f"{value:g}") for value in ticks]

    def __call__(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)


def scatter_chart(
    ident: str,
    description: str,
    points: Sequence[Point],
    titles: tuple[str, str],
    *,
    logarithmic: bool = False,
    names: Sequence[str] = (),
    joined: Sequence[tuple[float, float]] = (),
    limit: tuple[float, str] | None = None,
    height: int = 330,
) -> Markup:
    """Points over an axis of numbers, or of `names`, whose indices x then is. `joined` are the corners of a line of steps, and
    `limit` is a place on the axis above which nothing is allowed, with its name."""
    bottom, right = height - BOTTOM, WIDTH - RIGHT
    y = Linear([point.y for point in points], bottom, TOP)
    values = [point.x for point in points] + ([limit[0]] if limit else [])
    if names:
        width = (right - LEFT) / len(names)
        every = math.ceil(110 / width)
        ticks = [(index, _short(name) if index % every == 0 else "") for index, name in enumerate(names)]

        def x(value: float) -> float:
            return LEFT + (value + 0.5) * width

    else:
        axis = _Powers(values, LEFT, right) if logarithmic else _padded(values, right)
        x, ticks = axis, axis.ticks
    body = [grid(ticks, x, y, bottom, titles[0], titles[1], vertical=not names)]
    if limit is not None:
        at = x(limit[0])
        body.append(f'<rect class="over" x="{at:.1f}" y="{TOP - 8}" width="{right - at:.1f}" height="{bottom - TOP + 8}"/>')
        body.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        body.append(f'<text class="limit-text" x="{at - 6:.1f}" y="{bottom - 8}" text-anchor="end">{escape(limit[1])}</text>')
    if len(joined) > 1:
        (first, height_), *rest = [(x(a), y(b)) for a, b in joined]
        line = f"M{first:.1f} {height_:.1f}" + "".join(f"H{a:.1f}V{b:.1f}" for a, b in rest)
        body.append(f'<path class="line b1 d0" d="{line}"/>')
    for point in points:
        tip = escape(f"{point.name}|{titles[1]}|{point.value}")
        body.append(f'<path class="marker {point.slot}" data-tip="{tip}" d="{marker(point.kind, x(point.x), y(point.y))}"/>')
    return svg(ident, description, "".join(body), height)


def _padded(values: Sequence[float], right: float) -> Linear:
    low, high = min(values), max(values)
    margin = _GAP * (high - low)
    axis = Linear([low - margin, high + margin], LEFT, right)
    axis.low, axis.high = (low - margin, high + margin) if margin else (axis.low, axis.high)
    axis.ticks = [tick for tick in axis.ticks if axis.low <= tick[0] <= axis.high]
    return axis


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
