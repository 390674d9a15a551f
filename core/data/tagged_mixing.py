"""More training texts among those whose words have labels: others whose words have some, or texts without."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..errors import DataError
from .labels import listed
from .tagged_files import word_places
from .tagged_tasks import token_task
from .task_specs import TaskSpec
from .tasks import Examples, read_split
from .texts import Texts
from .texts_alone import AuxSection

_OF_THE_TASK = ("pieces", "overlap", "constrained")
"""What is one for all texts of a task."""


def more_words(section: AuxSection, spec: TaskSpec, where: str) -> Examples:
    """The training texts of a section whose words have labels. Where they are other labels than the task's, none is taken, which
    is noted. Raises DataError."""
    if section.kind != spec.kind.name:
        told = "is for words with labels; texts without name a column of them, `text`, or are a .txt file, a text a line"
        got = "" if section.kind is None else f"got {section.kind}, but the words of the task have labels: "
        raise DataError(f"{where}.kind: {got}{spec.kind.name} {told}")
    given = () if section.tokens is None else section.tokens.model_fields_set
    for key in _OF_THE_TASK:
        if key in given:
            raise DataError(f"{where}.tokens.{key}: is one for all texts, and that of the task itself; leave it out")
    other = token_task(section, spec.kind)
    if set(other.labels) == set(spec.labels):
        return read_split(replace(other, labels=spec.labels), section.data, "train")
    found = read_split(other, section.data, "train")
    way = "" if section.labels is not None else f"; {where}.labels names those that it could have, where it has some of them only"
    told = f"its labels ({listed(other.labels)}) are not the task's, so that only terms that need none learn from its texts"
    return replace(found, labels=None, notes=(*found.notes, f"{where}: {told}{way}"))


def with_words(train: Examples, other: Examples, weight: float) -> Examples:
    """`train` with other texts after them, each of which counts `weight`."""
    count = len(other)
    counts = None
    if train.word_counts is not None or other.labels is None:
        counts = _under_another(counts_of(train), counts_of(other), 0)
    labels = None
    if train.labels is not None:
        found = np.full((count, 1), -1, train.labels.dtype) if other.labels is None else other.labels
        labels = _under_another(train.labels, found, -1)
    weights = np.ones(len(train), np.float32) if train.weights is None else train.weights
    return replace(
        train,
        texts=Texts(text for texts in (train.texts, other.texts) for text in texts),
        labels=labels,
        line_numbers=np.concatenate([train.line_numbers, other.line_numbers]),
        weights=np.concatenate([weights, np.full(count, weight, np.float32)]),
        by_spaces=np.concatenate([train.by_spaces, other.by_spaces]),
        word_counts=counts,
        notes=(*train.notes, *other.notes),
    )


def counts_of(examples: Examples) -> np.ndarray:
    """(examples, most words) float32: what each word counts, without labels 1."""
    if examples.word_counts is not None:
        return examples.word_counts
    if examples.labels is not None:
        return (examples.labels >= 0).astype(np.float32)
    numbers = np.array([len(word_places(*each)) for each in zip(examples.texts, examples.by_spaces.tolist())])
    return (np.arange(max(1, numbers.max(initial=0))) < numbers[:, None]).astype(np.float32)


def _under_another(above: np.ndarray, below: np.ndarray, nothing: float) -> np.ndarray:
    """Two arrays (examples, most words) as one."""
    width = max(above.shape[1], below.shape[1])
    filled = [np.pad(each, ((0, 0), (0, width - each.shape[1])), constant_values=nothing) for each in (above, below)]
    return np.concatenate(filled)
