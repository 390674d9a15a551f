"""The study of a search: which trials there are, who has which, and what came out, kept by Optuna.

Several processes, on one machine or on several, work on one study. A trial belongs to the folder of the search in which it was
taken: its lock there is held by the one who works on it, and ends with that process, however it ends. Who opens the folder
later takes such a trial first, with the same settings, and goes on where its run folder stands.

With one worker, the same trials come again after a kill: what is tried next depends on the trials before, and on a random draw
that is seeded by the number of the trial, and not on what the process did before.
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CrossdistilError
from ..locks import Lock, lock_file
from .search_space import Dimension, Point, Space

TRIALS, STUDY = "trials", "study.db"
_CLAIMING = ".claiming"
_PLACE, _OVERRIDES, _SECONDS, _FOUND, _ERROR = "place", "overrides", "seconds", "found", "error"
_READY, _WORKED, _DATA = "enqueued", "worked/", "data"
_STORAGES = ("sqlalchemy", "sqlite3", "grpc", "optuna")
"""Whose errors are those of a storage."""
_DRAWN_FIRST = 6
"""Trials whose settings are drawn at random before those that did well guide the next."""
INSTALL = "search: needs Optuna, which is not installed: pip install 'crossdistil[search]'"
Curve = list[tuple[int, float]]
"""(thousandths of an epoch, score on dev), in their order."""


@dataclass(frozen=True)
class Record:
    """A trial as it stands."""

    number: int
    state: str
    """`complete`, `pruned`, `failed`, `running` or `waiting`."""
    point: Point
    score: float | None
    """Of a complete trial."""
    curve: Curve = field(default_factory=list)
    overrides: tuple[str, ...] = ()
    seconds: float = 0.0
    found: dict[str, Any] = field(default_factory=dict)
    """What the run's result says of its student."""
    error: str = ""
    here: bool = True
    """Whether it was taken in this folder."""


@dataclass
class Claimed:
    """A trial that this process works on, until it is finished or given back."""

    number: int
    point: Point
    overrides: tuple[str, ...]
    is_again: bool
    """Whether someone began it who is no more."""
    lock: Lock
    trial: Any
    """Optuna's."""


class SearchStudy:
    """One study, as one folder works on it."""

    def __init__(self, folder: Path, place: str, storage: str | None, name: str, space: Space, seed: int, higher: bool):
        """Open the study of that name, which is made where it is missing. `place` is the folder's own name among all that work on
        the study, `higher` whether a higher score is better. Raises CrossdistilError."""
        self._folder, self._place, self._space, self._seed, self._higher = folder, place, space, seed, higher
        self._optuna = _optuna()
        self._local, self._storage = storage is None, storage
        (folder / TRIALS).mkdir(exist_ok=True)
        with self._claiming(), _storage_errors(storage, "cannot be opened"):
            self._study = self._optuna.create_study(
                storage=self._open(storage or f"sqlite:///{(folder / STUDY).absolute()}"),
                study_name=name,
                direction="maximize" if higher else "minimize",
                load_if_exists=True,
            )

    def _open(self, url: str) -> Any:
        storages = self._optuna.storages
        if url.startswith("grpc://"):
            host, _, port = url.removeprefix("grpc://").partition(":")
            return storages.GrpcStorageProxy(host=host, port=int(port or 13000))
        # SQLite is one file that all write: who has to wait waits.
        engine = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None
        return storages.RDBStorage(url, engine_kwargs=engine)

    @contextlib.contextmanager
    def _claiming(self) -> Iterator[None]:
        lock = lock_file(self._folder / _CLAIMING, wait=True)
        try:
            yield
        finally:
            lock.release()

    def failed(self, error: BaseException) -> CrossdistilError | None:
        """What went wrong, in one line, where it is the storage that failed: the database is full, its server is gone."""
        if type(error).__module__.partition(".")[0] not in _STORAGES:
            return None
        try:
            with _storage_errors(self._storage, "failed"):
                raise error
        except CrossdistilError as told:
            return told

    def enqueue(self, first: Point | None) -> None:
        """Have these tried first, once: every point of a grid, else the recipe as it is, where the space has it."""
        with self._claiming():
            if self._study.user_attrs.get(_READY):
                return
            for point in self._space.points() if self._space.is_grid else [first] if first is not None else []:
                self._study.enqueue_trial(point, skip_if_exists=True)
            self._study.set_user_attr(_READY, True)

    def other_data(self, digests: dict[str, str]) -> list[str]:
        """What is not as it was when the study was begun, of digests by what people call it; the first that come are kept."""
        with self._claiming():
            begun = self._study.user_attrs.get(_DATA)
            if begun is None:  # also of a study of an earlier version
                self._study.set_user_attr(_DATA, json.dumps(digests))
                return []
        begun = json.loads(begun)
        return [name for name, digest in digests.items() if begun.get(name, digest) != digest]

    def claim(self, most: int | None) -> Claimed | None:
        """A trial to work on, which nobody else has: one whose worker is no more, else a new one. None where there are `most`
        already, or no point of the grid is left."""
        with self._claiming():
            for frozen in self._frozen("RUNNING"):
                place = frozen.user_attrs.get(_PLACE)
                # Of one without, whoever took it was killed before it was begun, or works on another machine and is just there.
                if place == self._place or (place is None and self._local):
                    try:
                        held = lock_file(self._lock_path(frozen.number))
                    except BlockingIOError:
                        continue
                    if frozen.number in [each.number for each in self._frozen("RUNNING")]:
                        take = functools.partial(self._optuna.trial.Trial, self._study, frozen._trial_id)
                        return self._taken(frozen.number, held, take)
                    held.release()  # it was finished just now
            trials = self._study.get_trials(deepcopy=False)
            waiting = sum(frozen.state.name == "WAITING" for frozen in trials)
            if (most is not None and len(trials) - waiting >= most) or (self._space.is_grid and not waiting):
                return None
            return self._taken(len(trials), None, self._study.ask)

    def _taken(self, number: int, held: Lock | None, take: Callable[[], Any]) -> Claimed:
        """The trial that `take` gives, whose lock may be held already. The draws of its settings are seeded by its number, which
        is this one unless it waited, and so has its settings."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental parts of samplers
            draw = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
            self._study.sampler = self._optuna.samplers.TPESampler(seed=draw, n_startup_trials=_DRAWN_FIRST)
            trial = take()
            held = held or lock_file(self._lock_path(trial.number))
            point = {dimension.name: _suggested(trial, dimension) for dimension in self._space.dimensions}
        overrides = tuple(json.loads(trial.user_attrs.get(_OVERRIDES, "[]")))
        return Claimed(trial.number, point, overrides, _PLACE in trial.user_attrs, held, trial)

    def begin(self, claimed: Claimed, overrides: list[str]) -> None:
        """Write down what a new trial's settings are; from now on it is continued by whoever comes."""
        claimed.overrides = tuple(overrides)
        claimed.trial.set_user_attr(_OVERRIDES, json.dumps(overrides, ensure_ascii=False))
        claimed.trial.set_user_attr(_PLACE, self._place)

    def _frozen(self, state: str) -> list[Any]:
        return self._study.get_trials(deepcopy=False, states=(self._optuna.trial.TrialState[state],))

    def _lock_path(self, number: int) -> Path:
        return self._folder / TRIALS / f"{number:04d}.lock"

    def told(self, claimed: Claimed, position: int, score: float) -> None:
        """A trial's score on dev after so many thousandths of an epoch."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a score that is there already: the trial is continued
            claimed.trial.report(score, position)

    def is_behind(self, position: int, curve: Curve, fewest: int) -> bool:
        """Whether a trial should be given up: its best score so far is below the median of what the finished trials, if there are
        so many, had by the same epoch."""
        others = [best_by(record.curve, position, self._higher) for record in self.records() if record.state == "complete"]
        known = [value for value in others if value is not None]
        own = best_by(curve, position, self._higher)
        if own is None or len(known) < fewest:
            return False
        median = float(np.median(known))
        return own < median if self._higher else own > median

    def finish(
        self, claimed: Claimed, state: str, score: float | None, seconds: float, found: dict[str, Any], error: str
    ) -> None:
        """Write down what came out of a trial, and give its lock back."""
        trial = claimed.trial
        trial.set_user_attr(_SECONDS, round(seconds, 3))
        if found:
            trial.set_user_attr(_FOUND, json.dumps(found))
        if error:
            trial.set_user_attr(_ERROR, error[:2000])
        states = self._optuna.trial.TrialState
        kind = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[state]
        self._study.tell(trial, score if state == "complete" else None, kind)
        claimed.lock.release()

    def records(self) -> list[Record]:
        """Every trial, by its number."""
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}
        found = []
        for frozen in self._study.get_trials(deepcopy=False):
            about, state = frozen.user_attrs, names[frozen.state.name]
            found.append(
                Record(
                    frozen.number,
                    state,
                    dict(frozen.params),
                    frozen.value if state == "complete" else None,
                    sorted(frozen.intermediate_values.items()),
                    tuple(json.loads(about.get(_OVERRIDES, "[]"))),
                    about.get(_SECONDS, 0.0),
                    json.loads(about.get(_FOUND, "{}")),
                    about.get(_ERROR, ""),
                    about.get(_PLACE) == self._place,
                )
            )
        return found

    def worked(self, ident: str, since: float) -> None:
        """Write down that a command has worked on the study from then until now, in seconds since 1970."""
        self._study.set_user_attr(_WORKED + ident, [since, time.time()])

    def seconds(self) -> float:
        """How long someone has worked on the study, whatever their number."""
        spans = sorted(span for key, span in self._study.user_attrs.items() if key.startswith(_WORKED))
        total, until = 0.0, 0.0
        for start, end in spans:
            total += max(0.0, end - max(start, until))
            until = max(until, end)
        return total


def best_by(curve: Curve, position: int, higher: bool) -> float | None:
    """The best score up to there."""
    values = [score for place, score in curve if place <= position]
    return None if not values else max(values) if higher else min(values)


def best_of(records: list[Record], higher: bool) -> Record | None:
    """The complete trial with the best score, the first of equals."""
    complete = [record for record in records if record.state == "complete" and record.score is not None]
    return min(complete, key=lambda each: (-each.score if higher else each.score, each.number), default=None)


def _suggested(trial: Any, dimension: Dimension) -> Any:
    if dimension.kind == "choice":
        return trial.suggest_categorical(dimension.name, list(dimension.probes))
    if dimension.kind == "int":
        return trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high), step=dimension.step)
    value = trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.kind == "log")
    return float(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise CrossdistilError(INSTALL) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


@contextlib.contextmanager
def _storage_errors(storage: str | None, what: str) -> Iterator[None]:
    """What a storage cannot do, in one line."""
    try:
        yield
    except CrossdistilError:
        raise
    except Exception as error:  # of whichever database
        where = "the study in the folder" if storage is None else f"--storage {storage}"
        details = getattr(error, "details", None)  # of a server that does not answer
        said = str(details() if callable(details) else error.__cause__ or error).strip()
        reason = said.partition("\n")[0][:300] or type(error).__name__
        raise CrossdistilError(f"{where}: {what}: {reason}") from error
