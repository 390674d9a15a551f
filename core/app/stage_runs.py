"""The stages of a job, trained one after the other by one backend, from the first step or from a saved state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console

from ..engine import Engine, Parameters
from ..errors import TrainingError
from ..events import Sinks, Started
from ..job import Job
from ..metric_lines import MetricLines
from ..models.theseus import predecessor_tensors
from ..shared_run import SharedRun
from ..stages import Stage
from ..states import State, check_arrays, layout_of
from ..training import Evaluation, Outcome, Trainer
from ..world import World
from .announce import metrics_text
from .data_report import one_answer
from .interruption import Interruption
from .probe import write_probe
from .progress import TrainingProgress
from .run_results import RunResults
from .teaching import Teaching
from .waiting import told_if_long


class StageRuns:
    """The stages of a run."""

    def __init__(
        self,
        job: Job,
        engine: Engine,
        run: SharedRun,
        console: Console,
        world: World,
        sinks: Sinks,
        probe: bool,
        resume: bool,
        start: dict[str, str],
    ):
        """With `probe`, what a cross-check compares is written before the first step; with `resume`, it is told where the run
        goes on; `start` is for `RunResults`."""
        self._job, self._engine, self._run, self._console, self._world = job, engine, run, console, world
        self._sinks, self._probe, self._resume = sinks, probe, resume
        self._results = RunResults(job, engine, run, console, world, start)
        self.teaching = world.together(Teaching, job, engine, console)

    def train(self) -> dict[str, Any]:
        """Train them and write the student; returns the content of result.json."""
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
        return self._results.finish(stages, outcomes, teachers, self.teaching.answers(), started)

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
            held |= predecessor_tensors(predecessor.config, predecessor.parameters)
        if self._probe and stage.index == 0 and state is None:
            self._world.lead(write_probe, stage, engine, held, frozen, self._run.path)
        objective = stage.objective
        step = engine.train_step(objective.function, held, frozen, stage.optimizer(held), objective.statistics)
        answers = job.data.answers(stage.config)

        def evaluate() -> Evaluation:
            with told_if_long(self._console, f"{engine.name} {stage.section.name}: scoring on dev"):
                found = job.data.scored("dev", step.infer(answers, tuple(job.student.parameters)))
            logits = found.logits
            given = job.data.spec.kind, job.data.spec.label_names, logits, job.data.examples["dev"].labels, "dev"
            same = None if logits is None else one_answer(*given)
            if same is not None:
                self._console.print(f"{engine.name} {stage.section.name}: warning: {same}", style="yellow", markup=False)
            return Evaluation(found.metrics, logits, found.said)

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
                self._results.peak_memory_mb,
                self._results.keeping(stage),
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

    def _teacher_results(self) -> dict[str, dict[str, Any]]:
        """The teachers' own scores, measured before the first step: a wrong teacher is seen at once."""
        results = {}
        for name, metrics in self.teaching.scores().items():
            if metrics:
                self._console.print(f"{self._engine.name} {name}: dev {metrics_text(metrics)}")
            teacher = self._job.teachers.get(name)
            results[name] = {"metrics": metrics, "parameters": None if teacher is None else teacher.parameter_count}
        return results


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
