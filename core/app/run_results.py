"""What a run leaves in its folder: students with what is known of them, their answers on dev, and result.json."""

from __future__ import annotations

import dataclasses
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..card_file import place_card
from ..checkpoint import WEIGHTS, Model
from ..checkpoint_saving import save_model
from ..checksums import noted_checksums
from ..engine import Engine, Parameters
from ..job import Job, with_about
from ..labelled.kept_answers import kept_answers
from ..model_card import card
from ..predictions import OF_WEIGHTS, Predictions, write_predictions
from ..run_files import CHECKPOINTS, STUDENT
from ..shared_run import SharedRun
from ..stages import Stage
from ..task_data import MISMATCHED, Scored
from ..training import Keep, Outcome
from ..world import World
from .file_lines import kept_lines
from .recorded import recorded
from .waiting import told_if_long


class RunResults:
    """Writes them, in the first process; all processes call it."""

    def __init__(self, job: Job, engine: Engine, run: SharedRun, console: Console, world: World, start: dict[str, str]):
        """`start` holds digests of what the run starts from, where they are known."""
        self._job, self._engine, self._run, self._console, self._world, self._start = job, engine, run, console, world, start

    def student_of(self, parameters: Parameters) -> Parameters:
        """Those of `parameters` that are the student's."""
        return {name: parameters[name] for name in self._job.student.parameters}

    def keeping(self, stage: Stage) -> Keep | None:
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

    def finish(
        self,
        stages: list[Stage],
        outcomes: list[Outcome],
        teachers: dict[str, dict[str, Any]],
        answers: dict[str, np.ndarray],
        started: float,
    ) -> dict[str, Any]:
        """Write the student and what it answers, beside the teachers' `answers` on dev, and return the content of result.json;
        `started` is when the run began, as `time.perf_counter` tells it."""
        job, engine, last = self._job, self._engine, outcomes[-1]
        scored = self._scored(stages[-1], last)
        metrics = scored.metrics
        steps = sum(outcome.steps for outcome in outcomes)
        about = self._about(metrics, last.kept_step) | recorded(job, engine, teachers, steps)
        student = with_about(job.student, last.parameters, about)
        projections = {name: array for name, array in last.parameters.items() if name not in job.student.parameters}
        self._world.lead(self._save, student, projections)
        predictions = job.data.predictions(scored.logits)
        answered = None
        if predictions is not None:
            answered = self._world.lead(self._keep_answers, dataclasses.replace(predictions, teachers=answers))
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
            "peak_memory_mb": round(self._most(self.peak_memory_mb()), 1),
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
        for name in job.recipe.file_teachers:
            teachers[name] |= self._of_file(name, scored)
        if len(teachers) == 1:
            result["teacher"] = next(iter(teachers.values()))
        elif teachers:
            result["teachers"] = teachers
        self._run.write_result(result)
        return result

    def _keep_answers(self, predictions: Predictions) -> dict[str, Any]:
        """Write them; returns what is noted of them, with the checksum of the weights that gave them."""
        weights = (noted_checksums(self._run.path / STUDENT) or {}).get(WEIGHTS)
        return write_predictions(self._run.path, predictions) | {OF_WEIGHTS: weights}

    def _scored(self, stage: Stage, outcome: Outcome) -> Scored:
        """What the finished model says of dev: in the evaluation that it was kept for, where this
        process has made it: what the saved weights would give, on MindSpore but for rounding."""
        data, known = self._job.data, outcome.evaluation
        if known is not None and MISMATCHED not in data.examples:
            return Scored(known.metrics, known.logits, known.said)
        with told_if_long(self._console, f"{self._engine.name}: scoring the finished model on dev"):
            return data.final(self._engine.infer(data.answers(stage.config), self.student_of(outcome.parameters)))

    def _of_file(self, name: str, scored: Scored) -> dict[str, Any]:
        """What is known of a teacher that is a file, and what the student keeps of it."""
        data = self._job.data
        about = {"file": dict(data.examples["train"].taught[name].about)}
        known = scored.logits is not None and "dev" in data.examples
        kept = kept_answers(data, name, scored.logits, scored.said) if known else None
        if kept is None:
            return about
        for line in kept_lines(name, kept):
            self._console.print(line, markup=False)
        return about | {"kept": kept}

    def _save(self, student: Model, projections: Parameters) -> None:
        place, text = self._run.path / STUDENT, card(student, student.parameter_count)

        def finish(folder: Path) -> None:
            if (note := place_card(folder, text, place)) is not None:
                self._console.print(note, markup=False)

        save_model(student, place, self._job.data.tokenizer, projections, checksums=True, finish=finish)

    def _most(self, value: float) -> float:
        """The largest that a process has."""
        return max(float(found["value"]) for found in self._world.arrays({"value": np.float64(value)}))

    def peak_memory_mb(self) -> float:
        """Of the device, or of this process where the device does not tell."""
        return self._engine.peak_memory_mb() or _peak_process_memory_mb()

    def _about(self, metrics: dict[str, float], step: int) -> dict[str, Any]:
        recipe, spec = self._job.recipe, self._job.data.spec
        named = {"name": spec.name} if spec.kind.embeds else {}  # by its columns it may be another than the recipe's name says
        return {
            # Without the folder of the data: the model travels, the data does not.
            "task": recipe.task.model_dump(mode="json", exclude={"data"}, exclude_none=True) | named,
            "max_length": self._job.data.buckets[-1],
            "method": recipe.method,
            "recipe_digest": recipe.digest(),
            "backend": self._engine.name,
            "step": step,
            "dev": metrics,
        }


def _peak_process_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
