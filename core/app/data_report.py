"""What a person should see of the data before a model is trained or scored on it: classes and their counts, what was left out,
and how much of the texts the vocabulary cannot read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.labels import label_warnings, misspelt
from ..data.tag_schemes import is_bio, parts_of
from ..data.token_table import unknown_share
from ..data.tokenize import Tokenizer
from ..data.word_vocabulary import WordTokenizer
from ..kinds.kind import Kind
from ..metrics import REGRESSION_METRICS
from ..shown import shown

if TYPE_CHECKING:
    from ..data.tasks import Examples, TaskSpec
    from ..task_data import TaskData

UNREADABLE = 0.05
"""The share of [UNK] from which on it is told that a vocabulary of word pieces cannot read the texts."""
RARE_WORDS = 0.2
"""The same for a vocabulary of whole words, which leaves rare ones out on purpose."""
_SHOWN = 12  # classes in a line


def data_lines(data: TaskData) -> list[str]:
    """The classes of each split with their counts, and the share of [UNK]."""
    lines = [line for split, examples in data.examples.items() if (line := split_line(data.spec, split, examples))]
    shares = unknown_shares(data)
    if shares:
        lines.append("[UNK]: " + ", ".join(f"{share:.1%} of the tokens of {split}" for split, share in shares.items()))
    return lines


def split_line(spec: TaskSpec, split: str, examples: Examples) -> str | None:
    """How many rows of a split have each class, or how its scores lie; None where it has no labels."""
    labels = _known(examples)
    if labels is None:
        return None
    if spec.kind.of_spans:
        none = int((labels[:, 0] < 0).sum())
        return f"{split}: {len(labels):,} questions" + (f", {none:,} of them without an answer" if none else "")
    if examples.among is not None:
        texts = len(np.unique(examples.among))
        return f"{split}: {len(examples):,} queries, {texts:,} texts, {int((labels > 0).sum()):,} of them relevant to a query"
    if spec.kind.ranks:
        real = len(labels) if examples.weights is None else int(examples.weights.sum())
        return f"{split}: {len(examples):,} queries, {real:,} candidates, {int((labels > 0).sum()):,} of them relevant"
    counts = spec.kind.counts(labels, len(spec.labels or ()))
    if counts is None:
        return f"{split}: scores from {labels.min():g} to {labels.max():g}, mean {labels.mean():.4g}"
    order = range(len(counts)) if len(counts) <= _SHOWN else np.argsort(-counts, kind="stable")[:_SHOWN]
    text = ", ".join(f"{spec.label_names[index]} {counts[index]:,}" for index in order)
    more = f" and {len(counts) - _SHOWN} more classes" if len(counts) > _SHOWN else ""
    return f"{split}: {text}{more}"


def data_warnings(data: TaskData, first: str = "train") -> list[str]:
    """What looks wrong with the data of a task; the classes are those of the split `first`."""
    lines = [note for examples in data.examples.values() for note in examples.notes]
    examples = data.examples.get(first)
    if examples is not None and data.spec.kind.has_classes and (labels := _known(examples)) is not None:
        counts = data.spec.kind.counts(labels, len(data.spec.labels))
        lines += label_warnings(data.spec.labels, counts, first)
        lines += _misspelt(data, first, counts)
    for split, examples in data.examples.items():
        if (labels := _known(examples)) is not None:
            lines += _one_sided(data.spec, split, labels)
    return lines + unknown_warnings(unknown_shares(data), data.tokenizer)


def _misspelt(data: TaskData, first: str, counts: np.ndarray) -> list[str]:
    """Classes that may be misspelt ones of others, with the place of the first row that has one."""
    spec, examples, dev = data.spec, data.examples[first], data.examples.get("dev")
    if not spec.labels_from or spec.kind.plugin:  # classes that a person has named are meant
        return []
    elsewhere = None
    if dev is not None and first != "dev" and (known := _known(dev)) is not None:
        elsewhere = spec.kind.counts(known, len(spec.labels))
    names, labels = list(spec.label_names), examples.labels
    if spec.kind.per_token and is_bio(names):  # a span is counted where it begins
        counts = [count if parts_of(name)[0] == "B" else 0 for name, count in zip(names, counts)]
        names = [parts_of(name)[1] for name in names]
    lines = []
    for rare, meant in misspelt(names, counts, elsewhere).items():
        if spec.kind.one_class:
            rows = np.argwhere(labels == rare)[0]
        else:
            rows = np.flatnonzero(labels[:, rare] > 0)
        row = int(rows[0])
        line = int(examples.line_numbers[row])
        if spec.kind.per_token and examples.by_spaces[row]:
            line += int(rows[1])
        source = examples.source.name if row < len(examples) - examples.mixed else "aux_data"
        often = "once" if counts[rare] == 1 else "twice"
        nowhere = "" if elsewhere is None else " and not in dev"
        near = f"one letter from {shown(names[meant])}, which is there {counts[meant]:,} times"
        way = "mend it, or name all classes with task.labels, if that is meant"
        lines.append(f"{source}:{line}: {shown(names[rare])} is there {often} in {first}{nowhere}, and is {near}; {way}")
    return lines


def _known(examples: Examples) -> np.ndarray | None:
    """The labels that mean something; None where there are none."""
    labels, mask = examples.labels, examples.label_mask
    labels = labels if labels is None or mask is None else labels[mask > 0]
    return None if labels is None or not len(labels) else labels


def _one_sided(spec: TaskSpec, split: str, labels: np.ndarray) -> list[str]:
    """That a metric of a split cannot be told, because its examples have nothing that differs."""
    if spec.kind.of_spans:
        none = labels[:, 0] < 0
        if not spec.answering.unanswerable or len(np.unique(none)) > 1:
            return []
        told = "no question has an answer" if none[0] else "all questions have an answer, and task.answers.unanswerable is true"
        return [f"{split}: {told}; metrics of the others are 0"]
    if spec.metrics and set(spec.metrics) <= set(REGRESSION_METRICS) and len(np.unique(labels)) == 1:
        return [f"{split}: all scores are {labels[0]:g}, so that no {' and no '.join(spec.metrics)} can be told"]
    return []


def unknown_shares(data: TaskData) -> dict[str, float]:
    """The share of [UNK] among the tokens of each split."""
    return {split: unknown_share(table, data.tokenizer) for split, table in data.tokens.items()}


def unknown_warnings(shares: Mapping[str, float], tokenizer: Tokenizer | WordTokenizer) -> list[str]:
    """Of splits that a vocabulary cannot read."""
    limit = RARE_WORDS if tokenizer.is_words else UNREADABLE
    bad = [f"{share:.1%} of the tokens of {split}" for split, share in shares.items() if share >= limit]
    if not bad:
        return []
    return [f"{' and '.join(bad)} are [UNK]: the vocabulary of {tokenizer.source} lacks them"]


def one_answer(
    kind: Kind, names: Sequence[str] | None, logits: np.ndarray, labels: np.ndarray | None, split: str
) -> str | None:
    """That a model says the same of all examples of a split, though they differ, or None where it does not; `names` are those of
    the classes."""
    answers = kind.answers(logits)
    if answers is None or len(logits) < 2 or (labels is not None and (labels == labels[0]).all()):
        return None
    if not (answers == answers[0]).all():
        return None
    return f"{kind.constant_text(names, logits[0])} is predicted for all {len(logits):,} {kind.what} of {split}"
