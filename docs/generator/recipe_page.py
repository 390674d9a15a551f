"""docs/reference/recipe.md: every key of a recipe with its type, default, unit and meaning."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from meanings import cell, meanings, one_line
from pydantic import BaseModel
from types_shown import default_shown, type_shown

from crossdistil.core.data.masking import MaskingSettings
from crossdistil.core.file_section import FileSection, PriceSection
from crossdistil.core.model_sections import CacheSection, InitSection, StudentSection, TeacherSection, WordsSection
from crossdistil.core.plugin_files import PluginSection
from crossdistil.core.read_section import ReadSection
from crossdistil.core.recipe import Recipe
from crossdistil.core.recipe_schema import NotesSection
from crossdistil.core.stage_section import ReplacementSection, StageSection
from crossdistil.core.task_section import TaskSection, TokensSection
from crossdistil.core.train_section import TrainSection

SECTIONS: dict[str, type[BaseModel]] = {
    "": Recipe,
    "task": TaskSection,
    "task.tokens": TokensSection,
    "task.masking": MaskingSettings,
    "teacher": TeacherSection,
    "teacher.read": ReadSection,
    "teacher.file": FileSection,
    "teacher.file.price": PriceSection,
    "teacher_cache": CacheSection,
    "student": StudentSection,
    "student.init": InitSection,
    "student.words": WordsSection,
    "stages": StageSection,
    "stages.train": TrainSection,
    "stages.replacement": ReplacementSection,
    "plugins": PluginSection,
    "notes": NotesSection,
}
"""Where a section stands -> what it holds."""

UNITS = {
    "max_length": "tokens or words",
    "probability": "share",
    "mask": "share",
    "random": "share",
    "smoothing": "exponent",
    "vocabulary": "words",
    "overlap": "tokens",
    "epochs": "epochs",
    "steps": "optimizer steps",
    "batch_size": "examples",
    "gradient_accumulation": "parts",
    "warmup": "share or steps",
    "slanted_ratio": "ratio",
    "max_gradient_norm": "norm",
    "dropout": "probability",
    "length_buckets": "tokens",
    "log_every": "optimizer steps",
    "evaluate_every": "optimizer steps",
    "save_every": "optimizer steps",
    "rate": "probability",
    "until": "share or steps",
    "weight": "factor",
    "layers": "layers from 0",
}
"""Key -> what its number counts."""

INTRODUCTION = """# Recipe keys

Written by `python docs/generator/reference.py` from the program itself. A recipe is YAML; every key can be set on the
command line, `--set stages.0.train.epochs=3`. A key that does not exist is an error that names the nearest one. Paths
are from the folder where the command is started; those of `plugins` from the recipe's file on. `–` as a default:
decided as the meaning says.

`aux_data` is a list of sections like `task`, `teachers` names sections like `teacher`, `student.init.read` is like
`teacher.read`, and `stages` is a list. What an objective may hold is in [Losses](losses.md).
"""


def recipe_page() -> str:
    """The page."""
    return "\n".join([INTRODUCTION, *(line for name, model in SECTIONS.items() for line in _section(name, model))]) + "\n"


def _section(name: str, model: type[BaseModel]) -> Iterator[str]:
    yield from [f"## {f'`{name}`' if name else 'The whole'}", "", cell(one_line(inspect.getdoc(model) or "")), ""]
    yield from ["| key | type | default | unit | meaning |", "| --- | --- | --- | --- | --- |"]
    known = meanings(model)
    for key, field in model.model_fields.items():
        meaning, unit = cell(known.get(key, "")), UNITS.get(key, "")
        yield f"| `{field.alias or key}` | {cell(type_shown(field))} | {default_shown(field)} | {unit} | {meaning} |"
    yield ""
