"""One recipe on several backends, each in its own process with the same weights and batches, then the comparison."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ...backends.registry import interpreters
from ..data.batches import DEFAULT_BUCKETS
from ..errors import CrossdistilError, RunFolderError
from ..files import write_text
from ..recipe import Recipe
from .compare import compare
from .report import write_report
from .worker import run_worker

RESULT = "crosscheck.json"


@dataclass(frozen=True)
class CrosscheckOptions:
    """How a cross-check is run; the recipe itself says what."""

    backends: tuple[str, ...]
    out: Path
    device: str | None = None
    steps_per_call: int | None = None
    source: str = "recipe"
    """What errors call the recipe."""


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
    return recipe.model_copy(update={"stages": tuple(stages), "teacher_cache": cache})


def crosscheck(recipe: Recipe, options: CrosscheckOptions, console: Console) -> dict[str, Any]:
    """Run the recipe on each backend, write `crosscheck.json` and `report.html`, and return the former's content.

    The backends run one after the other, so that their speeds can be compared.
    """
    interpreters(options.backends)
    if len(options.backends) < 2:
        raise CrossdistilError(f"backend '{options.backends[0]}': a cross-check needs another one to compare it with")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise RunFolderError(f"{options.out}: holds something already; choose a new folder")
    arguments = ["--probe"]
    if options.device is not None:
        arguments += ["--device", options.device]
    if options.steps_per_call is not None:
        arguments += ["--steps-per-call", str(options.steps_per_call)]
    try:
        for name in options.backends:
            console.rule(f"[bold]{name}")
            run_worker(recipe, options.source, name, options.out / name, arguments, console.quiet)
    except BaseException:
        if options.out.is_dir() and not any(options.out.iterdir()):
            options.out.rmdir()
        raise
    console.rule("[bold]comparison")
    result = compare(options.out, list(options.backends))
    write_text(options.out / RESULT, json.dumps(result, indent=2) + "\n")
    write_report(options.out)
    return result
