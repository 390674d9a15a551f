"""More training texts among those of a task: another task's, or texts without labels, for what a teacher alone teaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import DataError
from ..registered import NOTHING, Registered
from .limits import limited
from .numbered_rows import row_lines, with_more
from .tagged_mixing import more_words, with_words
from .task_specs import TaskSpec, glue_task
from .tasks import Examples, read_split, resolve_task
from .texts import Texts
from .texts_alone import AuxSection, is_unlabelled, texts_alone


def mixed(
    train: Examples, spec: TaskSpec, section: AuxSection, where: str, registered: Registered = NOTHING
) -> Examples:
    """`train` with the training examples of another section after them.

    Where the other task has the same classes, its labels are labels here too; else, or where it has none, its examples have
    none, and only the terms that need no labels learn from them. The 0 and 1 of two GLUE tasks are the same only where they mean
    the same; those of a task with a name of its own are the recipe's word that they do. The section's weight is what each of its
    examples counts in sums and in what they are divided by. Raises DataError, which starts with `where`, if one task is about
    pairs of texts and the other is not, or one about texts and the other about words.
    """
    if spec.kind.of_spans or not spec.kind.one_row:
        told = "is for tasks with an answer for a whole text, or labels of words"
        raise DataError(f"{where}: {told}, but task.kind is '{spec.kind.name}'")
    same, lines = False, None
    try:
        if is_unlabelled(section):
            other = texts_alone(section, spec, where)
        elif spec.kind.per_token:
            other = more_words(section, spec, where)
        else:
            other_spec = resolve_task(section, registered)
            other = read_split(other_spec, section.data, "train")
            lines = _all_lines(other_spec, section, other)
            same = train.labels is not None and (spec.labels, spec.kind) == (other_spec.labels, other_spec.kind)
            if glue_task(section.name) is not None:
                same = same and spec.label_names == other_spec.label_names
            if not same and train.labels is not None and other.labels is not None:
                told = "its labels are not the task's, so that only terms that need none learn from its texts"
                other = replace(other, notes=(*other.notes, f"{where}: {told}"))
    except DataError as error:
        raise DataError(str(error).replace("task.", f"{where}.")) from error
    lines = other.line_numbers if lines is None else lines
    other = limited(other, section.limit, "train", where)
    for key, examples in (("task.data", train), (where, other)):
        if examples.tokens is not None:
            raise DataError(f"{key}: {examples.source} holds records of tokens; only texts can be mixed with others")
    if (train.pairs is None) != (other.pairs is None):
        kinds = ("pairs of texts", "single texts")
        raise DataError(f"{where}: has {kinds[other.pairs is None]}, the task {kinds[train.pairs is None]}")
    count = len(other)
    rows = with_more(train.mixed_rows, lines, other.source, count)
    if spec.kind.per_token:
        return replace(with_words(train, other, section.weight), mixed_rows=rows)
    labels = None
    if train.labels is not None:
        labels = np.concatenate([train.labels, other.labels if same else spec.kind.fill(count, train.labels)])
    known, weights = (np.ones(len(train), np.float32) if own is None else own for own in (train.label_mask, train.weights))
    return replace(
        train,
        texts=Texts(text for texts in (train.texts, other.texts) for text in texts),
        pairs=None if train.pairs is None else Texts(text for texts in (train.pairs, other.pairs) for text in texts),
        labels=labels,
        line_numbers=np.concatenate([train.line_numbers, other.line_numbers]),
        label_mask=np.concatenate([known, np.full(count, float(same), np.float32)]),
        weights=np.concatenate([weights, np.full(count, section.weight, np.float32)]),
        notes=(*train.notes, *other.notes),
        mixed_rows=rows,
    )


def _all_lines(spec: TaskSpec, section: AuxSection, examples: Examples) -> np.ndarray:
    """Where the rows of a section's file begin, also those that were left out as they were read."""
    if spec.own is not None or examples.tokens is not None or not (spec.skip_labels or spec.format.bad_rows != "error"):
        return examples.line_numbers
    return row_lines(section.data / spec.splits["train"], spec)
