"""The times of `crossdistil latency` as a picture: a group of bars for each size of a request, with its median and its p95."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import replace_file
from .timed_model import Case

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's, which people with any kind of colour vision tell apart; hatches tell those apart that come again."""
_HATCHES = ("", "//", "xx", "..")
_ROOM = 0.02
"""Of a panel's width, free behind the longest label."""


def draw(found: dict[str, Any], cases: Sequence[Case], path: Path) -> None:
    """Draw the content of the command's JSON, one panel a case, into `path`, whose name says in which format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = found["models"]
    height = 0.9 + 0.36 * len(models)
    figure, axes = pyplot.subplots(len(cases), 1, figsize=(8, height * len(cases) + 0.4), squeeze=False, layout="constrained")
    panels = []
    for case, axis in zip(cases, axes[:, 0]):
        labels = []
        for place, model in enumerate(models.values()):
            own = model[case.name]
            median, late = (own["request_milliseconds"][part] for part in ("p50", "p95"))
            colour, hatch = _COLOURS[place % len(_COLOURS)], _HATCHES[place // len(_COLOURS) % len(_HATCHES)]
            axis.barh(place, median, color=colour, hatch=hatch, edgecolor="white", height=0.7)
            axis.plot([median, late], [place, place], color="#444444", linewidth=1.2, marker="|", markevery=[1])
            text = f" {median:,.2f} ms, {own['texts_per_second']:,.0f} texts/s, {own['speed_up']['median']:.2f}x"
            label = axis.text(max(median, late), place, text, va="center", fontsize=8)
            label.set_in_layout(False)  # the panel makes room for it, not the layout
            labels.append((label, max(median, late)))
        names = [f"{name} ({model['runs_in']} {model['precision']})" for name, model in models.items()]
        axis.set_yticks(range(len(models)), names)
        axis.invert_yaxis()
        axis.set_title(case.title, loc="left", fontsize=10)
        axis.set_xlabel("ms a request: median, line to p95")
        axis.spines[["top", "right"]].set_visible(False)
        panels.append((axis, labels))
    machine = found["machine"]
    figure.suptitle(f"{machine['cpu']}, threads: {machine['threads']}, {found['date']}", fontsize=9, x=0.99, ha="right")
    figure.draw_without_rendering()  # after which the width of the labels and of the panels is known
    for axis, labels in panels:
        axis.set_xlim(0, _end_of_axis(axis, labels))
    with replace_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=144)
    pyplot.close(figure)


def _end_of_axis(axis: Any, labels: Sequence[tuple[Any, float]]) -> float:
    """Where an axis from 0 ends so that each label, which begins at its value, has room beside its bar."""
    width = axis.get_window_extent().width
    shares = [min(text.get_window_extent().width / width + _ROOM, 0.9) for text, _ in labels]
    return max(value / (1 - share) for (_, value), share in zip(labels, shares, strict=True))
