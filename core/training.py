"""The training loop: which step comes when, what is logged, evaluated and saved. It is the same for every backend.

The loop asks the engine for as many steps as there are until the next event (log line, evaluation, saved state), so that
a device can run them without the host; nothing is read back in between.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import google_crc32c
import numpy as np

from .data.batches import real_tokens
from .engine import Parameters, Step, TrainStep
from .errors import TrainingError
from .events import Evaluated, LiveSink, Logged, Saved
from .log_window import LogWindow
from .metrics import LOWER_IS_BETTER
from .runs import RunFolder
from .stages import Stage
from .states import State, check_arrays, check_steps
from .step_plan import Plan
from .world import World


@dataclass(frozen=True)
class Evaluation:
    """What the student of some step answers on dev."""

    metrics: dict[str, float]
    logits: np.ndarray | None = None
    said: np.ndarray | None = None
    """Both as `core.task_data.Scored` has them."""


Evaluate = Callable[[], Evaluation]
"""An evaluation of what the train step has now."""
Keep = Callable[[int, int, Parameters, dict[str, float]], None]
"""`f(epoch, step, parameters, metrics)`: keep what a stage has after a whole epoch, counted from 1; the metrics are those of an
evaluation after the same step, or none."""


_NEWER_NOTES = {"communication": 0.0, "reference": None, "waited": 0, "stopped": False}
"""Counters that states of earlier versions lack. `reference` is the metric that `waited` evaluations did not improve on;
`stopped`, whether that was once too often."""


@dataclass
class Outcome:
    """What a stage ends with."""

    parameters: Parameters
    """The student and the projections that the recipe keeps: the best evaluation's, or the last."""
    kept_step: int
    steps: int
    tokens: int
    seconds: float
    """Training time: without evaluation and saving, and over all the processes of a resumed run."""
    communication: float = 0.0
    """Seconds of it in which this process only waited for sums over all processes."""
    evaluation: Evaluation | None = None
    """That of these parameters, where this process has made it: not of those that come from a saved state."""


class Trainer:
    """Runs one stage of a recipe on an engine's train step.

    Steps are counted from the start of the run in everything that is written, from the start of the stage in the plan;
    `first` is how many steps the stages before took.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        first: int,
        parameters: Parameters,
        train_step: TrainStep,
        evaluate: Evaluate | None,
        run: RunFolder,
        tell: LiveSink,
        world: World | None = None,
        memory: Callable[[], float | None] = lambda: None,
        keep: Keep | None = None,
    ):
        """`parameters` are the student and all projections so far, of which `train_step` changes some; `evaluate` asks the train
        step's student, and is None in a stage whose student cannot answer yet. `run` keeps the states, `tell` takes the events;
        `memory` gives the peak in MiB. Of the processes of a `world`, the first one has the run's folder."""
        self._stage, self._train, self._seed, self._first = stage, stage.section.train, seed, first
        self._batches, self._objective = stage.batches, stage.objective
        self._parameters = parameters
        self._train_step, self._evaluate, self._run, self._tell = train_step, evaluate, run, tell
        self._memory = memory
        self._keep = keep
        self._evaluations: dict[int, Evaluation] = {}
        """By step: the last one of this process, and the best."""
        self.plan = Plan.of(self._train, self._batches.steps_per_epoch)
        self._factor = self._train.factor(self.plan.total)
        self._notes: dict[str, Any] = {"tokens": 0, "seconds": 0.0, "best_metric": None, "best_step": None}
        self._notes |= {"stage": stage.index, "past": [], "kernels": {}} | _NEWER_NOTES
        self._world = World() if world is None else world
        self._window = LogWindow(self._objective, self.plan.total)
        self._open_window(0)
        self._best: Parameters | None = None

    def remember(self, past: list[dict[str, Any]], kernels: dict[str, str]) -> None:
        """Keep what the stages before this one took, and which kernels the engine uses, with every saved state."""
        self._notes |= {"past": past, "kernels": kernels}

    def run(self, state: State | None = None) -> Outcome:
        """Train to the end, from a saved state of this stage if there is one. Raises TrainingError when the loss is not
        finite, and KeyboardInterrupt, its state saved, after the step that was under way when the world was asked to stop."""
        step = 0 if state is None else self._restore(state)
        steps = self._steps(step)
        self._tell.start(step, self.plan.total)
        self._tell.measured(self._notes["tokens"], self._notes["seconds"])
        while step < self.plan.total and not self._notes["stopped"]:
            if not self._world.proceed(self._first + step):
                self._stop(step)
            count = self.plan.next_event(step) - step
            taken = self._until_stopped(steps, step, count)
            started, waited = time.perf_counter(), self._train_step.communication
            values = self._train_step.run(taken, count, self._counted(step)).fetch()
            self._notes["seconds"] += time.perf_counter() - started
            self._notes["communication"] += self._train_step.communication - waited
            self._tell.measured(self._notes["tokens"], self._notes["seconds"])
            self._check(values, step)
            self._window.add(values, step)
            stop = len(values) < count
            step += len(values)
            last = step == self.plan.total
            if step % self.plan.log_every == 0 or last:
                self._log(step)
            if self._evaluate is not None and (step % self.plan.evaluate_every == 0 or last):
                self._evaluated(step)
                if self._notes["stopped"]:
                    last = True
                    if self._notes["window"]["step"] < step:
                        self._log(step)
            if self._keep is not None and self.plan.keep_every and step % self.plan.keep_every == 0:
                known = self._evaluations.get(self._first + step)
                metrics = {} if known is None else known.metrics
                self._keep(step // self.plan.keep_every, self._first + step, self._current(step), metrics)
            if stop:
                self._stop(step)
            if step % self.plan.save_every == 0 or last:
                self._save(step)
        return self._outcome(step)

    def _stop(self, step: int) -> NoReturn:
        self._save(step)
        place = f"step {self._first + step:,} is saved in {self._run.path}"
        raise KeyboardInterrupt(f"{place}; --resume goes on from there")

    def _until_stopped(self, steps: Iterator[Step], step: int, count: int) -> Iterator[Step]:
        """The `count` steps after `step`, of which the first may begin, or as many as may begin."""
        for number in range(step, step + count):
            if number > step and not self._world.proceed(self._first + number):
                return
            yield next(steps)

    def _counted(self, step: int) -> Callable[[int], None]:
        """Tells of steps after `step` as the device is given them."""
        advance, notes, done = self._tell.advance, self._notes, step

        def dispatched(number: int) -> None:
            nonlocal done
            done += number
            advance(done, notes["tokens"])

        return dispatched

    def _restore(self, state: State) -> int:
        check_arrays(state, "the optimizer", state.optimizer, self._train_step.state_layout())
        check_steps(state, self._first, self.plan.total, len(self._objective.names) + 1)
        self._train_step.restore(state.parameters, state.optimizer)
        self._parameters = state.parameters
        self._notes = _NEWER_NOTES | state.notes | {"kernels": self._notes["kernels"]}
        self._window.restore(self._notes["window"])
        self._best = state.parameters if state.notes["best_step"] == state.step else state.best
        return state.step - self._first

    def _current(self, step: int) -> Parameters:
        """The parameters after `step`, which is the last that was taken, on the host."""
        if self._best is not None and self._notes["best_step"] == self._first + step:
            return self._best
        return {**self._parameters, **self._train_step.parameters()}

    def _save(self, step: int) -> None:
        self._require_finite(step)
        parameters = self._current(step)
        self._require_equal(parameters, step)
        best = None if self._notes["best_step"] == self._first + step else self._best
        self._run.save_state(State(self._first + step, parameters, self._train_step.state(), best, self._notes))
        self._tell.saved(Saved(self._first + step, self._run.path))

    def _steps(self, start: int) -> Iterator[Step]:
        per_epoch = self.plan.steps_per_epoch
        number = start
        for epoch in itertools.count(start // per_epoch):
            for micro_batches in self._batches.epoch(epoch, number - epoch * per_epoch):
                self._notes["tokens"] += sum(real_tokens(batch) for batch in micro_batches)
                yield Step(
                    self._objective.prepare(micro_batches, number, self.plan.total, self._seed, self._world.share),
                    self._train.learning_rate * self._factor(number),
                    int(np.random.SeedSequence([self._seed, self._first + number]).generate_state(1)[0]) >> 1,
                    self._world.share,
                )
                number += 1

    def _check(self, values: np.ndarray, step: int) -> None:
        """Raise TrainingError for a step that the device has left out, since its loss or its gradient is not finite."""
        names = self._objective.names
        finite = np.isfinite(values[:, : 1 + len(names)]).all(axis=1)
        if not self._train_step.skips_overflow:
            finite &= np.isfinite(values[:, -1])
        if not finite.all():
            bad = int(np.argmin(finite))
            row = values[bad]
            terms = ", ".join(f"{name} {value:g}" for name, value in zip(names, row[1:]))
            norm = "" if np.isfinite(row[-1]) else f", and the norm of the gradient is {row[-1]:g}"
            raise TrainingError(
                f"{self._run.path}: step {self._first + step + bad + 1}: the loss is {row[0]:g} ({terms}){norm}; "
                "a smaller learning_rate, or precision fp32, may help. What was saved before is untouched"
            )

    def _require_finite(self, step: int) -> None:
        name = self._train_step.not_finite()
        if name is not None:
            raise TrainingError(f"{self._run.path}: step {self._first + step}: {name} is not finite; the state is not saved")

    def _require_equal(self, parameters: Parameters, step: int) -> None:
        """Each process updates its own copy of the parameters: that they are one is seen here, and not believed."""
        if self._world.size > 1:
            crc = 0
            for name in sorted(parameters):
                crc = google_crc32c.extend(crc, np.ascontiguousarray(parameters[name]).tobytes())
            self._world.same(f"{self._run.path}: step {self._first + step}: parameters", str(crc).encode())

    def _place(self, step: int) -> dict[str, Any]:
        return {"step": self._first + step, "stage": self._stage.name, "epoch": step / self.plan.steps_per_epoch}

    def _log(self, step: int) -> None:
        rate = self._train.learning_rate * self._factor(step - 1)
        means = self._window.means(step, self._notes["tokens"], self._notes["seconds"])
        self._tell.logged(Logged(**self._place(step), **means, learning_rate=rate, memory_mb=self._memory()))
        self._open_window(step)

    def _open_window(self, step: int) -> None:
        """Start the interval of the next log line. It is part of the saved state, since a state may fall inside it."""
        self._notes["window"] = self._window.open(step, self._notes["tokens"], self._notes["seconds"])

    def _evaluated(self, step: int) -> None:
        self._require_finite(step)
        self._tell.evaluate()
        found = self._evaluate()
        metrics = found.metrics
        name, main = next(iter(metrics.items()))
        before, sign = self._notes["best_metric"], -1.0 if name in LOWER_IS_BETTER else 1.0
        best = before is None or sign * main > sign * before
        if best:
            self._best = self._current(step)
            self._notes["best_metric"], self._notes["best_step"] = main, self._first + step
        kept = self._evaluations.get(self._notes["best_step"])
        self._evaluations = {} if kept is None else {self._notes["best_step"]: kept}
        self._evaluations[self._first + step] = found
        self._wait(sign * main)
        self._tell.evaluated(Evaluated(**self._place(step), metrics=metrics, best=best))

    def _wait(self, score: float) -> None:
        """Count the evaluations without an improvement; `score` is the larger, the better."""
        train, notes = self._train, self._notes
        if train.patience is None:
            return
        if notes["reference"] is None or score > notes["reference"] + train.min_improvement:
            notes["reference"], notes["waited"] = score, 0
        else:
            notes["waited"] += 1
        # All processes have computed the same; that they do the same must not hang on the last bit of it.
        notes["stopped"] = self._world.decide(notes["waited"] >= train.patience)

    def _outcome(self, step: int) -> Outcome:
        keep_best = self._train.keep == "best" and self._best is not None
        kept_step = self._notes["best_step"] if keep_best else self._first + step
        return Outcome(
            parameters=self._best if keep_best else self._current(step),
            kept_step=kept_step,
            steps=step,
            tokens=self._notes["tokens"],
            seconds=self._notes["seconds"],
            communication=self._notes["communication"],
            evaluation=self._evaluations.get(kept_step),
        )
