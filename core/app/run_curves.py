"""The curves of a run's report: what was logged and evaluated, over the epochs that were really trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ..errors import RunFolderError
from ..json_files import json_lines
from ..metrics import CLM_LOSS, MLM_LOSS
from ..run_files import WATCHED
from ..shown import shown
from .charts import Series, line_chart
from .comparison_view import is_number

SLOTS = 6  # colours that report_style.css defines
_MASKED = {
    MLM_LOSS: "loss on dev, nats a masked token",
    CLM_LOSS: "loss on dev, nats a token",
    "perplexity": "perplexity on dev",
}

_WRONG = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
"""What a line raises that has not the shape of a run's."""


@dataclass(frozen=True)
class Chart:
    """One picture with its legend."""

    title: str
    legend: list[dict[str, str]]
    picture: Markup


@dataclass(frozen=True)
class _Watched:
    """Of a step: the norm of its gradient, and the teacher's entropy in the loss and its terms, which is their lowest value."""

    gradient_norm: float | None = None
    loss: float = 0.0
    terms: dict[str, float] = field(default_factory=dict)


@dataclass
class _Lines:
    """Curves by name, each as its points (epoch, value)."""

    points: dict[str, list[tuple[float, float | None]]] = field(default_factory=dict)

    def add(self, name: str, epoch: float, value: Any, times: float = 1) -> None:
        known = isinstance(value, (int, float)) and math.isfinite(value)
        self.points.setdefault(name, []).append((epoch, times * float(value) if known else None))

    def known(self) -> dict[str, list[tuple[float, float | None]]]:
        """Those that have a point to show."""
        return {name: points for name, points in self.points.items() if any(y is not None for _, y in points)}


def curves(metrics: Path, stages: Sequence[dict[str, Any]]) -> list[Chart]:
    """The charts of a run's metrics.jsonl, those that have anything to show; `stages` are those of result.json, whose epochs
    follow each other. Raises CrossdistilError."""
    before, total = {}, 0.0
    for stage in stages:
        before[stage["name"]], total = total, total + stage["epochs"]
    found = {name: _Lines() for name in ("loss", "terms", "rate", "norm", "scores", "numbers", *_MASKED, "speed")}
    beside = _watched(metrics.with_name(WATCHED))
    for number, line in json_lines(metrics, any_number=True):
        try:
            _add(found, line, before.get(line.get("stage"), 0.0), beside.get(line["step"], _Watched()))
        except _WRONG as error:
            raise _no_line(metrics, number, line) from error
    titles = {
        "loss": ("Training loss", "loss, weighted sum of the terms"),
        "terms": ("Terms of the loss", "value of each term, before its weight"),
        "scores": ("Score on dev", "score on dev, %"),
        "numbers": ("Scores on dev that are no shares", "score on dev, without unit"),
        **{name: (name.replace("_", " ").capitalize(), text) for name, text in _MASKED.items()},
        "rate": ("Learning rate", "learning rate of the step"),
        "norm": ("Gradient", "norm of the gradient before it is clipped"),
        "speed": ("Speed", "tokens per second"),
    }
    return [_chart(key, *titles[key], known) for key in titles if (known := found[key].known())]


def _watched(path: Path) -> dict[int, _Watched]:
    """What was only looked at, by the step; runs of earlier versions have none."""
    found = {}
    for number, line in json_lines(path, any_number=True) if path.is_file() else ():
        try:
            lowest = line.get("teacher_entropy") or {"loss": 0.0, "terms": {}}
            terms = {name: float(value) for name, value in lowest["terms"].items()}
            found[line["step"]] = _Watched(line.get("gradient_norm"), float(lowest["loss"]), terms)
        except _WRONG as error:
            raise _no_line(path, number, line) from error
    return found


def _add(found: dict[str, _Lines], line: dict[str, Any], before: float, watched: _Watched) -> None:
    """What a line of metrics.jsonl has for each curve, `before` epochs after the start of the run."""
    epoch = before + line["epoch"]
    if not math.isfinite(epoch):
        raise ValueError(epoch)
    if "loss" in line:
        found["loss"].add("loss", epoch, _above(line["loss"], watched.loss))
        found["rate"].add("learning rate", epoch, line.get("learning_rate"))
        found["speed"].add("tokens per second", epoch, line.get("tokens_per_second"))
        for name, value in (line.get("terms") or {}).items():
            found["terms"].add(name, epoch, _above(value, watched.terms.get(name, 0.0)))
        if watched.gradient_norm is not None:
            found["norm"].add("norm of the gradient", epoch, watched.gradient_norm)
    for name, value in ((line.get("evaluation") or {}).get("dev") or {}).items():
        if name in _MASKED:
            found[name].add(name, epoch, value)
        elif is_number(name):
            found["numbers"].add(name.replace("_", " "), epoch, value)
        else:
            found["scores"].add(name.replace("_", " "), epoch, value, 100)


def _no_line(path: Path, number: int, line: Any) -> RunFolderError:
    what = f"is no line of a run's log, got {shown(line, 80)}"
    return RunFolderError(f"{path}: line {number}: {what}; remove the file, and the report has no curves of it")


def _above(value: Any, lowest: float) -> Any:
    """A value over the teacher's entropy, so that a curve of what is learned from the teacher goes to 0."""
    return value - lowest if isinstance(value, (int, float)) else value


def _chart(ident: str, title: str, unit: str, lines: dict[str, list[tuple[float, float | None]]]) -> Chart:
    series = [
        Series(name, f"b{index % SLOTS}", [x for x, _ in points], [y for _, y in points])
        for index, (name, points) in enumerate(lines.items())
    ]
    ends = "; ".join(f"{one.name} from {_end(one.y, 0)} to {_end(one.y, -1)}" for one in series)
    picture = line_chart(ident, f"Line chart: {unit}, over the epochs. {ends}.", series, unit, over_epochs=True, height=260)
    legend = [{"name": one.name, "slot": one.slot, "line": f"d{index % 4}"} for index, one in enumerate(series)]
    return Chart(title, legend if len(series) > 1 else [], picture)


def _end(values: Sequence[float | None], index: int) -> str:
    known = [value for value in values if value is not None]
    return f"{known[index]:.4g}" if known else "nothing finite"
