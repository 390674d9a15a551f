"""A file of answers joined to the examples of a task: which rows it covers, what is learned of them, and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.task_specs import TaskSpec
from ..data.tasks import Examples
from ..data.taught import Taught, TaughtRows, nothing_known
from ..errors import DataError
from ..file_section import FileSection
from .found_rows import Join, about_file, file_lines, joined, lines_of, nothing_joined, place_of, rows_of
from .labelled_file import Answers, read_labelled
from .question_rows import taught_answers, with_golds
from .word_answers import Notes
from .word_rows import with_word_answers


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
    aux = None
    if (train := examples.get("train")) is not None:
        aux = 0 if train.mixed_rows is None else len(train.mixed_rows.lines)
    join = Join(read_labelled(section, spec, key, aux), section, spec, key, data)
    if spec.kind.per_token:
        return with_word_answers(join, examples, name)
    notes = Notes()
    if spec.kind.of_spans:
        taught = {split: taught_answers(join, own, split, notes) for split, own in examples.items()}
    else:
        taught = {split: _taught(join, own, split) for split, own in examples.items()}
    if not any(own.answered.any() or own.abstained.any() for own in taught.values()):
        raise DataError(nothing_joined(join, examples))
    unasked = sum(not answers.found for answers in join.file.by_key.values())
    told, found = [*file_lines(join, unasked), *notes.told(join.file.path.name)], {}
    for split, own in examples.items():
        told.append(_coverage(join, split, taught[split]))
        own, answers = _answered_only(join, own, taught[split], told) if split == "train" else (own, taught[split])
        own, answers = _labelled(join, own, answers, split, told)
        own = _weighed(join, own, answers, told) if split == "train" else own
        found[split] = own, answers
    about = about_file(join.file, unasked, {split: _of_split(own) for split, own in taught.items()})
    return {
        split: replace(own, taught={**own.taught, name: replace(answers, about=about, told=tuple(told))})
        for split, (own, answers) in found.items()
    }


def _taught(join: Join, examples: Examples, split: str) -> Taught:
    """What the file says of the rows of a split."""
    kind, count, outputs = join.spec.kind, len(examples), join.spec.kind.outputs(join.spec.labels)
    gold = np.full(count, examples.labels is not None)
    if examples.label_mask is not None:
        gold &= examples.label_mask > 0
    found = Taught(
        logits=np.zeros((count, outputs), np.float32),
        **nothing_known(count, count),
        gold=gold,
    )
    for row, answers in joined(join, examples, split, found.cost):
        if not answers.values:
            found.abstained[row] = True
            continue
        found.answered[row] = True
        found.logits[row] = join.file.classes.logits(answers.values, answers.are_logits)
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


def _answered_only(join: Join, examples: Examples, taught: TaughtRows, told: list[str]) -> tuple[Examples, TaughtRows]:
    """The rows of train that have an answer."""
    without = np.flatnonzero(~taught.answered)
    if not len(without):
        return examples, taught
    where = place_of(examples, without[0])
    what = f"{len(without):,} of {len(examples):,} {_what(join)} of train have no answer in {join.file.path.name}"
    if join.section.unanswered == "error":
        more = f", the first of them in line {examples.line_numbers[without[0]]}" if len(without) > 1 else ""
        raise DataError(f"{where}: {what}{more}; {join.key}.unanswered: leave_out trains without them")
    if len(without) == len(examples):
        raise DataError(f"{where}: {what}: nothing is left to train on")
    told.append(f"train: the {_what(join)} without an answer are left out: line {lines_of(examples, without)}")
    rows = np.flatnonzero(taught.answered)
    return rows_of(examples, rows), taught.of(rows)


def _labelled(
    join: Join, examples: Examples, taught: TaughtRows, split: str, told: list[str]
) -> tuple[Examples, TaughtRows]:
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
        on = f"on {len(rows):,} {_what(join)}"
        told.append(f"{split}: has no labels; scores are of how far the student says what the file says, {on}")
        examples, taught, wanted = rows_of(examples, rows), taught.of(rows), wanted[rows]
    if not wanted.any() and own is not None:
        return examples, taught
    answers = taught.best if join.spec.kind.of_spans else _targets(taught.logits, join.spec)
    labels = join.spec.kind.fill(len(answers), answers) if own is None else own.copy()
    labels[wanted] = answers[wanted]
    examples = with_golds(examples, taught, wanted) if join.spec.kind.of_spans else examples
    if wanted.any() and split == "train":
        told.append(f"{split}: {int(wanted.sum()):,} of {len(wanted):,} labels are the file's answers")
    mask = (taught.gold | wanted).astype(np.float32)
    return replace(examples, labels=labels, label_mask=None if mask.all() else mask), taught


def _targets(logits: np.ndarray, spec: TaskSpec) -> np.ndarray:
    if spec.kind.one_class:
        return logits.argmax(axis=1).astype(np.int32)
    return (logits > 0).astype(np.float32) if spec.kind.has_classes else logits[:, 0].copy()


def _weighed(join: Join, examples: Examples, taught: TaughtRows, told: list[str]) -> Examples:
    """The examples with what each counts."""
    by = join.section.weigh_by
    if by is None:
        return examples
    factors = taught.agreement if by == "agreement" else taught.confidence
    if by == "agreement" and (factors == 1).all():
        raise DataError(f"{join.key}.weigh_by: agreement, but no {_what(join)[:-1]} of train has votes that differ")
    if np.isnan(factors).any():
        row = int(np.isnan(factors).argmax())
        told_by = f"{join.file.path.name} tells no confidence of the text in line {examples.line_numbers[row]}"
        raise DataError(f"{join.key}.weigh_by: confidence, but {told_by} of {examples.source}")
    factors = np.maximum(factors, join.section.floor).astype(np.float32)
    lies = f"{factors.min():.3g} to {factors.max():.3g}, {factors.mean():.3g} on average"
    told.append(f"train: {_what(join)} count {lies}, by {by}")
    return replace(examples, weights=factors if examples.weights is None else examples.weights * factors)


def _what(join: Join) -> str:
    return "questions" if join.spec.kind.of_spans else "texts"


def _coverage(join: Join, split: str, taught: TaughtRows) -> str:
    count, answered = len(taught.answered), int(taught.answered.sum())
    text = f"{split}: {answered:,} of {count:,} {_what(join)} have an answer in the file"
    if taught.abstained.any():
        text += f", to {int(taught.abstained.sum()):,} it has none"
    if answered and (alone := int((taught.answered & ~taught.soft).sum())):
        of_one = f"to {alone:,} of them one alone", f"{alone:,} answers are a label alone, without a distribution"
        text += f"; {of_one[0] if join.spec.kind.of_spans else of_one[1]}"
    return text


def _of_split(taught: TaughtRows) -> dict[str, Any]:
    """What result.json says of a split."""
    return {
        "texts": len(taught.answered),
        "answered": int(taught.answered.sum()),
        "abstained": int(taught.abstained.sum()),
        "with_distribution": int(taught.soft.sum()),
        "mean_agreement": float(taught.agreement[taught.answered].mean()) if taught.answered.any() else None,
    }
