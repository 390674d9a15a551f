"""The report's charts as inline SVG: no plotting library could follow the reader's light or dark theme.

Colours come from classes (`b0`, `b1`, ... for backends, `p0`, ... for pairs) that report.html defines. Series are told
apart by width, dash or marker as well, never by colour alone. Values for the hover read-out travel as JSON beside the
chart, in the chart's own coordinates; without a script the charts are complete, only mute.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from .chart_axes import Epochs, Linear, Logarithmic, Steps, round_number, scientific

WIDTH = 960
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 34, 44
MOST_POINTS = 1500
FEW_POINTS = 24  # of a curve over epochs: up to here each is marked, and one alone can be seen


@dataclass(frozen=True)
class Series:
    """One line or one set of markers; `slot` is its colour class."""

    name: str
    slot: str
    x: Sequence[float]
    y: Sequence[float | None]
    notes: Sequence[str] = ()  # what the read-out adds to each point


def line_chart(
    ident: str,
    description: str,
    series: Sequence[Series],
    y_title: str,
    *,
    limit: float | None = None,
    height: int = 330,
    over_epochs: bool = False,
) -> Markup:
    """Series over training steps, or over epochs, where each has a style of its own. With `limit` the y axis is logarithmic,
    each step is a dot, and a line carries the largest value so far: that is what the limit judges. Without, the first
    series over steps is wide and the last one thin and dashed, so that curves on top of each other stay visible."""
    series = _thin(series)
    flat = [y for one in series for y in one.y if y is not None]
    x = (Epochs if over_epochs else Steps)([value for one in series for value in one.x], LEFT, WIDTH - RIGHT)
    bottom, x_title = height - BOTTOM, "epoch" if over_epochs else "step"
    y = Linear(flat, bottom, TOP) if limit is None else Logarithmic(flat, limit, bottom, TOP)
    body = [grid(x.ticks, x, y, bottom, x_title, y_title)]
    if limit is not None:
        body.append(_limit_across(y(limit), limit))
    for index, one in enumerate(series):
        points = [(x(a), y(b)) for a, b in zip(one.x, one.y, strict=True) if b is not None]
        if limit is None:
            style = f"d{index % 4}" if over_epochs else line_style(index, len(series))
            body.append(f'<path class="line {one.slot} {style}" d="{_path(points)}"/>')
            if over_epochs and len(points) <= FEW_POINTS:
                body += [f'<path class="marker {one.slot}" d="{marker(index, a, b, 4.0)}"/>' for a, b in points]
            continue
        dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in points)
        body.append(f'<path class="dots {one.slot}" d="{dots}"/>')
        highest = bottom
        peaks = [(a, highest := min(highest, b)) for a, b in points]
        body.append(f'<path class="line {one.slot} d{index % 4}" d="{_path(peaks, steps=True)}"/>')
    steps = sorted({step for one in series for step in one.x})
    readout = {
        "x": [round(x(step), 1) for step in steps],
        "label": [f"{x_title} {step:.5g}" if over_epochs else f"step {step}" for step in steps],
        "series": [_readout(one, steps, y, limit is not None) for one in series],
    }
    return svg(ident, description, "".join(body), height, readout)


def column_chart(
    ident: str, description: str, categories: Sequence[str], series: Sequence[Series], y_title: str, limit: float
) -> Markup:
    """Markers over categories from left to right (x of a series = index of the category), logarithmic."""
    height, left, right = 300, LEFT, WIDTH - RIGHT
    bottom = height - BOTTOM
    y = Logarithmic([value for one in series for value in one.y if value is not None], limit, bottom, TOP)
    width = (right - left) / max(len(categories), 1)
    every = math.ceil(100 / width)  # a label is up to 100 wide
    ticks = [(i, label if i % every == 0 else "") for i, label in enumerate(categories)]

    def x(index: float) -> float:
        return left + (index + 0.5) * width

    body = [grid(ticks, x, y, bottom, "", y_title, vertical=False), _limit_across(y(limit), limit)]
    gap = min(13.0, width / (len(series) + 1))
    for index, one in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * gap
        points = [(x(a) + shift, y(b)) for a, b in zip(one.x, one.y, strict=True) if b is not None]
        body.append(f'<path class="thread {one.slot}" d="{_path(points)}"/>')
        body += _markers(one, points, index, categories)
    return svg(ident, description, "".join(body), height)


def row_chart(
    ident: str, description: str, categories: Sequence[str], series: Sequence[Series], x_title: str, limit: float
) -> Markup:
    """Markers over categories from top to bottom (x of a series = index of the category), logarithmic to the right."""
    row, left, top = 26, 190, 22
    bottom = top + 6 + row * len(categories)
    x = Logarithmic([value for one in series for value in one.y if value is not None], limit, left, WIDTH - RIGHT)
    at, name = x(limit), f"limit {round_number(limit)}"
    body = [f'<rect class="over" x="{at:.1f}" y="{top}" width="{WIDTH - RIGHT - at:.1f}" height="{bottom - top}"/>']
    for index, label in enumerate(categories):
        middle = top + 6 + (index + 0.5) * row
        body.append(f'<line class="grid" x1="{left}" x2="{WIDTH - RIGHT}" y1="{middle:.1f}" y2="{middle:.1f}"/>')
        body.append(f'<text class="tick" x="{left - 12}" y="{middle + 4:.1f}" text-anchor="end">{escape(label)}</text>')
    for value, label in x.ticks:
        body.append(f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{top}" y2="{bottom}"/>')
        body.append(f'<text class="tick" x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    body.append(f'<text class="title" x="{WIDTH - RIGHT}" y="{bottom + 38}" text-anchor="end">{escape(x_title)}</text>')
    body.append(f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="{top}" y2="{bottom}"/>')
    body.append(f'<text class="limit-text" x="{at:.1f}" y="{top - 8}" text-anchor="middle">{name}</text>')
    for index, one in enumerate(series):
        shift = (index - (len(series) - 1) / 2) * min(6.0, 16 / len(series))
        points = [(x(b), top + 6 + (a + 0.5) * row + shift) for a, b in zip(one.x, one.y, strict=True) if b is not None]
        body += _markers(one, points, index, categories)
    return svg(ident, description, "".join(body), bottom + BOTTOM)


def line_style(index: int, count: int) -> str:
    """Class of line `index` of `count` in a chart of overlapping curves, from the widest, `w0`; of two, one is thin."""
    return f"w{min(index, 5) if count > 2 else 2 * index}"


def marker(index: int, x: float, y: float, size: float = 5.0) -> str:
    """Path data of the marker of series `index`: circle, square, diamond, triangle, then again."""
    long = 1.3 * size
    shapes = (
        f"M{x - size:.1f} {y:.1f}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0z",
        f"M{x - size * 0.9:.1f} {y - size * 0.9:.1f}h{1.8 * size}v{1.8 * size}h{-1.8 * size}z",
        f"M{x:.1f} {y - long:.1f}l{long} {long}l{-long} {long}l{-long} {-long}z",
        f"M{x:.1f} {y - 1.2 * size:.1f}l{1.2 * size} {2.1 * size}h{-2.4 * size}z",
    )
    return shapes[index % len(shapes)]


def _markers(one: Series, points: list[tuple[float, float]], index: int, categories: Sequence[str]) -> list[str]:
    kept = [i for i, value in enumerate(one.y) if value is not None]
    found = []
    for (x, y), i in zip(points, kept, strict=True):
        note = f" · {one.notes[i]}" if one.notes else ""
        tip = escape(f"{categories[int(one.x[i])]}{note}|{one.name}|{scientific(one.y[i], 2)}")
        found.append(f'<path class="marker {one.slot}" data-tip="{tip}" d="{marker(index, x, y)}"/>')
    return found


def grid(ticks, x, y, bottom: float, x_title: str, y_title: str, vertical: bool = True) -> str:
    """The lines of a chart's axes, with ticks (value, label) and titles."""
    parts = []
    for value, label in y.ticks:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 10}" y="{y(value) + 4:.1f}" text-anchor="end">{label}</text>')
    for value, label in ticks:
        at, text = f"{x(value):.1f}", escape(label)
        if vertical:
            parts.append(f'<line class="axis" x1="{at}" x2="{at}" y1="{bottom}" y2="{bottom + 5}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{bottom + 20}" text-anchor="middle">{text}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    end = f'x="{WIDTH - RIGHT}" y="{bottom + 38}" text-anchor="end"'
    parts.append(f'<text class="title" {end}>{escape(x_title)}</text>')
    parts.append(f'<text class="title" x="{LEFT}" y="{TOP - 18}">{escape(y_title)}</text>')
    return "".join(parts)


def _limit_across(at: float, limit: float) -> str:
    right, name = WIDTH - RIGHT, f"limit {round_number(limit)}"
    return (
        f'<rect class="over" x="{LEFT}" y="{TOP - 8}" width="{right - LEFT}" height="{max(at - TOP + 8, 0):.1f}"/>'
        f'<line class="limit" x1="{LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="limit-text" x="{right - 4}" y="{at - 6:.1f}" text-anchor="end">{name}</text>'
    )


def _path(points: Sequence[tuple[float, float]], steps: bool = False) -> str:
    if not points:
        return ""
    start, *rest = points
    draw = "".join(f"H{x:.1f}V{y:.1f}" if steps else f"L{x:.1f} {y:.1f}" for x, y in rest)
    # A path of one point draws nothing; with round line caps one of no length is a dot.
    return f"M{start[0]:.1f} {start[1]:.1f}{draw or 'h0'}"


def _thin(series: Sequence[Series]) -> list[Series]:
    """At most MOST_POINTS steps: of each group of steps the one with the largest value, so that no peak is lost."""
    highest: dict[float, float] = {}
    for one in series:
        for step, value in zip(one.x, one.y, strict=True):
            highest[step] = max(highest.get(step, -math.inf), -math.inf if value is None else value)
    steps = sorted(highest)
    size = math.ceil(len(steps) / MOST_POINTS)
    if size <= 1:
        return list(series)
    kept = {max(steps[start : start + size], key=highest.__getitem__) for start in range(0, len(steps), size)}
    thinned = []
    for one in series:
        points = [(step, value) for step, value in zip(one.x, one.y, strict=True) if step in kept]
        thinned.append(Series(one.name, one.slot, *zip(*points, strict=True)) if points else one)
    return thinned


def _readout(one: Series, steps: Sequence[float], axis, tiny: bool) -> dict[str, object]:
    known = dict(zip(one.x, one.y, strict=True))
    values = [known.get(step) for step in steps]
    shown = ["–" if value is None else scientific(value, 2) if tiny else f"{value:.7g}" for value in values]
    return {
        "name": one.name,
        "slot": one.slot,
        "value": shown,
        "y": [None if value is None else round(axis(value), 1) for value in values],
    }


def svg(ident: str, description: str, body: str, height: float, readout: dict[str, object] | None = None) -> Markup:
    """A chart of these shapes."""
    data = ""
    if readout is not None:
        text = json.dumps(readout, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        data = f'<script type="application/json" class="readout">{text}</script>'
    focus = f' tabindex="0" data-bottom="{height - BOTTOM}"' if readout is not None else ""
    return Markup(
        f'<div class="scroll"><svg id="{ident}" class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-labelledby="{ident}-text"{focus}><desc id="{ident}-text">{escape(description)}</desc>'
        f'{body}<g class="cursor"></g></svg></div>{data}'
    )
