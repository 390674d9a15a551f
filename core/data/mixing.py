"""A second task's training texts among those of a task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import DataError
from ..registered import NOTHING, Registered
from .task_definitions import TaskSection
from .task_specs import TaskSpec, glue_task
from .tasks import Examples, read_split, resolve_task


def mixed(
    train: Examples, spec: TaskSpec, section: TaskSection, where: str, registered: Registered = NOTHING
) -> Examples:
    """`train` with the training examples of another task after them.

    Where the other task has the same classes, its labels are labels here too; else its examples have none, and only the
    terms that need no labels learn from them. The 0 and 1 of two GLUE tasks are the same only where they mean the same;
    those of a task with a name of its own are the recipe's word that they do. Raises DataError, which starts with `where`,
    if one task is about pairs of texts and the other is not.
    """
    try:
        other_spec = resolve_task(section, registered)
    except DataError as error:
        raise DataError(str(error).replace("task.", f"{where}.", 1)) from error
    other = read_split(other_spec, section.data, "train")
    for key, examples in (("task.data", train), (where, other)):
        if examples.tokens is not None:
            raise DataError(f"{key}: {examples.source} holds records of tokens; only texts can be mixed with others")
    if (train.pairs is None) != (other.pairs is None):
        kinds = ("pairs of texts", "single texts")
        raise DataError(f"{where}: has {kinds[other.pairs is None]}, the task {kinds[train.pairs is None]}")
    same = train.labels is not None and (spec.labels, spec.multi_label) == (other_spec.labels, other_spec.multi_label)
    if glue_task(section.name) is not None:
        same = same and spec.label_names == other_spec.label_names
    count = len(other)
    labels = None
    if train.labels is not None:
        unknown = np.zeros((count, *train.labels.shape[1:]), train.labels.dtype)
        labels = np.concatenate([train.labels, other.labels if same else unknown])
    known = np.ones(len(train), np.float32) if train.label_mask is None else train.label_mask
    return replace(
        train,
        texts=train.texts + other.texts,
        pairs=None if train.pairs is None else train.pairs + other.pairs,
        labels=labels,
        line_numbers=np.concatenate([train.line_numbers, other.line_numbers]),
        label_mask=np.concatenate([known, np.full(count, float(same), np.float32)]),
    )
