"""One run: a prepared job executed by one backend in this process, into one run folder."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ...backends.registry import load_engine
from ..checkpoint import Model, save_model
from ..engine import Engine, EngineOptions
from ..errors import CrossdistilError
from ..files import write_arrays
from ..job import Job, logits_function, prepare, with_about
from ..models.bert import make_forward
from ..optimizers import OptimizerSpec
from ..recipe import Recipe
from ..runs import PROBE, RunFolder
from ..training import Outcome, Trainer
from .progress import TrainingProgress


@dataclass(frozen=True)
class RunOptions:
    """How one run is executed; what is not part of the recipe."""

    backend: str
    engine: EngineOptions
    out: Path
    resume: bool = False
    probe: bool = False
    """Also write what a cross-check compares: `probe.safetensors` and `predictions.safetensors`."""


def execute(recipe: Recipe, source: str, options: RunOptions, console: Console) -> dict[str, Any]:
    """Run a recipe and return the content of result.json. Raises CrossdistilError before anything is written if the
    recipe, the data, a model, the backend or the folder is not in order."""
    engine = load_engine(options.backend, options.engine)
    job = prepare(recipe, source, engine.static_shapes)
    _announce(job, engine, console)
    identity = {"backend": engine.name, "device": engine.device, "precision": engine.precision}
    run = RunFolder(options.out, recipe, identity, options.resume)
    try:
        if run.complete:
            raise CrossdistilError(f"{options.out}: the run is complete; there is nothing to resume")
        return _train(job, engine, run, options, console)
    except BaseException:
        run.discard_if_new()
        raise
    finally:
        run.close()


def _train(job: Job, engine: Engine, run: RunFolder, options: RunOptions, console: Console) -> dict[str, Any]:
    stage, started = job.recipe.stages[0], time.perf_counter()
    frozen = job.teacher.parameters if job.teacher is not None and job.objective.needs_teacher else {}
    if options.probe:
        _write_probe(job, engine, frozen, run.path)
    teacher = _teacher_result(job, engine, console)
    student_logits = logits_function(job.student_config)
    train = stage.train
    step = engine.train_step(
        job.objective.function,
        job.student.parameters,
        frozen,
        OptimizerSpec(
            train.optimizer, train.beta1, train.beta2, train.epsilon, train.weight_decay, train.max_gradient_norm
        ),
    )

    def evaluate(parameters: dict[str, np.ndarray]) -> dict[str, float]:
        return job.data.score("dev", engine.infer(student_logits, parameters))[0]

    with TrainingProgress(f"{engine.name} {stage.name}", console) as progress:
        outcome = Trainer(train, job.recipe.seed, job.batches, job.objective, step, evaluate, run, progress).run()
    metrics, logits = job.data.final_metrics(engine.infer(student_logits, outcome.parameters))
    student = with_about(job.student, outcome.parameters, _about(job, engine, metrics, outcome))
    save_model(student, run.path / "student", job.data.tokenizer)
    if options.probe:
        write_arrays(run.path / "predictions.safetensors", {"logits": logits})
    result = {
        **{"backend": engine.name, "device": engine.device, "precision": engine.precision},
        "versions": {"python": sys.version.split()[0], "numpy": np.__version__, **engine.versions()},
        "seed": job.recipe.seed,
        "steps": outcome.steps,
        "epochs": outcome.steps / job.batches.steps_per_epoch,
        "wall_seconds": round(time.perf_counter() - started, 3),
        "training_seconds": round(outcome.seconds, 3),
        "tokens_per_second": round(outcome.tokens / max(outcome.seconds, 1e-9), 1),
        "peak_memory_mb": round(engine.peak_memory_mb() or _peak_process_memory_mb(), 1),
        "method": job.recipe.method,
        "task": job.data.spec.name,
        "recipe_digest": job.recipe.digest(),
        "student": {"metrics": metrics, "parameters": student.parameter_count, "kept_step": outcome.kept_step},
    }
    if teacher is not None:
        result["teacher"] = teacher
    run.write_result(result)
    return result


def _teacher_result(job: Job, engine: Engine, console: Console) -> dict[str, Any] | None:
    """The teacher's own score, measured before the first step: a wrong teacher is seen at once."""
    if job.teacher is None:
        return None
    metrics, _ = job.data.final_metrics(engine.infer(logits_function(job.teacher.config), job.teacher.parameters))
    console.print(f"{engine.name} teacher: dev {_metrics_text(metrics)}")
    return {"metrics": metrics, "parameters": job.teacher.parameter_count}


def _about(job: Job, engine: Engine, metrics: dict[str, float], outcome: Outcome) -> dict[str, Any]:
    return {
        # Without the folder of the data: the model travels, the data does not.
        "task": job.recipe.task.model_dump(mode="json", exclude={"data"}, exclude_none=True),
        "method": job.recipe.method,
        "recipe_digest": job.recipe.digest(),
        "backend": engine.name,
        "step": outcome.kept_step,
        "dev": metrics,
    }


def _write_probe(job: Job, engine: Engine, frozen: dict[str, np.ndarray], folder: Path) -> None:
    """The first batch through the untrained student: hidden states and logits, then values and gradients of the loss."""
    batch = job.objective.prepare(next(job.batches.epoch(0)))[0]
    forward = make_forward(job.student_config.without_dropout())

    def states(ops, parameters, inputs):
        outputs = forward(ops, parameters, inputs)
        return [outputs["logits"], *outputs["hidden"]]

    logits, *hidden = engine.infer(states, job.student.parameters)(batch)
    values, gradients = engine.gradients(job.objective.function, job.student.parameters, frozen, batch)
    arrays = {"logits": logits, "mask": batch["attention_mask"], "values": values}
    arrays |= {f"hidden/{index}": state for index, state in enumerate(hidden)}
    arrays |= {f"gradient/{name}": gradient for name, gradient in gradients.items()}
    write_arrays(folder / PROBE, arrays)


def _announce(job: Job, engine: Engine, console: Console) -> None:
    train, plan_steps = job.recipe.stages[0].train, job.batches.steps_per_epoch
    length = f"{train.steps} steps" if train.steps else f"{train.epochs:g} epochs of {plan_steps} steps"
    lines = [
        f"{job.recipe.method} on {job.data.spec.name}: {len(job.data.examples['train'].texts):,} train and "
        f"{len(job.data.examples['dev'].texts):,} dev examples, {length}, batch {train.batch_size}",
        f"student: {_model_text(job.student)}",
    ]
    if job.teacher is not None:
        lines.append(f"teacher: {_model_text(job.teacher)} from {job.teacher.source}")
    if job.recipe.student.init.layers is not None:
        lines.append(f"student layers start as source layers {list(job.recipe.student.init.layers)}")
    if job.student.new:
        lines.append(f"drawn anew: {', '.join(job.student.new) if len(job.student.new) <= 4 else 'all weights'}")
    lines.append(f"backend: {engine.name} on {engine.device}, {engine.precision}")
    for line in lines:
        console.print(line)


def _model_text(model: Model) -> str:
    config = model.config
    return f"{config.num_hidden_layers} layers x {config.hidden_size}, {model.parameter_count / 1e6:.1f}M parameters"


def _metrics_text(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _peak_process_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
