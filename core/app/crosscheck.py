"""One recipe on several backends and numbers of processes, run by run with the same weights and batches, then the comparison."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ...backends.registry import interpreters, known_backends
from .. import run_files
from ..data.batches import DEFAULT_BUCKETS
from ..errors import CrossdistilError, RunFolderError
from ..files import clear_disk_errors, make_folder, write_text
from ..locks import lock_file
from ..recipe import Recipe
from ..workplaces import is_workplace, remove_dead
from .compare import compare
from .crosscheck_files import parts_of_name, processes_text, read_json, run_name
from .plugin_trial import plugin_errors
from .preparing import check_fit
from .report import REPORT, write_report
from .worker import run_worker

RESULT = "crosscheck.json"
_LOCK = ".lock"


@dataclass(frozen=True)
class CrosscheckOptions:
    """How a cross-check is run; the recipe itself says what."""

    backends: tuple[str, ...]
    out: Path
    device: str | None = None
    steps_per_call: int | None = None
    source: str = "recipe"
    """What errors call the recipe."""
    resume: bool = False
    """Go on in a folder where a cross-check was interrupted."""
    processes: tuple[int, ...] = (1,)
    """With how many processes each backend runs, one after the other."""

    @property
    def runs(self) -> list[tuple[str, int]]:
        """The (backend, number of processes) of each run."""
        return [(backend, count) for count in self.processes for backend in self.backends]


def comparable(recipe: Recipe, steps: int | None) -> Recipe:
    """The recipe as it is cross-checked: every step logged, no dropout (whose draws differ between frameworks), the last
    step's weights kept, every backend padding to the same lengths, and with `steps` cut to that many."""
    stages = []
    for stage in recipe.stages:
        train = stage.train.model_dump()
        buckets = train["length_buckets"] or DEFAULT_BUCKETS
        train |= {"log_every": 1, "dropout": 0.0, "keep": "last", "length_buckets": buckets}
        if steps is not None:
            train |= {"steps": steps, "epochs": None}
        stages.append(stage.model_copy(update={"train": type(stage.train)(**train)}))
    # Each backend runs the teachers itself: one that reads what another wrote would agree with it too easily.
    cache = recipe.teacher_cache.model_copy(update={"use": "never"})
    log = type(recipe.log)()  # its runs are compared, and not followed
    return recipe.model_copy(update={"stages": tuple(stages), "teacher_cache": cache, "log": log})


def crosscheck(recipe: Recipe, options: CrosscheckOptions, console: Console) -> dict[str, Any]:
    """Run the recipe on each backend, write `crosscheck.json` and `report.html`, and return the former's content.

    The runs come one after the other, so that their speeds can be compared.
    """
    interpreters(options.backends)
    if len(options.runs) < 2:
        remedy = "another one to compare it with, or several numbers of processes (--devices 1,2)"
        raise CrossdistilError(f"backend '{options.backends[0]}': a cross-check needs {remedy}")
    _check_folder(options)
    arguments = ["--probe"]
    if options.device is not None:
        arguments += ["--device", options.device]
    if options.steps_per_call is not None:
        arguments += ["--steps-per-call", str(options.steps_per_call)]
    with _locked(options.out):
        remove_dead(options.out)
        if (options.out / RESULT).is_file() and (options.out / REPORT).is_file():
            raise RunFolderError(f"{options.out}: the cross-check is complete; there is nothing to resume")
        names = [run_name(backend, count) for backend, count in options.runs]
        if not all((options.out / name / run_files.RESULT).is_file() for name in names):
            with plugin_errors(recipe.registered):
                check_fit(recipe, options.source, rows=False)  # before the first backend is started
        for (backend, count), name in zip(options.runs, names):
            console.rule(f"[bold]{backend}" + ("" if count == 1 else f", {processes_text(count)}"))
            folder = options.out / name
            if (folder / run_files.RESULT).is_file():
                _check_finished(folder, recipe)
                console.print(f"{name}: was finished before")
                continue
            again = ["--resume"] if folder.is_dir() else []
            several = [] if count == 1 else ["--devices", str(count)]
            run_worker(recipe, options.source, backend, folder, [*arguments, *several, *again], console.quiet)
        console.rule("[bold]comparison")
        result = compare(options.out, names)
        write_text(options.out / RESULT, json.dumps(result, indent=2) + "\n")
        write_report(options.out, recipe.registered)
    return result


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """No other process writes there; a folder that stays empty is removed."""
    with clear_disk_errors(out):
        make_folder(out)
        try:
            lock = lock_file(out / _LOCK)
        except BlockingIOError:
            raise RunFolderError(f"{out}: another process is running in it") from None
    try:
        yield
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            out.rmdir()


def _check_folder(options: CrosscheckOptions) -> None:
    """Whether a cross-check may be written there: nothing is there, or one to go on with."""
    out = options.out
    if not out.exists():
        return
    if not out.is_dir():
        raise RunFolderError(f"{out}: holds something already; choose a new folder")
    names = {path.name for path in out.iterdir() if path.name != _LOCK and not is_workplace(path.name)}
    strange = {name for name in names if name not in (RESULT, REPORT) and parts_of_name(name)[0] not in known_backends()}
    if options.resume:
        if strange:
            raise RunFolderError(f"{out}: holds {min(strange)}, which is of no cross-check; choose a new folder")
    elif names:
        unfinished = not strange and not names >= {RESULT, REPORT}
        remedy = "--resume goes on with the cross-check in it, or choose a new folder" if unfinished else "choose a new folder"
        raise RunFolderError(f"{out}: holds something already; {remedy}")


def _check_finished(folder: Path, recipe: Recipe) -> None:
    """Whether the finished run of an earlier process is of this recipe."""
    if read_json(folder / run_files.RESULT).get("recipe_digest") != recipe.digest():
        raise RunFolderError(f"{folder}: was started with another recipe, see {folder / run_files.RECIPE}; choose a new folder")
