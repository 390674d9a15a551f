"""Filling the teacher caches of a recipe on their own, without its student: on the machine that has the teacher, for runs anywhere."""

from __future__ import annotations

import dataclasses

from rich.console import Console

from ...backends.registry import load_engine
from ..engine import Engine, EngineOptions
from ..job import prepare
from ..recipe import Recipe
from ..teacher_cache import TeacherCache
from ..world import World
from .announce import metrics_text
from .joining import ending_together, join
from .memory import told_what_is_needed
from .models import all_notes, model_paths, told_as_given, with_model_folders
from .progress import shape_text
from .teaching import Teaching


def fill_caches(
    recipe: Recipe, source: str, backend: str, options: EngineOptions, console: Console
) -> list[tuple[str, TeacherCache]]:
    """(teacher, its complete cache) for all outputs that the recipe's stages can read. Neither the student's weights nor its
    words' vectors are needed. Raises CrossdistilError before anything is written if recipe, data, teachers or backend are
    not in order; what was interrupted goes on where it stopped."""
    engine = load_engine(backend, options)
    world = join(engine)
    with ending_together(world, engine.place):
        return _fill(recipe, source, engine, world, console)


def _fill(recipe: Recipe, source: str, engine: Engine, world: World, console: Console) -> list[tuple[str, TeacherCache]]:
    found = world.together(with_model_folders, recipe, False)
    pairs = list(zip(model_paths(recipe), model_paths(found)))
    with told_as_given(*pairs):
        job = world.together(prepare, found, source, engine.static_shapes, False)
        job = dataclasses.replace(job, recipe=recipe, share=world.share)
        for line in all_notes(job.notes, *pairs):
            console.print(f"note: {line}", markup=False)
        engine.compilations.tell = lambda what, shape: console.print(f"{engine.name}: compiling {what} for {shape_text(shape)}")
        job.data.world = world
        for data in job.teacher_data.values():
            data.world = world
        teaching = world.together(Teaching, job, engine, console)
        with told_what_is_needed(engine, teaching.weights_on_device, "a device with more memory"):
            filled = teaching.fill()
    for name, metrics in teaching.scores().items():
        if metrics:
            console.print(f"{engine.name} {name}: dev {metrics_text(metrics)}")
    return filled
