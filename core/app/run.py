"""One run: a prepared job executed by one backend in this process, into one run folder."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ...backends.registry import load_engine
from ..engine import Engine, EngineOptions
from ..errors import Errors
from ..events import Failed, Finished, Sinks
from ..held_run import DATA, check_place, refuse_complete
from ..job import Job
from ..recipe import Recipe
from ..shared_run import SharedRun
from ..sinks.known import make_sinks
from ..teacher_identity import model_digest
from ..world import World
from .announce import announce
from .error_lines import words_of
from .joining import Voice, ending_together, join
from .memory import told_what_is_needed
from .plugin_trial import plugin_errors, try_losses, try_optimizers
from .preparing import prepared_job
from .progress import make_console
from .report_command import report_of_finished
from .run_check import Checked, check_run
from .run_sides import measure_finished
from .stage_runs import StageRuns
from .waiting import Waiting


@dataclass(frozen=True)
class RunOptions:
    """How one run is executed; what is not part of the recipe."""

    backend: str
    engine: EngineOptions
    out: Path
    resume: bool = False
    probe: bool = False
    """Also write what a cross-check compares before the first step: `probe.safetensors`."""
    report: bool = True
    """Also write report.html when the run is complete, which quotes texts of dev. A cross-check has its own."""
    latency: bool = True
    """Also measure how fast the student and its teachers answer, when the run is complete."""


def execute(recipe: Recipe, source: str, options: RunOptions, console: Console) -> dict[str, Any]:
    """Run a recipe and return the content of result.json. Raises CrossdistilError before anything is written if the
    recipe, the data, a model, the backend or the folder is not in order: with all that is wrong, as `run --check` has it.
    What ends it once there is a run folder has `left`: in words, what can be gone on from."""
    if options.resume and options.engine.place.size == 1:
        refuse_complete(options.out, recipe)
    sinks = _sinks(recipe, options, console)
    errors = Errors()
    with Waiting(partial(console.print, markup=False)) as waiting:
        waiting.doing(f"starting {options.backend}")
        engine = errors.collect(load_engine, options.backend, options.engine)
    if engine is None:
        if options.engine.place.size == 1:  # what else is wrong is found with another backend
            checked = Checked(options.backend, options.engine, options.out, options.resume)
            check_run(recipe, source, checked, make_console(quiet=True), errors)
        errors.throw()
    world = join(engine)
    with ending_together(world, engine.place) as voice, plugin_errors(recipe.registered):
        return _execute(recipe, source, options, console, engine, world, voice, sinks)


def _begun(
    recipe: Recipe, source: str, options: RunOptions, identity: dict[str, str], console: Console, engine: Engine, world: World
) -> Job:
    """The job of a run, announced. Raises CrossdistilError with all that keeps it from beginning; where nothing else does, what
    is wrong with the folder is found when the run is written."""
    errors = Errors()
    job = errors.collect(_prepared, recipe, source, engine, world, console)
    if job is not None:
        announce(job, engine, console)
        for trial, arguments in ((try_losses, (recipe, job.context, engine)), (try_optimizers, (recipe, engine))):
            errors.collect(_tried, trial, recipe, world, arguments)
    if errors and world.size == 1:
        folder = Errors()
        folder.collect(check_place, options.out, recipe, identity, options.resume)
        errors[:0] = folder
    errors.throw()
    return job


def _prepared(recipe: Recipe, source: str, engine: Engine, world: World, console: Console) -> Job:
    with plugin_errors(recipe.registered):
        return prepared_job(recipe, source, engine, world, console)[0]


def _tried(trial: Callable[..., None], recipe: Recipe, world: World, arguments: tuple[Any, ...]) -> None:
    with plugin_errors(recipe.registered):
        world.together(trial, *arguments)


def _sinks(recipe: Recipe, options: RunOptions, console: Console) -> Sinks:
    """Where this run is followed beside its folder: the first process tells it."""
    if options.engine.place.rank:
        return Sinks([])

    def tell(line: str) -> None:
        console.print(line, style="yellow", markup=False)

    return Sinks(make_sinks(recipe.log, recipe.registered, tell))


def _execute(
    recipe: Recipe,
    source: str,
    options: RunOptions,
    console: Console,
    engine: Engine,
    world: World,
    voice: Voice,
    sinks: Sinks,
) -> dict[str, Any]:
    # The first process's, since the others may have another clock, or another current folder.
    options = dataclasses.replace(options, out=Path(world.first(os.fsencode(options.out)).decode(errors="surrogateescape")))
    # Each of several processes has a device of its own of this kind.
    device = engine.device if world.size == 1 else engine.device.partition(":")[0]
    identity = {"backend": engine.name, "device": device, "precision": engine.precision}
    job = _begun(recipe, source, options, identity, console, engine, world)
    start = check_same(world, job) if world.size > 1 or options.probe else {}
    run = SharedRun(world, options.out, recipe, {**identity, DATA: data_digests(job)}, options.resume)
    world.on_end(lambda code: run.discard_if_new(keep_logs=code == 1))
    voice.write_log(options.out)
    try:
        if run.complete:
            raise run.nothing_to_resume()
        runner = StageRuns(job, engine, run, console, world, sinks, options.probe, options.resume, start)
        less = "a smaller train.batch_size, a larger train.gradient_accumulation"
        with told_what_is_needed(engine, runner.teaching.memory, less):
            result = runner.train()
        sinks.finished(Finished(result))
        if options.latency and not options.probe and world.rank == 0 and engine.length_step is not None:
            measure_finished(options.out, job, engine, console)
        if options.report and not options.probe and world.rank == 0:
            report_of_finished(options.out, options.backend, console, recipe.registered)
        return result
    except BaseException as error:
        sinks.failed(Failed(words_of(error)[1], isinstance(error, KeyboardInterrupt | SystemExit)))
        run.discard_if_new(keep_logs=words_of(error)[0] == 1)
        error.left = run.left()
        raise
    finally:
        run.close()


def data_digests(job: Job) -> dict[str, str]:
    """Digests of what is learned from and scored on, by what a person calls it: a run that goes on must go on with the same. Of a
    corpus, which may be longer than one wants to wait for, parts are read."""
    examples = job.data.examples["train"]
    found, digest = {"training texts": job.data.tokens["train"].glance}, hashlib.sha256()
    for array in (examples.labels, examples.label_mask, examples.weights, examples.row_scores):
        digest.update(b"none" if array is None else np.ascontiguousarray(array).data)
    if examples.word_counts is not None:
        digest.update(np.ascontiguousarray(examples.word_counts).data)
    found["labels of train"] = digest.hexdigest()
    scored_on = job.data.tokens.get("dev")
    if scored_on is not None:
        found["texts and labels of dev"] = job.data.dev_rows or scored_on.glance
    return found | {f"answers of {name}": taught.digest() for name, taught in examples.taught.items()}


def check_same(world: World, job: Job) -> dict[str, str]:
    """Digests of what a run starts from: recipe, texts, first weights. Raises CrossdistilError unless all processes have the
    same: else each would train something of its own."""
    start = {"recipe": job.recipe.digest()}
    world.same("the recipe", start["recipe"].encode())
    start["texts"] = job.data.tokens["train"].digest
    world.same("the training texts", start["texts"].encode())
    for name, model in {"student": job.student, **job.teachers}.items():
        start[f"weights/{name}"] = model_digest(model)
        world.same(f"{name}: the first weights", start[f"weights/{name}"].encode())
    for name, taught in job.data.examples["train"].taught.items():
        start[f"answers/{name}"] = taught.digest()
        world.same(f"{name}: the answers", start[f"answers/{name}"].encode())
    return start
