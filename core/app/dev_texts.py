"""The dev split of a run's task, read again: the texts that its folder does not keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from ..data.limits import limited
from ..data.tasks import Examples, TaskSpec, read_split, resolve_task
from ..errors import CrossdistilError
from ..predictions import rows_digest
from ..recipe_errors import describe
from ..registered import Registered
from ..task_section import TaskSection, loaded_task_section


def read_dev(section: dict[str, Any], registered: Registered) -> tuple[TaskSpec, Examples]:
    """Of the `task` of a resolved recipe, which may be `registered` by a plugin. Raises CrossdistilError."""
    try:
        task = loaded_task_section()(**{**section, "metrics": None})  # which may be a plugin's; only the rows are needed
    except ValidationError as error:
        raise CrossdistilError("; ".join(describe(error, TaskSection, "task"))) from error
    spec = resolve_task(task, registered)
    return spec, limited(read_split(spec, task.data, "dev"), task.limit, "dev")


def dev_texts(section: dict[str, Any], rows: str, registered: Registered) -> tuple[Examples | None, str]:
    """The examples whose digest is `rows`, with their texts, or why they are not at hand."""
    try:
        spec, examples = read_dev(section, registered)
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
