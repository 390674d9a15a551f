"""Calls of a plugin's functions: what they raise or return wrongly is told with the file and line."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import CrossdistilError, PluginError
from .kinds.kind import Kind
from .metrics import Metric
from .plugin_errors import error_text, plugin_line
from .registered import RegisteredMetric, RegisteredSchedule
from .shown import shown


def first_line(function: Any, place: str) -> str:
    """`FILE:LINE` of a function, or where it was registered."""
    code = getattr(function, "__code__", None)
    return place if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def checked_metric(metric: RegisteredMetric) -> Metric:
    """A plugin's metric, whose result is a finite number, or a PluginError."""

    def compute(logits: np.ndarray, labels: np.ndarray) -> float:
        place = first_line(metric.function, metric.place)
        try:
            value = metric.function(logits.copy(), labels.copy())
        except CrossdistilError:
            raise
        except Exception as error:
            where = plugin_line(error, [metric.place.rpartition(":")[0]]) or place
            raise PluginError(f"{where}: metric '{metric.name}' fails: {error_text(error)}") from error
        if not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise PluginError(f"{place}: metric '{metric.name}' returns {shown(value, 60)}, expected a finite number")
        return float(value)

    return compute


def from_kind(kind: Kind, method: str, *arguments: Any) -> Any:
    """What a kind of task makes of a column. Raises PluginError where it is a plugin's, and fails."""
    try:
        return getattr(kind, method)(*arguments)
    except CrossdistilError:
        raise
    except Exception as error:
        if not kind.code:
            raise
        file = sys.modules[type(kind).__module__].__file__ or ""
        where = plugin_line(error, [file]) or file
        raise PluginError(f"{where}: kind '{kind.name}': {method} fails: {error_text(error)}") from error


def checked_schedule(schedule: RegisteredSchedule) -> Callable[[float], float]:
    """A plugin's schedule, whose result is a finite number from 0 on, or a PluginError."""

    def factor(progress: float) -> float:
        place = first_line(schedule.function, schedule.place)
        try:
            value = schedule.function(progress)
        except CrossdistilError:
            raise
        except Exception as error:
            where = plugin_line(error, [schedule.place.rpartition(":")[0]]) or place
            raise PluginError(f"{where}: schedule '{schedule.name}' fails at {progress:g}: {error_text(error)}") from error
        if not isinstance(value, int | float | np.number) or not 0 <= value < math.inf:
            got = f"returns {shown(value, 60)} at {progress:g}"
            raise PluginError(f"{place}: schedule '{schedule.name}' {got}, expected a finite number from 0 on")
        return float(value)

    return factor
