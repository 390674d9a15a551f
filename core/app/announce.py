"""What a run says before its first step: the data, the models, and what each stage will do, all of it resolved."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ..checkpoint import Model
from ..engine import Engine
from ..job import Job
from ..losses.matching import MatchTerm
from ..models.architectures import is_encoder
from ..plugin_files import load_plugins
from ..processor import precision_notes
from ..schedules import in_steps
from ..shown import counted
from ..stages import Stage
from .data_report import data_lines, data_warnings, unknown_shares, unknown_warnings
from .file_lines import file_warnings


def announce(job: Job, engine: Engine | None, console: Console) -> None:
    """Print the job, and the engine where there is one."""
    stages = [job.stage(index) for index in range(len(job.recipe.stages))]
    for line in job_lines(job, stages):
        console.print(line, markup=False)
    for line in [*data_warnings(job.data), *_teacher_warnings(job), *warnings(stages)]:
        console.print(f"warning: {line}", style="yellow", markup=False)
    if engine is None:
        return
    console.print(f"backend: {engine.name} on {engine.device}, {engine.precision}")
    for line in precision_notes(engine.precision, engine.device):
        console.print(f"note: {line}", style="yellow", markup=False)


def job_lines(job: Job, stages: Sequence[Stage]) -> list[str]:
    """One line a fact."""
    train = len(job.data.examples["train"])
    counts = f"{train:,} train"
    if "dev" in job.data.examples:
        counts += f" and {len(job.data.examples['dev']):,} dev"
    lines = [f"{job.recipe.method} on {job.data.spec.name}: {counts} examples", *data_lines(job.data)]
    lines += job.recipe.beside
    for section in job.recipe.plugins:
        lines.append(f"plugin {section.plugin}: {load_plugins([section]).describe()}")
    lines.append(f"student: {_model_text(job.student)}")
    for name, teacher in job.teachers.items():
        lines.append(f"{name}: {_model_text(teacher)} from {job.recipe.model_teachers[name].model}")
    for name, section in job.recipe.file_teachers.items():
        taught = job.data.examples["train"].taught[name]
        lines += [f"{name}: {section.file.path}", *(f"{name}: {line}" for line in taught.told)]
    if job.recipe.student.init.layers is not None:
        lines.append(f"student layers start as source layers {list(job.recipe.student.init.layers)} (counted from 0)")
    if job.student.new:
        lines.append(f"drawn anew: {_new_text(job.student)}")
    if job.projections:
        names = sorted({name.removeprefix("projection.").rpartition(".")[0] for name in job.projections})
        lines.append(f"projections that came with the student's weights: {', '.join(names)}")
    for stage in stages:
        section, settings = stage.section, stage.section.train
        per_epoch = stage.batches.steps_per_epoch
        length = f"{settings.steps} steps" if settings.steps else f"{settings.epochs:g} epochs of {per_epoch} steps"
        padded = f", padded to {', '.join(map(str, stage.batches.padded_lengths))} tokens" if job.compiles else ""
        lines.append(f"stage {section.name}: {length}, batch {settings.batch_size}{padded}")
        for term in section.objective:
            layers = (
                f", layers {term.describe(job.context)} (teacher→student, counted from 1)" if isinstance(term, MatchTerm) else ""
            )
            lines.append(f"  {term.weight:g} x {term.loss}{layers}")
        if section.freeze:
            lines.append(f"  frozen: {', '.join(section.freeze)}")
        if section.replacement is not None:
            rate = f"{section.replacement.rate:g}{', rising' if section.replacement.schedule == 'linear' else ''}"
            end = stage.objective.replacement.all_from(stage.total)
            alone = f"all from step {end:,} of {stage.total:,} on" if end < stage.total else f"to the end, step {stage.total:,}"
            lines.append(f"  modules replaced with probability {rate}; {alone}")
    return lines


def _teacher_warnings(job: Job) -> list[str]:
    """Of teachers that have another vocabulary than the student, and cannot read the texts with it."""
    lines = []
    for name, data in job.teacher_data.items():
        if data is not job.data:
            lines += [f"{name}: {line}" for line in unknown_warnings(unknown_shares(data), data.tokenizer)]
    return lines + file_warnings(job)


def warnings(stages: Sequence[Stage]) -> list[str]:
    """What a schedule says that the steps of its stage leave no room for."""
    lines = []
    for index, stage in enumerate(stages):
        section = stage.section
        total, replacement = stage.total, stage.objective.replacement
        if replacement is not None and replacement.until is not None and replacement.all_from(total) >= total:
            lines.append(
                f"stages[{index}].replacement.until: {_point(replacement.until)}, and the stage has {total:,}: "
                "the student is never trained alone"
            )
        if replacement is not None and not any(replacement.probability(step, total) for step in range(total)):
            lines.append(f"stages[{index}].replacement.rate: 0 to the end: the student is never trained at all")
        if in_steps(section.train.warmup, total) >= total:
            lines.append(
                f"stages[{index}].train.warmup: {_point(section.train.warmup)}, and the stage has {total:,}: "
                "the learning rate never reaches its peak"
            )
    return lines


def _point(share: float) -> str:
    return f"{share:g} of the steps" if share < 1 else f"{share:g} steps"


def _new_text(model: Model) -> str:
    if len(model.new) == len(model.parameters):
        return "all weights"
    names = [name for name in model.new if name not in model.missing_words]
    parts = [*names, *(["the head that predicts words"] if model.missing_words else [])]
    return ", ".join(parts) if len(parts) <= 4 else f"{len(model.new)} tensors, the first of them {model.new[0]}"


def _model_text(model: Model) -> str:
    config = model.config
    size = f"{model.parameter_count / 1e6:.1f}M parameters"
    if not is_encoder(config):
        return f"BiLSTM {config.hidden_size} over {config.vocab_size} words, {size}"
    return f"{counted(config.num_hidden_layers, 'layer')} x {config.hidden_size}, {size}"


def metrics_text(metrics: dict[str, float]) -> str:
    """`accuracy 0.9000, f1 0.8500`."""
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
