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


def draw(found: dict[str, Any], cases: Sequence[Case], path: Path) -> None:
    """Draw the content of the command's JSON, one panel a case, into `path`, whose name says in which format."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = found["models"]
    height = 0.9 + 0.36 * len(models)
    figure, axes = pyplot.subplots(len(cases), 1, figsize=(8, height * len(cases) + 0.4), squeeze=False, layout="constrained")
    for case, axis in zip(cases, axes[:, 0]):
        for place, model in enumerate(models.values()):
            own = model[case.name]
            median, late = (own["request_milliseconds"][part] for part in ("p50", "p95"))
            colour, hatch = _COLOURS[place % len(_COLOURS)], _HATCHES[place // len(_COLOURS) % len(_HATCHES)]
            axis.barh(place, median, color=colour, hatch=hatch, edgecolor="white", height=0.7)
            axis.plot([median, late], [place, place], color="#444444", linewidth=1.2, marker="|", markevery=[1])
            text = f" {median:,.2f} ms, {own['texts_per_second']:,.0f} texts/s, {own['speed_up']['median']:.2f}x"
            axis.text(max(median, late), place, text, va="center", fontsize=8)
        names = [f"{name} ({model['runs_in']} {model['precision']})" for name, model in models.items()]
        axis.set_yticks(range(len(models)), names)
        axis.invert_yaxis()
        axis.set_title(case.title, loc="left", fontsize=10)
        axis.set_xlabel("ms a request: median, line to p95")
        axis.margins(x=0.35)
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
    machine = found["machine"]
    figure.suptitle(f"{machine['cpu']}, threads: {machine['threads']}, {found['date']}", fontsize=9, x=0.99, ha="right")
    with replace_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=144)
    pyplot.close(figure)
