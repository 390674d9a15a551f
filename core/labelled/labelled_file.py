"""A file of answers as a whole: what it says of each text, by id or by text, with everything that is no answer counted.

Nothing is joined by chance: two different answers to one text, labels that are no class and rows that say nothing readable are
errors that name the line, unless the recipe says how they are meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..data.labels import label_key, listed
from ..data.table_rows import TableFormat
from ..data.tables import table_records
from ..data.task_specs import TaskSpec
from ..errors import DataError, did_you_mean
from ..file_section import FileSection
from ..shown import shown
from .answer_places import AnswerPlaces
from .answer_records import Record, record_of
from .class_answers import Classes, UnknownLabel
from .row_keys import Key, base_of, key_of, own_text
from .said import BadRecord
from .word_answers import WordClasses

_SAME = 1e-6
"""How far apart the probabilities of two answers may be that are the same one, written twice."""


@dataclass
class Answers:
    """All answers to one text."""

    line: int
    values: list[Any] = field(default_factory=list)
    """`Classes.values` of each, of words `WordClasses.read`, of questions `AnswerPlaces.read`."""
    text: Key | None = None
    """The text that the file has beside ids."""
    are_logits: bool = False
    shares: list[float] = field(default_factory=list)
    """Of votes that were counted, the share of the largest number."""
    confidences: list[float] = field(default_factory=list)
    soft: bool = False
    """Whether one of them is a distribution, and not a label alone."""
    cost: np.ndarray = field(default_factory=lambda: np.full(3, np.nan))
    """Tokens read and written, and money, of all together."""
    why_not: str = ""
    """Why there is none."""
    found: bool = False
    """Whether a row of the task has asked for it."""


@dataclass
class LabelledFile:
    """What a file says."""

    path: Path
    classes: Classes | AnswerPlaces
    """What its labels mean, or its answers."""
    by_key: dict[Key, Answers]
    by_id: bool
    rows: int
    abstained: Counter[str]
    """Why there is no answer -> in how many rows."""
    other_labels: Counter[str]
    """Labels that are no class and were taken for no answer."""
    repeated: int
    """Rows of texts that an earlier row has."""


def read_labelled(section: FileSection, spec: TaskSpec, key: str, aux: int | None = None) -> LabelledFile:
    """Read a file for a task; `key` is the recipe's of the section, `aux` how many sections of `aux_data` there are, None where
    that is not known. Raises DataError, which names file and line."""
    of_words, of_parts = spec.kind.per_token, spec.kind.over_tokens
    if not spec.kind.one_row or not spec.kind.has_targets:
        expected = "expected classification, regression, multi_label, tokens or question_answering"
        told = f"answers are read of whole texts, of their words and of questions, but task.kind is '{spec.kind.name}'"
        raise DataError(f"{key}: {told}; {expected}")
    made = WordClasses if of_words else AnswerPlaces if of_parts else Classes
    path, classes = section.path, made(spec, section, key)
    if not path.is_file():
        raise DataError(f"{key}.path: {path}: {'is a folder, expected a file' if path.is_dir() else 'no such file'}")
    by_id = section.id is not None or section.row_numbers is not None
    found = LabelledFile(path, classes, {}, by_id, 0, Counter(), Counter(), 0)
    unknown: dict[str, list[int]] = {}
    for line, row in table_records(path, TableFormat(options=())):
        found.rows += 1
        where = f"{path}:{line}"
        name = key_of(row, section, spec, where, key, aux)
        answers = found.by_key.setdefault(name, Answers(line))
        if by_id and answers.text is None:
            answers.text = own_text(row, section, spec)
        try:
            (_add_parts if of_parts else _add)(answers, row, section, found, key, line)
        except UnknownLabel as error:
            unknown.setdefault(error.label, []).append(line)
        except BadRecord as error:
            raise DataError(f"{where}: {error}") from None
        found.repeated += answers.line != line
    if unknown:
        raise DataError(_unknown_labels(path, unknown, classes, key))
    if not found.rows:
        raise DataError(f"{path}: holds no rows")
    if of_words:
        classes.find_scheme([read for answers in found.by_key.values() for read in answers.values], str(path))
    return found


def _add(
    answers: Answers, row: Mapping[str, Any], section: FileSection, found: LabelledFile, key: str, line: int
) -> None:
    """Add what a row says. Of two rows of a text, one that says the same again adds nothing; another answer is a vote, or an
    error. A row with an answer takes the place of one without, as where a request was sent again."""
    classes = found.classes
    record = record_of(row, section.columns, number=not classes.kind.has_classes, key=key)
    answers.cost = _sum(answers.cost, record, section)
    values, are_logits, others = [], False, 0
    for said in record.said:
        try:
            value = classes.values(said)
        except UnknownLabel as error:
            if section.other_labels == "error":
                raise
            found.other_labels[error.label] += 1
            others += 1
            continue
        if value is None:
            continue
        values.append(value)
        are_logits = said.form == "logits"
        answers.soft |= bool(said.form) or (said.tokens is not None and value.max() < 1)
        if said.form == "votes":
            answers.shares.append(float(value.max()))
        if said.confidence is not None and classes.kind.has_classes:
            if said.confidence > 1:
                raise BadRecord(f"'confidence': got {said.confidence:g}, expected 0 to 1")
            answers.confidences.append(said.confidence)
    if not values:
        _add_none(answers, found, "a label that is no class" if others else "", record)
        return
    if answers.values and section.repeated == "error":
        if not np.allclose(np.mean(answers.values, axis=0), np.mean(values, axis=0), rtol=0, atol=_SAME):
            raise _another(answers, key)
        return
    if answers.values and answers.are_logits != are_logits:
        raise BadRecord(f"line {answers.line} of the same text has {'logits' if answers.are_logits else 'probabilities'}")
    answers.are_logits = are_logits
    answers.values += values


def _add_parts(
    answers: Answers, row: Mapping[str, Any], section: FileSection, found: LabelledFile, key: str, line: int
) -> None:
    """The same of a row that says something of the words of a text, or answers with parts of it."""
    classes, others = found.classes, []
    base = base_of(row, section, classes.spec)
    record = record_of(row, section.columns, classes.reading, base=base, key=key)
    answers.cost = _sum(answers.cost, record, section)
    reads = [classes.read(said, line, base, others) for said in record.said]
    found.other_labels.update(others)
    values = [read for read in reads if read.says]
    if not values:
        record.why_not = record.why_not or next((read.why_not for read in reads if read.why_not), "")
        _add_none(answers, found, "an answer that is none of words" if others else "", record)
        return
    confidences = [read.confidence for read in values if read.confidence is not None]
    if confidences and max(confidences) > 1:
        raise BadRecord(f"'confidence': got {max(confidences):g}, expected 0 to 1")
    if answers.values and section.repeated == "error":
        if len(values) != len(answers.values) or not all(a.same(b) for a, b in zip(values, answers.values)):
            raise _another(answers, key)
        return
    answers.values += values
    answers.confidences += confidences


def _add_none(answers: Answers, found: LabelledFile, refused: str, record: Record) -> None:
    """A row without an answer: because what it says was `refused`, or as it says itself."""
    why = refused or record.why_not or "an abstention"
    if not refused:
        found.abstained[why] += 1
    answers.why_not = answers.why_not or why


def _another(answers: Answers, key: str) -> BadRecord:
    """The error of a row that answers otherwise than an earlier one of its text."""
    return BadRecord(f"another answer to the text of line {answers.line}; {key}.repeated: votes takes them as votes")


def _sum(before: np.ndarray, record: Record, section: FileSection) -> np.ndarray:
    """Tokens read and written, and money (3,), with those of one more row."""
    price, cost = section.price, record.cost
    if np.isnan(cost) and price is not None and not np.isnan(record.read):
        cost = (record.read * price.input + np.nan_to_num(record.written) * price.output) / 1e6
    own = np.array([record.read, record.written, cost])
    return np.where(np.isnan(before), own, before + np.nan_to_num(own))


def _unknown_labels(path: Path, unknown: Mapping[str, list[int]], classes: Classes, key: str) -> str:
    (label, lines), *others = unknown.items()
    text = f"{path}:{lines[0]}: got label {shown(label)}, expected one of {listed(classes.told)}"
    near = next((known for known in classes.told if label_key(known).startswith(label_key(label)[:3] or "\0")), None)
    hint = did_you_mean(label, classes.told).rstrip("?")
    text += hint or ("" if near is None else f"; perhaps {shown(near)} is meant")
    if others:
        text += f"; nor are {listed([name for name, _ in others])}"
    rows = sum(map(len, unknown.values()))
    meant = f"{key}.labels: {{{label or '...'}: CLASS}} says what is meant, {key}.other_labels: abstain takes such for no answer"
    return f"{text} ({rows:,} row{'s' * (rows > 1)}); {meant}"
