"""A search at work: workers that take trials of one study until the budget is spent, then the best and the default with several
seeds, then the report.

What the folder of a search holds:

    study.json       what was asked: the resolved recipe, the space, the budget
    study.db         the study, unless it is kept elsewhere (--storage)
    trials/0000/     the run of a trial, an ordinary run folder; 0000.yaml its recipe, 0000.log what it printed
    seeds/           the runs of the best and the default with other seeds
    best.yaml        the best recipe, which `crossdistil run` takes
    search.json, report.md, report.html
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import CrossdistilError
from ..locks import lock_file
from ..recipe import Recipe
from ..run_files import STATE
from ..shown import counted, plain
from ..threads import number as threads_here
from .comparison_view import score_text
from .preparing import prepared
from .run import data_digests
from .search_settings import Settings
from .search_study import TRIALS, Claimed, Curve, Record, SearchStudy, best_of
from .search_trial import Circumstances, Ended, run_trial, score_of

BEST, SEEDS = "best.yaml", "seeds"
_SEEDING = ".seeding"
FEWEST_FOR_PRUNING = 4
"""Complete trials before one is given up."""
_TICK_SECONDS = 0.2
_NOTE_SECONDS = 10.0
"""How often the study is told that it is worked on: what a kill can lose of the time that was spent."""

Run = Callable[[Recipe, Path, Circumstances, Callable[..., bool], Callable[[], int]], Ended]


class Asked:
    """How often Ctrl-C or SIGTERM came while the block runs, and which of them."""

    def __init__(self) -> None:
        self.times, self.number = 0, 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Asked:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._came) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number: int, frame: object) -> None:
        self.times, self.number = self.times + 1, number
        what = "the runs save what they have; once more stops them at once" if self.times == 1 else "stopping at once"
        print(f"crossdistil: {what}", file=sys.stderr)


class Search:
    """The search in a folder, as one command works on it."""

    def __init__(self, folder: Path, settings: Settings, workers: int, console: Console, run: Run | None = None):
        self.folder, self.settings, self._workers, self._console = folder, settings, workers, console
        self._run = run or run_trial
        known = (settings.storage, settings.study, settings.space, settings.recipe.seed, settings.higher)
        self.study = SearchStudy(folder, settings.place, *known)
        self._default = settings.space.point_of(settings.recipe)
        self.study.enqueue(self._default)
        self._ident, self._since = uuid.uuid4().hex, time.time()
        self._errors: list[BaseException] = []
        self._out_of_time = False

    def check_data(self) -> None:
        """Raise CrossdistilError where trials that are there learned from other data than those to come would, or were scored on
        other data."""
        job = prepared(self.settings.recipe, self.settings.source, weights=False)
        changed = self.study.other_data(data_digests(job))
        if changed:
            what = " and ".join(changed)
            raise CrossdistilError(f"{self.folder}: was started with other data, so that its scores cannot be compared with new "
                                   f"ones: the {what} have changed since; a new search needs another folder")  # fmt: skip

    def work(self, asked: Asked) -> None:
        """Take trials until the budget is spent or the user asks to stop. Raises what a worker could not go on with."""
        self._in_parallel(self._take_trials, asked)

    def with_seeds(self, asked: Asked) -> None:
        """Run the best and the default with other seeds than the one they were chosen by, those that were not run yet."""
        best = best_of(self.study.records(), self.settings.higher)
        if best is None or not self.settings.seeds or asked.times:
            return
        waiting, name = self._seeds_left(best), self.settings.default_name
        if not waiting:
            return
        whose = f"the best, which is {name}" if self.is_default(best) else f"the best and of {name}"
        self._console.print(f"{counted(len(waiting), 'run')} with other seeds, of {whose}", markup=False)
        lock = threading.Lock()

        def take(worker: int, asked: Asked) -> None:
            while not asked.times:
                with lock:
                    if not waiting:
                        return
                    name, recipe, folder = waiting.pop(0)
                ended = self._run(recipe, folder, self._circumstances(worker), lambda *_: False, lambda: asked.times)
                self._tidy(folder, ended)
                if ended.state == "stopped":
                    return
                self._console.print(f"{name}, seed {recipe.seed}: {self._ending(ended, recipe)}", markup=False)

        # Of several commands in this folder, the last one knows which trial is the best.
        held = lock_file(self.folder / _SEEDING, wait=True)
        try:
            self._in_parallel(take, asked, counted=False)
        finally:
            held.release()

    def _seeds_left(self, best: Record) -> list[tuple[str, Recipe, Path]]:
        """The runs with other seeds that have not come to their end."""
        return [each for each in self.seed_runs(best) if not (each[2] / "result.json").is_file()]

    def seed_runs(self, best: Record) -> Iterator[tuple[str, Recipe, Path]]:
        """Name, recipe and folder of each run with another seed."""
        settings, folder = self.settings, self.folder / SEEDS
        folder.mkdir(exist_ok=True)
        sides = {"default": settings.recipe} | ({} if self.is_default(best) else {"best": self.recipe_of(best)})
        for more in range(1, settings.seeds + 1):
            for name, recipe in sides.items():
                own = recipe.model_copy(update={"seed": recipe.seed + more})
                which = name if name == "default" else f"{name}-{best.number:04d}"
                yield name, own, folder / f"{which}-seed-{own.seed}"

    def is_default(self, record: Record) -> bool:
        """Whether a trial is the recipe as it is."""
        return record.point == self._default

    def recipe_of(self, record: Record) -> Recipe:
        """The recipe of a trial."""
        return self.settings.space.recipe(self.settings.recipe, record.point)

    def _in_parallel(self, work: Callable[[int, Asked], None], asked: Asked, counted: bool = True) -> None:
        """Have every worker do this; its time counts as the search's, or not."""

        def guarded(worker: int) -> None:
            try:
                work(worker, asked)
            except BaseException as error:  # told in the main thread, after the others have saved what they have
                self._errors.append(error)

        workers = [threading.Thread(target=guarded, args=(index,), daemon=True) for index in range(self._workers)]
        for worker in workers:
            worker.start()
        noted = 0.0
        while any(worker.is_alive() for worker in workers):
            for worker in workers:
                worker.join(_TICK_SECONDS / len(workers))
            if counted and time.monotonic() - noted > _NOTE_SECONDS:
                noted = time.monotonic()
                self._note()
        if counted:
            self._note()
        if self._errors:
            raise self.study.failed(self._errors[0]) or self._errors[0]

    def _note(self) -> None:
        """Tell the study that it is worked on, and see whether time is left."""
        try:
            self._out_of_time = self._left() <= 0
        except Exception as error:  # told after the workers have saved what they have
            self._errors.append(error)
            self._out_of_time = True

    def _left(self) -> float:
        """Seconds of the budget that are left."""
        self.study.worked(self._ident, self._since)
        if self.settings.minutes is None:
            return float("inf")
        return 60 * self.settings.minutes - self.study.seconds()

    def _time_is_over(self) -> bool:
        """Whether no trial would end in time, going by the shortest so far."""
        left, done = self._left(), [record.seconds for record in self.study.records() if record.state == "complete"]
        return left <= 0 or (bool(done) and left < min(done))

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do within the budget."""
        records, most = self.study.records(), self.settings.trials
        states = [record.state for record in records]
        if "running" in states:
            return False
        over = most is not None and len(states) - states.count("waiting") >= most
        if not (over or (self.settings.space.is_grid and "waiting" not in states) or self._time_is_over()):
            return False
        best = best_of(records, self.settings.higher)
        return best is None or not self.settings.seeds or not self._seeds_left(best)

    def _take_trials(self, worker: int, asked: Asked) -> None:
        while not (asked.times or self._out_of_time or self._errors):
            if self._time_is_over():
                return
            claimed = self.study.claim(self.settings.trials)
            if claimed is None:
                return
            self._try(claimed, worker, asked)

    def _try(self, claimed: Claimed, worker: int, asked: Asked) -> None:
        """Run a trial to its end, or until it is given up; if this is interrupted, it stays begun, for whoever goes on."""
        settings, folder, started = self.settings, self.folder / TRIALS / f"{claimed.number:04d}", time.monotonic()
        curve: Curve = []
        try:
            if not claimed.overrides:
                self.study.begin(claimed, settings.space.overrides(settings.recipe, claimed.point))
            if claimed.is_again:
                self._console.print(f"trial {claimed.number}: goes on, with the same settings")
            try:
                recipe = settings.space.recipe(settings.recipe, claimed.point)
            except CrossdistilError as error:  # keys that do not fit each other, which a range of each cannot say
                self._finished(claimed, Ended("failed", error=str(error).replace("\n", "; ")), started)
                return

            def watch(position: int, metrics: dict[str, float], last: bool) -> bool:
                if settings.metric not in metrics or (curve and position <= curve[-1][0]):
                    return False
                curve.append((position, metrics[settings.metric]))
                self.study.told(claimed, *curve[-1])
                return settings.pruning and not last and self.study.is_behind(position, curve, FEWEST_FOR_PRUNING)

            on = self._circumstances(worker)
            ended = self._run(recipe, folder, on, watch, lambda: max(asked.times, int(self._out_of_time)))
            self._tidy(folder, ended)
            if ended.state != "stopped":
                self._finished(claimed, ended, started)
        finally:
            claimed.lock.release()

    def _finished(self, claimed: Claimed, ended: Ended, started: float) -> None:
        settings, seconds = self.settings, time.monotonic() - started
        score, found = None, {}
        if ended.state == "complete":
            score, result = score_of(ended.result, settings.metric, settings.recipe), ended.result
            seconds = result.get("wall_seconds", seconds)
            keys = ("steps", "epochs", "wall_seconds", "tokens_per_second", "peak_memory_mb", "device")
            found = {key: result.get(key) for key in keys}
            found |= {"metrics": result["student"]["metrics"], "parameters": result["student"]["parameters"]}
        self.study.finish(claimed, ended.state, score, seconds, found, ended.error)
        best = best_of(self.study.records(), settings.higher)
        told = [f"trial {claimed.number}: {self._ending(ended, settings.recipe)}, {seconds:.0f} s"]
        told += [] if best is None else [f"best {score_text(settings.metric, best.score)} (trial {best.number})"]
        told.append(", ".join(f"{name.rpartition('.')[2]} {value_text(value)}" for name, value in claimed.point.items()))
        self._console.print("; ".join(told), markup=False)

    def _ending(self, ended: Ended, recipe: Recipe) -> str:
        if ended.state == "complete":
            name = self.settings.metric
            return f"{name.replace('_', ' ')} {score_text(name, score_of(ended.result, name, recipe))}"
        return "given up" if ended.state == "pruned" else f"failed: {plain(ended.error, 300)}"

    def _circumstances(self, worker: int) -> Circumstances:
        settings = self.settings
        device = settings.devices[worker % len(settings.devices)] if settings.devices else None
        threads = max(1, threads_here() // self._workers) if self._workers > 1 else None
        return Circumstances(settings.backend, device, settings.precision, threads)

    def _tidy(self, folder: Path, ended: Ended) -> None:
        """Remove the saved state of a run that nobody goes on with: it is several times as large as the student."""
        if ended.state in ("complete", "pruned", "failed"):
            with contextlib.suppress(OSError):
                shutil.rmtree(folder / STATE)


def value_text(value: Any) -> str:
    """`3.16e-05`, `0.25`, or the name of a choice."""
    return f"{value:.3g}" if isinstance(value, float) else plain(str(value), 60)
