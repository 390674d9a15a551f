"""Latencies in a search: of students with the weights that they start from, before any is trained, or of trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..data.tasks import read_split, resolve_task
from ..engine import unheard
from ..recipe import Recipe
from .latency import LatencyOptions, measure
from .search_settings import Settings
from .timed_model import Case, Request

TEXTS = 64
"""Of dev, each a request of its own."""
_ROUNDS, _WARM_UP = 5, 1
_AT_ONCE = 4
"""Models that take turns: each has a process, with its framework in memory."""


def measured(models: Mapping[str, Path], recipe: Recipe, backend: str, precision: str, threads: int) -> dict[str, float]:
    """Name -> milliseconds of a request of one text of dev, from token ids to logits: the median of all requests. The models take
    turns on this machine's CPU."""
    spec = resolve_task(recipe.task, recipe.registered)
    examples = read_split(spec, recipe.task.data, "dev")
    texts = list(examples.texts[:TEXTS])
    pairs = None if examples.pairs is None else list(examples.pairs[:TEXTS])
    requests = {name: Request(str(path), backend, precision, "perf_counter", 0, texts, pairs) for name, path in models.items()}
    case, names, found = Case(1), list(requests), {}
    for first in range(0, len(names), _AT_ONCE):
        some = {name: requests[name] for name in names[first : first + _AT_ONCE]}
        about = measure(some, LatencyOptions((case,), threads, _ROUNDS, _WARM_UP), unheard)["models"]
        found |= {name: own[case.name]["request_milliseconds"]["p50"] for name, own in about.items()}
    return found


def measured_students(students: Mapping[str, Path], settings: Settings) -> dict[str, float]:
    """The same of trained students, by their names, with the threads of the autopilot."""
    threads = (settings.autopilot or {}).get("threads", 1)
    return measured(students, settings.recipe, settings.backend, settings.precision, threads)
