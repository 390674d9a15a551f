"""What the tests of `crossdistil search` share: a recipe, its space, and runs that end at once with a score that is a formula of
the settings, so that no framework is started."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

from crossdistil.core.app.progress import make_console
from crossdistil.core.app.search import Asked, Search
from crossdistil.core.app.search_settings import Settings
from crossdistil.core.app.search_space import Space, space_of
from crossdistil.core.app.search_trial import Ended
from crossdistil.core.recipe import Recipe, parse_recipe
from crossdistil.tests import tiny

RATE, BATCH = "stages.0.train.learning_rate", "stages.0.train.batch_size"
SPACE = {RATE: {"log": [1e-5, 1e-1]}, BATCH: {"choice": [4, 8, 16]}}


def recipe(folder: Path, **train: Any) -> Recipe:
    """A recipe whose data and teacher need not be there."""
    return parse_recipe(tiny.kd_recipe(folder / "task", folder / "teacher", **train), "test")


def settings(folder: Path, space: Space | None = None, **options: Any) -> Settings:
    """A search of that recipe."""
    own = {"trials": 8, "place": "here", "study": "test"} | options
    return Settings(recipe(folder), "test", space or space_of(SPACE, "test"), "accuracy", "torch", **own)


def score(own: Recipe) -> float:
    """Best at a rate of 1e-2 and batches of 16; the recipe as it is has 1e-3 and 8."""
    train = own.stages[0].train
    return round(0.9 - 0.05 * abs(math.log10(train.learning_rate) + 2) - 0.01 * (train.batch_size != 16), 6)


class Runs:
    """In place of `run_trial`: what was run, in order, and what becomes of single trials."""

    def __init__(self, fate: dict[str, str] | None = None, evaluations: int = 4):
        self._fate, self._evaluations = fate or {}, evaluations
        self.run: list[str] = []
        self._lock = threading.Lock()

    def __call__(self, own, folder, on, watch, asked) -> Ended:
        with self._lock:
            self.run.append(folder.name)
        fate = self._fate.get(folder.name, "")
        if fate == "killed":
            raise Killed
        if fate:
            return Ended("failed", error=fate)
        value, stopped = score(own), asked()
        if stopped:
            return Ended("stopped")
        for number in range(1, self._evaluations + 1):
            if watch(500 * number, {"accuracy": value * number / self._evaluations}, number == self._evaluations):
                return Ended("pruned")
        result = {"student": {"metrics": {"accuracy": value}, "parameters": 1000}, "wall_seconds": 1.0, "epochs": 2.0}
        (folder / "student").mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(json.dumps(result))
        return Ended("complete", result)


class Killed(BaseException):
    """The process ends here, without another word."""


def work(folder: Path, own: Settings, runs: Runs, workers: int = 1) -> Search:
    """Work on a search until its budget is spent, or a trial is killed."""
    folder.mkdir(exist_ok=True)
    search = Search(folder, own, workers, make_console(quiet=True), runs)
    search.work(Asked())
    return search


def trials(search: Search) -> list[tuple[int, str, dict[str, Any], float | None]]:
    """Number, state, settings and score of each."""
    return [(each.number, each.state, each.point, each.score) for each in search.study.records()]
