"""`crossdistil latency`: how fast finished models answer, side by side.

Each model is in a process of its own (`timed_model`), in the Python that has its runtime. In each round the models take turns,
each time another one first, so that whatever else the machine does hits all alike; a model's speed-up over the first one is the
median of the rounds' ratios. Times are from token ids to logits: tokenizing is the same for all of one vocabulary.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ... import __version__
from ...backends.registry import interpreter
from ..errors import CrossdistilError
from ..json_files import parse_json
from ..processes import child_environment, ending, python_command
from ..processor import precision_notes, processor
from .timed_model import Case, Request

PERCENTILES = (50, 95, 99)
Seconds = dict[str, dict[Case, list[list[float]]]]
"""Of each request, by model, case and round."""


@dataclass(frozen=True)
class LatencyOptions:
    """What is measured, and how."""

    cases: tuple[Case, ...]
    threads: int
    rounds: int
    warm_up: int
    """Rounds before, which do not count."""
    seconds: float | None = None
    """Begin no other round after so long."""


class TakesTurns(Protocol):
    """A model that computes a turn when it is told to."""

    def turn(self, case: Case) -> list[float]:
        """The seconds of each request of a turn."""


def measure(requests: dict[str, Request], options: LatencyOptions, tell: Callable[[str], None]) -> dict[str, Any]:
    """The content of the command's JSON: of each model by its name what it is, and for each case the times. Raises
    CrossdistilError for a model that cannot be run."""
    with contextlib.ExitStack() as stack:
        models = {name: stack.enter_context(_Process(name, request, options.threads)) for name, request in requests.items()}
        for name, model in models.items():
            tell(f"{name}: loading")
            model.start()
            for note in precision_notes(model.about["precision"], model.about["device"]):
                tell(f"note: {name}: {note}")
        seconds = in_turns(models, options, tell)
        about = {name: {"folder": requests[name].folder} | model.about | model.end() for name, model in models.items()}
    first = next(iter(requests.values()))
    return result_of(about, seconds, options, None if first.texts is None else len(first.texts), first.clock)


def in_turns(models: Mapping[str, TakesTurns], options: LatencyOptions, tell: Callable[[str], None]) -> Seconds:
    """The times of models that take turns, in each round another one first."""
    seconds: Seconds = {name: {case: [] for case in options.cases} for name in models}
    names, started = list(models), time.monotonic()
    for number in range(options.warm_up + options.rounds):
        done = number - options.warm_up
        if done > 0 and options.seconds is not None and time.monotonic() - started > options.seconds:
            break
        tell(f"round {done + 1}/{options.rounds}" if done >= 0 else f"warm-up {number + 1}/{options.warm_up}")
        first = number % len(names)
        for case in options.cases:
            for name in names[first:] + names[:first]:
                found = models[name].turn(case)
                if done >= 0:
                    seconds[name][case].append(found)
    return seconds


def result_of(
    about: Mapping[str, dict[str, Any]], seconds: Seconds, options: LatencyOptions, texts: int | None, clock: str
) -> dict[str, Any]:
    """The content of a measurement's JSON: `about` is what each model is, `texts` how many it was given, None for random tokens,
    `clock` the function of Python's `time`."""
    first = next(iter(about))
    versions: dict[str, str] = {}
    models = {}
    for name, known in about.items():
        models[name] = {key: value for key, value in known.items() if key != "versions"}
        versions |= known["versions"]
        for case, turns in seconds[name].items():
            models[name][case.name] = _figures(case, texts, known, turns, seconds[first][case])
    settings = {
        "texts": texts,
        "rounds": len(next(iter(seconds[first].values()))),
        "warm_up": options.warm_up,
        "clock": "wall" if clock == "perf_counter" else "cpu",
        "precision": about[first]["precision"],
        "cases": [asdict(case) | {"name": case.name} for case in options.cases],
    }
    return {
        "benchmark": "latency",
        "crossdistil": __version__,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {**processor(), "threads": options.threads},
        "versions": versions,
        "settings": settings,
        "models": models,
    }


def _figures(
    case: Case, given: int | None, known: dict[str, Any], turns: list[list[float]], first: list[list[float]]
) -> dict[str, Any]:
    """Of one model and case: `request_milliseconds`, `milliseconds` a text of each round, `speed_up` over the first."""
    texts = len(turns[0]) * case.batch_size if given is None else given
    rounds = [1000 * sum(turn) / texts for turn in turns]
    others = [1000 * sum(turn) / texts for turn in first]
    every = 1000 * np.concatenate(turns)
    mean_tokens = case.length if case.length is not None else known["mean_tokens"]
    rate = 1000 / max(statistics.median(rounds), 1e-9)
    return {
        "requests": len(every),
        "request_milliseconds": {f"p{part}": float(np.percentile(every, part)) for part in PERCENTILES},
        "milliseconds": _summary(rounds) | {"rounds": rounds},
        "texts_per_second": rate,
        "tokens_per_second": rate * mean_tokens,
        "speed_up": _summary([base / max(own, 1e-9) for base, own in zip(others, rounds, strict=True)]),
    }


def _summary(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


class _Process:
    """The process of one model. Use it as a context manager: when it is left, the process is not there any more."""

    def __init__(self, name: str, request: Request, threads: int):
        self._name, self._request, self._threads = name, request, threads
        self.about: dict[str, Any] = {}

    def __enter__(self) -> _Process:
        python = Path(sys.executable) if self._request.backend is None else interpreter(self._request.backend)
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            python_command(python, "crossdistil.core.app.timed_model"),
            env={**child_environment(), "OMP_NUM_THREADS": str(self._threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # a terminal's Ctrl-C comes to the one that started it, which ends this
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def start(self) -> None:
        """Load the model."""
        self.about = self._ask(asdict(self._request))

    def turn(self, case: Case) -> list[float]:
        """The seconds of each request of a turn."""
        return self._ask(asdict(case))["seconds"]

    def end(self) -> dict[str, Any]:
        """What the process knows of itself in the end."""
        self._process.stdin.close()
        return self._answer()

    def _ask(self, content: dict[str, Any]) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # then there is no answer
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise CrossdistilError(f"{self._name}: its process ended with {ending(self._process.wait())}{self._last_words()}")
        found = parse_json(line, self._name)
        if "error" in found:
            raise CrossdistilError(found["error"])
        return found

    def _last_words(self) -> str:
        self._errors.seek(0, os.SEEK_SET)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f": {lines[-1][:300]}" if lines else ""
