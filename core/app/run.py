"""One run: a prepared job executed by one backend in this process, into one run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ...backends.registry import load_engine
from ..checkpoint import Model, save_model
from ..engine import Engine, EngineOptions, Parameters
from ..errors import CrossdistilError, TrainingError
from ..events import Failed, Finished, Sinks, Started
from ..job import Job, with_about
from ..metric_lines import MetricLines
from ..model_card import card, place_card
from ..models.theseus import predecessor_tensors
from ..predictions import write_predictions
from ..recipe import Recipe
from ..runs import CHECKPOINTS, STUDENT
from ..shared_run import SharedRun
from ..sinks.known import make_sinks
from ..stages import Stage
from ..states import State, check_arrays, layout_of
from ..teacher_identity import model_digest, tokens_digest
from ..training import Keep, Outcome, Trainer
from ..world import World
from .announce import announce, metrics_text
from .data_report import one_answer
from .error_lines import words_of
from .interruption import Interruption
from .joining import Voice, ending_together, join
from .memory import told_what_is_needed
from .plugin_trial import plugin_errors, try_losses, try_optimizers
from .preparing import prepared_job
from .probe import write_probe
from .progress import TrainingProgress
from .recorded import recorded
from .report_command import report_of_finished
from .run_sides import measure_finished
from .teaching import Teaching


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
    recipe, the data, a model, the backend or the folder is not in order."""
    sinks = _sinks(recipe, options, console)
    engine = load_engine(options.backend, options.engine)
    world = join(engine)
    with ending_together(world, engine.place) as voice, plugin_errors(recipe.registered):
        return _execute(recipe, source, options, console, engine, world, voice, sinks)


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
    job, _ = prepared_job(recipe, source, engine, world, console)
    announce(job, engine, console)
    world.together(try_losses, recipe, job.context, engine)
    world.together(try_optimizers, recipe, engine)
    # Each of several processes has a device of its own of this kind.
    device = engine.device if world.size == 1 else engine.device.partition(":")[0]
    identity = {"backend": engine.name, "device": device, "precision": engine.precision}
    start = check_same(world, job) if world.size > 1 or options.probe else {}
    run = SharedRun(world, options.out, recipe, identity, options.resume)
    world.on_end(lambda code: run.discard_if_new(keep_logs=code == 1))
    voice.write_log(options.out)
    try:
        if run.complete:
            damage = run.damage()
            if damage is not None:
                remedy = "remove result.json, and --resume makes it again from the saved state"
                raise CrossdistilError(f"{options.out}: the run is complete, but {damage}; {remedy}")
            raise CrossdistilError(f"{options.out}: the run is complete; there is nothing to resume")
        runner = _Run(job, engine, run, options, console, world, start, sinks)
        less = "a smaller train.batch_size, a larger train.gradient_accumulation"
        with told_what_is_needed(engine, runner.teaching.memory, less):
            result = runner.train()
        sinks.finished(Finished(result))
        if options.latency and not options.probe and world.rank == 0:
            measure_finished(options.out, job, engine, console)
        if options.report and not options.probe and world.rank == 0:
            report_of_finished(options.out, options.backend, console, recipe.registered)
        return result
    except BaseException as error:
        sinks.failed(Failed(words_of(error)[1], isinstance(error, KeyboardInterrupt | SystemExit)))
        run.discard_if_new(keep_logs=words_of(error)[0] == 1)
        raise
    finally:
        run.close()


def check_same(world: World, job: Job) -> dict[str, str]:
    """Digests of what a run starts from: recipe, texts, first weights. Raises CrossdistilError unless all processes have the
    same: else each would train something of its own."""
    start = {"recipe": job.recipe.digest()}
    world.same("the recipe", start["recipe"].encode())
    start["texts"] = tokens_digest(job.data.tokens["train"])
    world.same("the training texts", start["texts"].encode())
    for name, model in {"student": job.student, **job.teachers}.items():
        start[f"weights/{name}"] = model_digest(model)
        world.same(f"{name}: the first weights", start[f"weights/{name}"].encode())
    return start


class _Run:
    """The stages of a job, one after the other."""

    def __init__(
        self,
        job: Job,
        engine: Engine,
        run: SharedRun,
        options: RunOptions,
        console: Console,
        world: World,
        start: dict[str, str],
        sinks: Sinks,
    ):
        self._start, self._sinks = start, sinks
        self._job, self._engine, self._run, self._console, self._world = job, engine, run, console, world
        self._probe, self._resume = options.probe, options.resume
        self.teaching = world.together(Teaching, job, engine, console)

    def train(self) -> dict[str, Any]:
        job, started = self._job, time.perf_counter()
        teachers = self._teacher_results()
        state = self._run.load_state()
        if state is not None and state.notes["stage"] >= len(job.recipe.stages):
            problem = f"stage: got {state.notes['stage'] + 1}, expected at most {len(job.recipe.stages)}"
            raise TrainingError(f"{state.source}: the saved state does not fit: {problem}")
        if self._resume:
            place = "no step is saved yet, starting from the first" if state is None else f"going on at step {state.step:,}"
            self._console.print(f"{self._run.path}: {place}")
        for line in [] if state is None else self._engine.keep_kernels(state.notes.get("kernels", {})):
            self._console.print(line, markup=False)
        self._sinks.started(self._started(state))
        parameters: Parameters = {**job.student.parameters, **job.projections}
        outcomes: list[Outcome] = []
        stages = []
        for index in range(len(job.recipe.stages)):
            first = sum(outcome.steps for outcome in outcomes)
            done = state is not None and state.notes["stage"] > index
            stage = self.teaching.stage(index, done)
            stages.append(stage)
            if done:
                outcomes.append(_past(stage, state))
                continue
            here = state if state is not None and state.notes["stage"] == index else None
            if here is not None:
                self._check(here, stages)
            outcomes.append(self._stage(stage, first, parameters, here, _past_notes(outcomes)))
            parameters = outcomes[-1].parameters
        return self._finish(stages, outcomes, teachers, started)

    def _started(self, state: State | None) -> Started:
        engine, step = self._engine, 0 if state is None else state.step
        kinds = engine.name, engine.device, engine.precision
        return Started(self._run.path, self._job.recipe.resolved(), *kinds, self._world.size, step, self._resume)

    def _check(self, state: State, stages: list[Stage]) -> None:
        """Whether the parameters of a saved state are those of the stages so far."""
        expected = layout_of({**self._job.student.parameters, **self._job.projections})
        for stage in stages:
            for name, tensor in stage.objective.projections.items():
                expected.setdefault(name, (tuple(tensor.shape), np.dtype(np.float32)))
        check_arrays(state, "the parameters", state.parameters, expected)
        if state.best is not None:
            check_arrays(state, "the parameters of the best evaluation", state.best, expected)

    def _stage(
        self, stage: Stage, first: int, parameters: Parameters, state: State | None, past: list[dict[str, Any]]
    ) -> Outcome:
        job, engine = self._job, self._engine
        if state is not None:  # what earlier stages trained and this one only reads comes from there too
            parameters = state.parameters
        parameters = {**parameters, **stage.new_projections(parameters, job.recipe.seed)}
        # In one order, wherever they come from: the norm of all gradients is a sum in that order.
        others = sorted(name for name in parameters if name not in job.student.parameters)
        parameters = {name: parameters[name] for name in (*job.student.parameters, *others)}
        frozen = self.teaching.frozen(stage)
        held = dict(parameters)
        if stage.objective.replacement is not None:
            predecessor = job.teachers[job.context.teacher(None)]
            held |= predecessor_tensors(predecessor.parameters)
        if self._probe and stage.index == 0 and state is None:
            self._world.lead(write_probe, stage, engine, held, frozen, self._run.path)
        objective = stage.objective
        step = engine.train_step(objective.function, held, frozen, stage.optimizer(held), objective.statistics)
        answers = job.data.answers(stage.config)

        def evaluate(trained: Parameters) -> dict[str, float]:
            metrics, logits = job.data.score("dev", engine.infer(answers, self._student_of(trained)))
            same = None if logits is None else one_answer(job.data.spec, logits, job.data.examples["dev"].labels, "dev")
            if same is not None:
                self._console.print(f"{engine.name} {stage.section.name}: warning: {same}", style="yellow", markup=False)
            return metrics

        can_evaluate = stage.evaluated and "dev" in job.data.examples
        title = f"{engine.name} {stage.name}"
        with Interruption(self._world), TrainingProgress(title, self._console) as progress, self._compiling(progress):
            trainer = Trainer(
                stage,
                job.recipe.seed,
                first,
                parameters,
                step,
                evaluate if can_evaluate else None,
                self._run,
                Sinks([MetricLines(self._run.append, self._run.append_watched), progress, self._sinks]),
                self._world,
                self._peak_memory_mb,
                self._keeping(stage),
            )
            trainer.remember(past, engine.kernels)
            outcome = trainer.run(state)
        if outcome.steps < stage.total:
            waited = stage.section.train.patience
            self._console.print(
                f"{title}: ends after step {outcome.steps:,} of {stage.total:,}: no better for {waited} "
                f"evaluation{'s' if waited > 1 else ''}",
                markup=False,
            )
        return outcome

    def _keeping(self, stage: Stage) -> Keep | None:
        """What keeps the student of each epoch of a stage, or of its last ones; None where the recipe keeps none."""
        wanted = stage.section.train.keep_states
        if wanted is None:
            return None
        job, before = self._job, "" if len(self._job.recipe.stages) == 1 else f"{stage.name}-"
        places = self._run.path / CHECKPOINTS

        def keep(epoch: int, step: int, parameters: Parameters, metrics: dict[str, float]) -> None:
            about = self._about(metrics, step) | recorded(job, self._engine, {}, step) | {"epoch": epoch}
            student, place = with_about(job.student, parameters, about), places / f"{before}epoch-{epoch}"
            places.mkdir(exist_ok=True)
            save_model(student, place, job.data.tokenizer, None, checksums=True)
            if wanted != "all":
                for old in range(1, epoch - wanted + 1):
                    shutil.rmtree(places / f"{before}epoch-{old}", ignore_errors=True)

        return lambda *given: self._world.lead(keep, *given)

    @contextlib.contextmanager
    def _compiling(self, progress: TrainingProgress) -> Iterator[None]:
        """Tells the progress of compilations too, whose time is not that of steps."""
        compilations, tell = self._engine.compilations, self._engine.compilations.tell

        def tell_both(what: str, shape: tuple[int, ...]) -> None:
            tell(what, shape)
            progress.compiles(shape)

        compilations.tell = tell_both
        yield
        compilations.tell = tell

    def _finish(
        self, stages: list[Stage], outcomes: list[Outcome], teachers: dict[str, dict[str, Any]], started: float
    ) -> dict[str, Any]:
        job, engine, last = self._job, self._engine, outcomes[-1]
        infer = engine.infer(job.data.answers(stages[-1].config), self._student_of(last.parameters))
        metrics, logits = job.data.final_metrics(infer)
        steps = sum(outcome.steps for outcome in outcomes)
        about = self._about(metrics, last.kept_step) | recorded(job, engine, teachers, steps)
        student = with_about(job.student, last.parameters, about)
        projections = {name: array for name, array in last.parameters.items() if name not in job.student.parameters}
        self._world.lead(self._save, student, projections)
        predictions = job.data.predictions(logits)
        answered = None if predictions is None else self._world.lead(
            write_predictions, self._run.path, dataclasses.replace(predictions, teachers=self.teaching.answers())
        )
        keys = ("seconds", "tokens", "communication")
        seconds, tokens, waited = (sum(getattr(outcome, key) for outcome in outcomes) for key in keys)
        epochs = [outcome.steps / stage.batches.steps_per_epoch for stage, outcome in zip(stages, outcomes)]
        result = {
            **{"backend": engine.name, "device": engine.device, "precision": engine.precision},
            "versions": {"python": sys.version.split()[0], "numpy": np.__version__, **engine.versions()},
            "threads": engine.threads,
            "kernels": engine.kernels,
            "seed": job.recipe.seed,
            "steps": steps,
            "epochs": sum(epochs),
            "wall_seconds": round(time.perf_counter() - started, 3),
            "training_seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / max(seconds, 1e-9), 1),
            "processes": self._world.size,
            "communication_share": round(waited / max(seconds, 1e-9), 4),
            "peak_memory_mb": round(self._most(self._peak_memory_mb()), 1),
            "method": job.recipe.method,
            "task": job.data.spec.name,
            "recipe_digest": job.recipe.digest(),
            **({"start": self._start} if self._start else {}),
            "stages": [
                {"name": stage.name, "steps": outcome.steps, "epochs": count, "seconds": round(outcome.seconds, 3)}
                | ({"planned_steps": stage.total} if outcome.steps < stage.total else {})
                for stage, outcome, count in zip(stages, outcomes, epochs)
            ],
            "student": {"metrics": metrics, "parameters": student.parameter_count, "kept_step": last.kept_step},
        }
        if answered is not None:
            result["dev"] = answered
        if len(teachers) == 1:
            result["teacher"] = next(iter(teachers.values()))
        elif teachers:
            result["teachers"] = teachers
        self._run.write_result(result)
        return result

    def _save(self, student: Model, projections: Parameters) -> None:
        place, text = self._run.path / STUDENT, card(student, student.parameter_count)

        def finish(folder: Path) -> None:
            if (note := place_card(folder, text, place)) is not None:
                self._console.print(note, markup=False)

        save_model(student, place, self._job.data.tokenizer, projections, checksums=True, finish=finish)

    def _most(self, value: float) -> float:
        """The largest that a process has."""
        return max(float(found["value"]) for found in self._world.arrays({"value": np.float64(value)}))

    def _peak_memory_mb(self) -> float:
        return self._engine.peak_memory_mb() or _peak_process_memory_mb()

    def _student_of(self, parameters: Parameters) -> Parameters:
        return {name: parameters[name] for name in self._job.student.parameters}

    def _teacher_results(self) -> dict[str, dict[str, Any]]:
        """The teachers' own scores, measured before the first step: a wrong teacher is seen at once."""
        results = {}
        for name, metrics in self.teaching.scores().items():
            if metrics:
                self._console.print(f"{self._engine.name} {name}: dev {metrics_text(metrics)}")
            results[name] = {"metrics": metrics, "parameters": self._job.teachers[name].parameter_count}
        return results

    def _about(self, metrics: dict[str, float], step: int) -> dict[str, Any]:
        recipe = self._job.recipe
        return {
            # Without the folder of the data: the model travels, the data does not.
            "task": recipe.task.model_dump(mode="json", exclude={"data"}, exclude_none=True),
            "max_length": self._job.data.buckets[-1],
            "method": recipe.method,
            "recipe_digest": recipe.digest(),
            "backend": self._engine.name,
            "step": step,
            "dev": metrics,
        }


def _past_notes(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    keys = ("steps", "tokens", "seconds", "communication")
    return [{key: getattr(outcome, key) for key in keys} for outcome in outcomes]


def _past(stage: Stage, state: State) -> Outcome:
    """A stage that a resumed run finished before; its weights are in the state of the stage that follows it."""
    notes = state.notes["past"][stage.index]
    early = stage.section.train.patience is not None and notes["steps"] < stage.total
    if notes["steps"] != stage.total and not early:
        raise TrainingError(f"stage '{stage.name}': the saved state is of a run of {notes['steps']} steps, not {stage.total}")
    return Outcome({}, state.step, notes["steps"], notes["tokens"], notes["seconds"], notes.get("communication", 0.0))


def _peak_process_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
