"""The dev split of a run's task, read again: the texts that its folder does not keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ..data.limits import limited
from ..data.tasks import Examples, TaskSpec, read_split, resolve_task
from ..errors import CrossdistilError
from ..file_section import FileSection
from ..labelled.labelled_rows import with_answers
from ..predictions import rows_digest
from ..recipe_errors import describe
from ..registered import Registered
from ..task_section import TaskSection, loaded_task_section, with_folder


def read_dev(recipe: dict[str, Any], registered: Registered) -> tuple[TaskSpec, Examples]:
    """Of a resolved recipe, whose task may be `registered` by a plugin; without labels of its own it has those of the file that
    teaches. Raises CrossdistilError."""
    section, teachers = recipe["task"], {"teacher": recipe.get("teacher"), **(recipe.get("teachers") or {})}
    given = {name: each["file"] for name, each in teachers.items() if each and each.get("file")}
    try:
        task = with_folder(loaded_task_section()(**{**section, "metrics": None}))  # a plugin's, maybe; only the rows are needed
        files = {name: FileSection(**each) for name, each in given.items()}
    except ValidationError as error:
        raise CrossdistilError("; ".join(describe(error, TaskSection, "task"))) from error
    spec = resolve_task(task, registered, bool(files))
    examples = limited(read_split(spec, task.data, "dev"), task.limit, "dev")
    for name, file in files.items():
        if examples.labels is None:
            examples = with_answers({"dev": examples}, spec, file, name, "teacher.file", task.data)["dev"]
    return spec, examples


def dev_texts(recipe: dict[str, Any], rows: str, registered: Registered) -> tuple[Examples | None, str]:
    """The examples whose digest is `rows`, with their texts, or why they are not at hand."""
    try:
        spec, examples = read_dev(recipe, registered)
    except (CrossdistilError, OSError) as error:
        return None, f"without texts: {str(error).splitlines()[0]}"
    if rows_digest(spec, examples) != rows:
        return None, f"without texts: {examples.source} is not what the run was scored on any more"
    if examples.tokens is not None:
        return None, f"without texts: {examples.source} holds tokens"
    return _with_pairs(examples), ""


def _with_pairs(examples: Examples) -> Examples:
    """The texts of each example: both of pairs, of which each is a text of its own for a model that embeds it, and queries."""
    if examples.among is not None:
        return replace(examples, texts=examples.texts[: len(examples)])
    if examples.lists is not None:  # a query is an example
        return replace(examples, texts=[examples.texts[row] for row in examples.lists[:-1]], pairs=None)
    if examples.members == 1:
        return examples
    return replace(examples, texts=examples.texts[: len(examples)], pairs=examples.texts[len(examples) :], members=1)
