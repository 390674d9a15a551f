"""A file of answers joined to the examples of a task: which rows it covers, what is learned of them, and what is told of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.labels import listed
from ..data.tables import read_columns
from ..data.task_specs import TaskSpec
from ..data.tasks import Examples
from ..data.taught import Taught
from ..data.texts import Texts
from ..errors import DataError
from ..file_section import FileSection
from ..shown import shown
from .class_answers import Classes
from .labelled_file import Answers, LabelledFile, id_key, read_labelled, text_key

_SHOWN = 5


@dataclass(frozen=True)
class _Join:
    """What is joined with what."""

    file: LabelledFile
    classes: Classes
    section: FileSection
    spec: TaskSpec
    key: str
    """The recipe's of the section."""
    data: Path
    """The task's folder."""


def with_answers(
    examples: Mapping[str, Examples], spec: TaskSpec, section: FileSection, name: str, key: str, data: Path
) -> dict[str, Examples]:
    """The examples by split with the answers of a file as `taught[name]`, and those texts of train alone that have one; `key` is
    the recipe's of the section, `data` the task's folder. Raises DataError."""
    for own in examples.values():
        if own.tokens is not None:
            raise DataError(f"{key}: {own.source} holds records of tokens, but answers are joined to texts")
        if own.members > 1:
            raise DataError(f"{key}: answers are of one text or pair of texts, but an example has {own.members} of them here")
    join = _Join(read_labelled(section, spec, key), Classes(spec, section, key), section, spec, key, data)
    taught = {split: _taught(join, own, split) for split, own in examples.items()}
    if not any(own.answered.any() or own.abstained.any() for own in taught.values()):
        raise DataError(_nothing_joined(join, examples))
    unasked = sum(not answers.found for answers in join.file.by_key.values())
    told, found = _file_lines(join, unasked), {}
    for split, own in examples.items():
        told.append(_coverage(split, taught[split], own))
        own, answers = _answered_only(join, own, taught[split], told) if split == "train" else (own, taught[split])
        own, answers = _labelled(join, own, answers, split, told)
        own = _weighed(join, own, answers, told) if split == "train" else own
        found[split] = own, answers
    about = _about(join.file, unasked, taught)
    return {
        split: replace(own, taught={**own.taught, name: replace(answers, about=about, told=tuple(told))})
        for split, (own, answers) in found.items()
    }


def _taught(join: _Join, examples: Examples, split: str) -> Taught:
    """What the file says of the rows of a split."""
    keys = _ids(join, examples, split) if join.file.by_id else _texts(examples)
    kind, count, outputs = join.spec.kind, len(examples), join.spec.kind.outputs(join.spec.labels)
    gold = np.full(count, examples.labels is not None)
    if examples.label_mask is not None:
        gold &= examples.label_mask > 0
    found = Taught(
        logits=np.zeros((count, outputs), np.float32),
        **{name: np.zeros(count, bool) for name in ("answered", "abstained", "soft")},
        agreement=np.zeros(count, np.float32),
        confidence=np.full(count, np.nan, np.float32),
        cost=np.full((count, 3), np.nan),
        gold=gold,
    )
    for row, own in enumerate(keys):
        answers = None if own is None else join.file.by_key.get(own)
        if answers is None:
            continue
        answers.found = True
        found.cost[row] = answers.cost
        if not answers.values:
            found.abstained[row] = True
            continue
        found.answered[row] = True
        found.logits[row] = join.classes.logits(answers.values, answers.are_logits)
        found.agreement[row] = _agreement(answers) if kind.one_class else 1.0
        found.soft[row] = answers.soft or found.agreement[row] < 1
        if answers.confidences:
            found.confidence[row] = np.mean(answers.confidences)
    if kind.one_class:
        rows = found.soft & np.isnan(found.confidence)
        found.confidence[rows] = kind.values(found.logits[rows]).max(axis=1)
    return found


def _agreement(answers: Answers) -> float:
    """The share of the votes for what they come to together."""
    if answers.shares:
        return float(np.mean(answers.shares))
    best = int(np.mean(answers.values, axis=0).argmax())
    return float(np.mean([int(value.argmax()) == best for value in answers.values]))


def _texts(examples: Examples) -> list[Any]:
    pairs = [None] * len(examples) if examples.pairs is None else examples.pairs
    return [text_key(text, pair) for text, pair in zip(examples.texts, pairs)]


def _ids(join: _Join, examples: Examples, split: str) -> list[str | None]:
    """The id of each row, of the column that the recipe names; rows of other data have none."""
    spec, column = join.spec, join.section.id
    if spec.own is not None:
        raise DataError(f"{join.key}.id: the task's plugin reads its data itself; rows are found by their texts (id: null)")
    path = join.data / spec.splits[split]
    columns = read_columns(path, [column], header=spec.header, format=spec.format)
    first: dict[str, int] = {}
    of_line = {}
    for line, cell in zip(columns.line_numbers.tolist(), columns.cells[column]):
        own = id_key(cell)
        other = first.setdefault(own, line)
        if other != line:
            raise DataError(f"{path}:{line}: the id {shown(cell)} in '{column}' is that of line {other} too")
        of_line[line] = own
    own = len(examples) - examples.mixed
    return [of_line.get(line) if row < own else None for row, line in enumerate(examples.line_numbers.tolist())]


def _answered_only(join: _Join, examples: Examples, taught: Taught, told: list[str]) -> tuple[Examples, Taught]:
    """The rows of train that have an answer."""
    without = np.flatnonzero(~taught.answered)
    if not len(without):
        return examples, taught
    source = examples.source if without[0] < len(examples) - examples.mixed else "aux_data"
    where = f"{source}:{examples.line_numbers[without[0]]}"
    what = f"{len(without):,} of {len(examples):,} texts of train have no answer in {join.file.path.name}"
    if join.section.unanswered == "error":
        more = f", the first of them in line {examples.line_numbers[without[0]]}" if len(without) > 1 else ""
        raise DataError(f"{where}: {what}{more}; {join.key}.unanswered: leave_out trains without them")
    if len(without) == len(examples):
        raise DataError(f"{where}: {what}: nothing is left to train on")
    lines = ", ".join(map(str, examples.line_numbers[without[:_SHOWN]])) + (", ..." if len(without) > _SHOWN else "")
    told.append(f"train: the texts without an answer are left out: line {lines}")
    rows = np.flatnonzero(taught.answered)
    return rows_of(examples, rows), taught.of(rows)


def rows_of(examples: Examples, rows: np.ndarray) -> Examples:
    """Some of the examples, which have one text, or pair of texts, each."""

    def some(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[rows]

    return replace(
        examples,
        texts=Texts(examples.texts[row] for row in rows),
        pairs=None if examples.pairs is None else Texts(examples.pairs[row] for row in rows),
        labels=some(examples.labels),
        line_numbers=examples.line_numbers[rows],
        label_mask=some(examples.label_mask),
        weights=some(examples.weights),
        by_spaces=some(examples.by_spaces),
        word_counts=some(examples.word_counts),
        taught={name: taught.of(rows) for name, taught in examples.taught.items()},
    )


def _labelled(
    join: _Join, examples: Examples, taught: Taught, split: str, told: list[str]
) -> tuple[Examples, Taught]:
    """The examples with answers as labels, where the recipe wants that; in train, labels that mean nothing where there are none.
    Labels that dev has stay: they are what everything is measured by."""
    asked, own = join.section.as_labels, examples.labels
    always = asked == "always" and split == "train"
    wanted = taught.answered & (~taught.gold | always) & (asked != "never")
    if own is None and split != "train":
        if asked == "never":
            way = f"{join.key}.as_labels: where_missing scores the student by the file's answers"
            raise DataError(f"{examples.source}: has no column '{join.spec.label}', so that nothing can be scored on it; {way}")
        rows = np.flatnonzero(wanted)
        if not len(rows):
            raise DataError(f"{examples.source}: has no labels, and {join.file.path.name} no answer to its texts")
        told.append(f"{split}: has no labels; scores are of how far the student says what the file says, on {len(rows):,} texts")
        examples, taught, wanted = rows_of(examples, rows), taught.of(rows), wanted[rows]
    if not wanted.any() and own is not None:
        return examples, taught
    answers = _targets(taught.logits, join.spec)
    labels = np.zeros_like(answers) if own is None else own.copy()
    labels[wanted] = answers[wanted]
    if wanted.any() and split == "train":
        told.append(f"{split}: {int(wanted.sum()):,} of {len(wanted):,} labels are the file's answers")
    mask = (taught.gold | wanted).astype(np.float32)
    return replace(examples, labels=labels, label_mask=None if mask.all() else mask), taught


def _targets(logits: np.ndarray, spec: TaskSpec) -> np.ndarray:
    if spec.kind.one_class:
        return logits.argmax(axis=1).astype(np.int32)
    return (logits > 0).astype(np.float32) if spec.kind.has_classes else logits[:, 0].copy()


def _weighed(join: _Join, examples: Examples, taught: Taught, told: list[str]) -> Examples:
    """The examples with what each counts."""
    by = join.section.weigh_by
    if by is None:
        return examples
    factors = taught.agreement if by == "agreement" else taught.confidence
    if by == "agreement" and (factors == 1).all():
        raise DataError(f"{join.key}.weigh_by: agreement, but no text of train has votes that differ")
    if np.isnan(factors).any():
        row = int(np.isnan(factors).argmax())
        told_by = f"{join.file.path.name} tells no confidence of the text in line {examples.line_numbers[row]}"
        raise DataError(f"{join.key}.weigh_by: confidence, but {told_by} of {examples.source}")
    factors = np.maximum(factors, join.section.floor).astype(np.float32)
    told.append(f"train: texts count {factors.min():.3g} to {factors.max():.3g}, {factors.mean():.3g} on average, by {by}")
    return replace(examples, weights=factors if examples.weights is None else examples.weights * factors)


def _nothing_joined(join: _Join, examples: Mapping[str, Examples]) -> str:
    file, section = join.file, join.section
    some = next(iter(file.by_key))
    sources = " or ".join(own.source.name for own in examples.values())
    what = f"the id {shown(some)}" if file.by_id else f"the text {shown(some if isinstance(some, str) else some[0])}"
    way = "a row is found by its text as it is, but for white space"
    if file.by_id:
        way = f"'{section.id}' of the task's tables has other ids"
    line = file.by_key[some].line
    return f"{file.path}:{line}: {what} is none of {sources}, and so is everything else in the file; {way}"


def _file_lines(join: _Join, unasked: int) -> list[str]:
    """What is told of a file by itself."""
    file = join.file
    parts = [f"{file.path.name}: {file.rows:,} rows, {len(file.by_key):,} texts"]
    if file.repeated:
        votes = join.section.repeated == "votes"
        parts.append(f"{file.repeated:,} rows {'are more votes on' if votes else 'repeat'} a text")
    if file.abstained:
        parts.append(f"{sum(file.abstained.values()):,} without an answer ({_counted(file.abstained)})")
    if file.other_labels:
        count = sum(file.other_labels.values())
        parts.append(f"{count:,} with labels that are no class ({listed(list(file.other_labels))}), taken for no answer")
    if unasked:
        parts.append(f"{unasked:,} texts that the task does not have")
    return ["; ".join(parts)]


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common(_SHOWN))


def _coverage(split: str, taught: Taught, examples: Examples) -> str:
    count, answered = len(taught.answered), int(taught.answered.sum())
    text = f"{split}: {answered:,} of {count:,} texts have an answer in the file"
    if taught.abstained.any():
        text += f", to {int(taught.abstained.sum()):,} it has none"
    if answered and (alone := int((taught.answered & ~taught.soft).sum())):
        text += f"; {alone:,} answers are a label alone, without a distribution"
    return text


def _about(file: LabelledFile, unasked: int, taught: Mapping[str, Taught]) -> dict[str, Any]:
    """What result.json says of the file: rows, why there is no answer, what each split has, and what a thousand texts cost."""
    costs = np.array([answers.cost for answers in file.by_key.values()])
    known = [None if np.isnan(column).all() else float(np.nanmean(column) * 1000) for column in costs.T]
    splits = {
        split: {
            "texts": len(own.answered),
            "answered": int(own.answered.sum()),
            "abstained": int(own.abstained.sum()),
            "with_distribution": int(own.soft.sum()),
            "mean_agreement": float(own.agreement[own.answered].mean()) if own.answered.any() else None,
        }
        for split, own in taught.items()
    }
    return {
        "file": str(file.path),
        "rows": file.rows,
        "texts": len(file.by_key),
        "repeated": file.repeated,
        "abstained": dict(file.abstained),
        "other_labels": dict(file.other_labels.most_common(20)),
        "not_in_task": unasked,
        "splits": splits,
        "per_thousand_texts": dict(zip(("tokens_read", "tokens_written", "cost"), known)),
    }
