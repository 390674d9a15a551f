"""What is told of a teacher that is a file of answers: before a run what its labels cannot teach, and after it what the student
keeps of it."""

from __future__ import annotations

from typing import Any

from ..job import Job
from ..losses.logits import LogitsMatch


def file_warnings(job: Job) -> list[str]:
    """Of files most of whose answers are labels alone, where a temperature softens them."""
    lines = []
    for name in job.recipe.file_teachers:
        taught = job.data.examples["train"].taught[name]
        alone = int((~taught.soft).sum())
        if 2 * alone <= len(taught.soft) or not job.data.spec.kind.one_class:
            continue
        floor = job.recipe.file_teachers[name].file.floor
        for index, stage in enumerate(job.recipe.stages):
            for number, term in enumerate(stage.objective):
                if isinstance(term, LogitsMatch) and term.temperature != 1 and term.teacher in (None, name):
                    key = f"stages[{index}].objective[{number}].temperature"
                    told = f"{alone:,} of {len(taught.soft):,} answers of '{name}' are a label alone"
                    softens = f"of which it softens the floor ({floor:g}) and nothing else; 1 takes them as they are"
                    lines.append(f"{key}: {term.temperature:g}, but {told}, {softens}")
    return lines


def kept_lines(name: str, kept: dict[str, Any]) -> list[str]:
    """What the student keeps of a file, a line or two."""
    if "agreement" not in kept and "teacher" not in kept:
        return [f"{name}: the file has no answer to a text of dev, so that what the student keeps of it is not known"]
    parts = []
    if "agreement" in kept:
        what = next((f"{kept[what]:,} {what}" for what in ("words", "questions") if what in kept), f"{kept['texts']:,} texts")
        parts.append(f"the student says the same of {kept['agreement']:.1%} of {what} of dev")
    if "spans" in kept:
        scores = [f"{metric} of the student against the file {value:.4f}" for metric, value in kept["spans"].items()]
        parts += scores if "questions" in kept else scores[:1]
    if "teacher" in kept:
        ratio = "" if kept["retention"] is None else f", {kept['retention']:.1%} of it"
        scores = f"file {kept['teacher']:.4f}, student {kept['student']:.4f}{ratio}"
        parts.append(f"{kept['metric']} on {kept['labelled']:,} {'texts with labels' if 'words' in kept else 'labels'}: {scores}")
    return [f"{name}: " + "; ".join(parts)]
