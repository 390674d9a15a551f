"""From a recipe to a job that the processes of a command have prepared together: what `run` and `cache teacher` begin with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from ..engine import Engine
from ..job import Job, prepare
from ..recipe import Recipe
from ..world import World
from .models import all_notes, model_paths, paths_as_given, with_model_folders
from .progress import shape_text

Given = list[tuple[Path, Path]]
"""Each model's path as the recipe has it, and the folder that stands for it: for `paths_as_given`."""


def prepared_job(
    recipe: Recipe, source: str, engine: Engine, world: World, console: Console, for_training: bool = True
) -> tuple[Job, Given]:
    """The job of a recipe, which knows the recipe as it was given, and its models' paths; what their user should know is printed.
    Without `for_training`, the student need not have its weights. Raises CrossdistilError in all processes."""
    found = world.together(with_model_folders, recipe, for_training)
    pairs = list(zip(model_paths(recipe), model_paths(found)))
    with paths_as_given(*pairs):
        job = world.together(prepare, found, source, engine.length_step, for_training)
    job = dataclasses.replace(job, recipe=recipe, share=world.share)
    for data in (job.data, *job.teacher_data.values()):
        data.world = world
    for line in all_notes(job.notes, *pairs):
        console.print(f"note: {line}", markup=False)
    engine.compilations.tell = lambda what, shape: console.print(f"{engine.name}: compiling {what} for {shape_text(shape)}")
    return job, pairs
