"""Filling a recipe's teacher caches on their own, without its student: on the machine that has the teacher, for runs anywhere."""

from __future__ import annotations

from functools import partial

from rich.console import Console

from ...backends.registry import load_engine
from ..engine import Engine, EngineOptions
from ..recipe import Recipe
from ..teacher_cache import TeacherCache
from ..world import World
from .announce import metrics_text
from .joining import ending_together, join
from .memory import told_what_is_needed
from .model_notes import paths_as_given, told_engine
from .preparing import prepared_job
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
    job, given = prepared_job(recipe, source, engine, world, console, trains=False)
    told_engine(engine, partial(console.print, markup=False))
    with paths_as_given(*given):
        teaching = world.together(Teaching, job, engine, console)
        with told_what_is_needed(engine, teaching.weights_on_device, "a device with more memory"):
            filled = teaching.fill()
    for name, metrics in teaching.scores().items():
        if metrics:
            console.print(f"{engine.name} {name}: dev {metrics_text(metrics)}")
    return filled
