"""Tasks: which file and columns hold the texts and labels, what the labels are, and how predictions are scored.

The GLUE tasks are known by their official files (Wang et al. 2019, https://gluebenchmark.com); any other name is a
plain task, whose columns the recipe gives. A folder of records (`record_note`) says itself what its task is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError, did_you_mean
from ..metrics import CLASSIFICATION_METRICS, MULTI_LABEL_METRICS, REGRESSION_METRICS
from .labels import class_indices, found_labels, label_rows, listed, scores
from .record_note import RecordNote, read_note
from .tables import EXTENSIONS, folder_contents, read_columns
from .task_records import RecordTokens, read_recorded

_SPLITS = {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"}
_MNLI_SPLITS = {
    "train": "train.tsv",
    "dev": "dev_matched.tsv",
    "dev_mismatched": "dev_mismatched.tsv",
    "test": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}
_COLA_HEADER = ("source", "label", "mark", "sentence")
_ENTAILMENT = ("entailment", "not_entailment")
_BINARY = ("0", "1")


@dataclass(frozen=True)
class TaskSpec:
    name: str
    text: str
    text_pair: str | None  # None: one text an example
    label: str
    labels: tuple[str, ...] | None  # class index -> label as the file spells it; None: regression
    metrics: tuple[str, ...]  # the first one chooses the best checkpoint
    splits: dict[str, str] = field(default_factory=lambda: dict(_SPLITS))  # split -> file name
    header: tuple[str, ...] | None = None  # column names where files have no header line (all but the test splits)
    names: tuple[str, ...] | None = None  # what the classes mean, where the file only has numbers
    raw: bool = False  # raw text: nothing to predict but the text itself
    masked: bool = False  # raw text, of which some tokens are masked
    multi_label: bool = False  # an example has any number of the labels, none included

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names that a model of this task gives its classes; None for a regression."""
        return self.names if self.names is not None and self.labels is not None else self.labels

    @property
    def kind(self) -> str:
        """What is predicted, in words."""
        return "regression" if self.labels is None else "multi-label classification" if self.multi_label else "classification"


GLUE_TASKS = {
    spec.name: spec
    for spec in (
        TaskSpec(
            "cola", "sentence", None, "label", _BINARY, ("matthews",), header=_COLA_HEADER),
        TaskSpec("sst-2", "sentence", None, "label", _BINARY, ("accuracy",), names=("negative", "positive")),
        TaskSpec(
            "mrpc", "#1 String", "#2 String", "Quality", _BINARY, ("accuracy", "f1"),
            names=("not_equivalent", "equivalent"),
        ),
        TaskSpec(
            "qqp", "question1", "question2", "is_duplicate", _BINARY, ("accuracy", "f1"),
            names=("not_duplicate", "duplicate"),
        ),
        TaskSpec("sts-b", "sentence1", "sentence2", "score", None, ("pearson", "spearman")),
        TaskSpec(
            "mnli", "sentence1", "sentence2", "gold_label", ("entailment", "neutral", "contradiction"), ("accuracy",),
            _MNLI_SPLITS,
        ),
        TaskSpec("qnli", "question", "sentence", "label", _ENTAILMENT, ("accuracy",)),
        TaskSpec("rte", "sentence1", "sentence2", "label", _ENTAILMENT, ("accuracy",)),
        TaskSpec("wnli", "sentence1", "sentence2", "label", _BINARY, ("accuracy",)),
    )
}


@dataclass
class Examples:
    texts: list[str]
    """None of them where there are `tokens` instead."""
    pairs: list[str] | None
    labels: np.ndarray | None
    """(examples,) int32 class index or float32 score, (examples, labels) float32 0 or 1 where an example may have several;
    None: the file has no labels."""
    source: Path
    line_numbers: np.ndarray  # (examples,) int64
    label_mask: np.ndarray | None = None  # (examples,) float32, 0 where the label means nothing; None: all are labels
    tokens: RecordTokens | None = None

    def __len__(self) -> int:
        return len(self.line_numbers)


class TaskSection(Protocol):
    """The recipe's `task` section, as far as it is read here."""

    name: str
    data: Path
    text: str | None
    text_pair: str | None
    label: str | None
    labels: list[str] | None
    kind: str | None  # "classification", "regression", "multi_label", "text" or "mlm"
    files: dict[str, str]
    metrics: list[str] | None


def glue_task(name: str) -> TaskSpec | None:
    """The GLUE task of that name, whatever its case and hyphens."""
    key = name.lower().replace("-", "")
    return next((spec for known, spec in GLUE_TASKS.items() if known.replace("-", "") == key), None)


def resolve_task(section: TaskSection) -> TaskSpec:
    """The task a recipe means: GLUE's definition or a plain one, with what the recipe states in place of defaults.

    Names of GLUE tasks are matched without case and hyphen. Raises DataError, which names the recipe key.
    """
    if section.kind in ("text", "mlm"):
        return TaskSpec(section.name, "", None, "", None, (), {}, raw=True, masked=section.kind == "mlm")
    official, note = glue_task(section.name), read_note(section.data)
    if official is None:
        spec = _plain_task(section) if note is None else _recorded_task(section, note)
    else:
        kind = "regression" if official.labels is None else "classification"
        if section.kind not in (None, kind):
            raise DataError(f"task.kind: '{official.name}' is a {kind} task, got '{section.kind}'")
        spec = replace(
            official,
            text=section.text or official.text,
            text_pair=section.text_pair or official.text_pair,
            label=section.label or official.label,
            labels=official.labels if section.labels is None else tuple(section.labels),
            names=official.names if section.labels is None else None,
            splits={**official.splits, **section.files},
        )
        if kind == "regression" and section.labels is not None:
            raise DataError(f"task.labels: '{official.name}' is a regression task and has no label names")
    if spec.labels is not None and (len(spec.labels) < 2 or len(set(spec.labels)) < len(spec.labels)):
        raise DataError(f"task.labels: expected two or more different labels, got {listed(spec.labels)}")
    if note is not None:
        _check_records(section, spec, note)
        spec = replace(spec, splits={split: found.file for split, found in note.splits.items()})
    if section.metrics is not None:
        spec = replace(spec, metrics=_checked_metrics(section.metrics, spec))
    return spec


def read_split(spec: TaskSpec, data_folder: Path, split: str) -> Examples:
    """Read the examples of one split. A test split without the label column has no labels, as in GLUE.

    Raises DataError that names the file and, for a bad row, its line.
    """
    data_folder = Path(data_folder)
    if split not in spec.splits:
        hint = did_you_mean(split, spec.splits) or f"; {folder_contents(data_folder)}"
        raise DataError(f"{data_folder}: task '{spec.name}' has no file for the split '{split}'{hint}")
    path = data_folder / spec.splits[split]
    is_test = split.startswith("test")
    note = read_note(data_folder)
    if note is not None:
        tokens, labels = read_recorded(data_folder, note, split)
        if labels is None and not is_test:
            raise DataError(f"{path}: its records have no labels")
        return Examples([], None, labels, path, np.arange(1, len(tokens.table.lengths) + 1), tokens=tokens)
    texts = [spec.text] if spec.text_pair is None else [spec.text, spec.text_pair]
    columns = read_columns(
        path,
        required=texts if is_test else [*texts, spec.label],
        optional=[spec.label] if is_test else [],
        header=None if is_test else spec.header,
    )
    for name in texts:
        check_texts(path, name, columns.cells[name], columns.line_numbers)
    labels = None
    if spec.label in columns.cells:
        cells, lines = columns.cells[spec.label], columns.line_numbers
        if spec.labels is None:
            labels = scores(path, spec.label, cells, lines)
        else:
            labels = (label_rows if spec.multi_label else class_indices)(path, spec.labels, cells, lines)
    pairs = None if spec.text_pair is None else columns.cells[spec.text_pair]
    return Examples(columns.cells[spec.text], pairs, labels, path, columns.line_numbers)


def _plain_task(section: TaskSection) -> TaskSpec:
    for key in ("text", "label"):
        if not getattr(section, key):
            hint = did_you_mean(section.name.lower(), GLUE_TASKS)
            raise DataError(f"task.{key}: needed, because '{section.name}' is not a GLUE task{hint}")
    splits = dict(section.files)
    for split in _SPLITS:
        if split not in splits:
            found = [f"{split}{end}" for end in EXTENSIONS if (Path(section.data) / f"{split}{end}").is_file()]
            if len(found) > 1:
                raise DataError(f"task.files.{split}: needed, because {section.data} holds {' and '.join(found)}")
            if found:
                splits[split] = found[0]
    is_regression, multi_label = section.kind == "regression", section.kind == "multi_label"
    if is_regression and section.labels is not None:
        raise DataError("task.labels: a regression task has no label names")
    if is_regression:
        labels = None
    elif section.labels is not None:
        labels = tuple(section.labels)
    else:
        labels = _labels_of_train(section, splits)
    return TaskSpec(
        name=section.name,
        text=section.text,
        text_pair=section.text_pair,
        label=section.label,
        labels=labels,
        metrics=REGRESSION_METRICS if is_regression else MULTI_LABEL_METRICS if multi_label else ("accuracy", "macro_f1"),
        splits=splits,
        multi_label=multi_label,
    )


def _recorded_task(section: TaskSection, note: RecordNote) -> TaskSpec:
    """A task of any name, as its records describe it."""
    several = note.kind == "multi-label classification"
    plain = MULTI_LABEL_METRICS if several else ("accuracy", "macro_f1")
    return TaskSpec(
        name=section.name,
        text=section.text or note.text,
        text_pair=section.text_pair or note.text_pair,
        label=section.label or note.label,
        labels=None if note.labels is None else tuple(section.labels or note.labels),
        metrics=REGRESSION_METRICS if note.labels is None else plain,
        multi_label=several,
    )


def _check_records(section: TaskSection, spec: TaskSpec, note: RecordNote) -> None:
    """Raise DataError unless the records are of the task that the recipe means."""
    official = glue_task(note.task)
    name = note.task if official is None else official.name
    if name != spec.name:
        raise DataError(f"task.name: '{section.name}', but the records in {section.data} are of '{note.task}'")
    kind = section.kind and {"multi_label": "multi-label classification"}.get(section.kind, section.kind)
    if note.kind != spec.kind or kind not in (None, note.kind):
        raise DataError(f"task.kind: the records in {section.data} are of a {note.kind}, not of a {kind or spec.kind}")
    if section.files:
        raise DataError(f"task.files: {section.data} holds records, whose files are in its records.json")
    for key in ("text", "text_pair", "label"):
        if getattr(spec, key) != getattr(note, key):
            got, made = (f"'{value}'" if value else "no column" for value in (getattr(spec, key), getattr(note, key)))
            raise DataError(f"task.{key}: {got}, but the records in {section.data} were made of {made}")
    if list(spec.labels or ()) != list(note.labels or ()):
        expected, got = listed(note.labels or ()), listed(spec.labels or ())
        raise DataError(f"task.labels: {got}, but those of the records in {section.data} are {expected}, in this order")


def _labels_of_train(section: TaskSection, splits: dict[str, str]) -> tuple[str, ...]:
    """The distinct labels of the train file."""
    if "train" not in splits:
        raise DataError(f"task.labels: needed, because there is no train file; {folder_contents(Path(section.data))}")
    path = Path(section.data) / splits["train"]
    columns = read_columns(path, [section.label])
    return found_labels(path, columns.cells[section.label], columns.line_numbers, section.kind == "multi_label")


def _checked_metrics(metrics: Sequence[str], spec: TaskSpec) -> tuple[str, ...]:
    fitting = REGRESSION_METRICS if spec.labels is None else CLASSIFICATION_METRICS
    if spec.multi_label:
        fitting = MULTI_LABEL_METRICS
    elif spec.labels is not None and len(spec.labels) != 2:
        fitting = tuple(name for name in fitting if name != "f1")
    for name in metrics:
        if name not in fitting:
            hint = did_you_mean(name, fitting) or f"; expected one of {', '.join(fitting)}"
            raise DataError(f"task.metrics: '{name}' is no metric for this task{hint}")
    if not metrics:
        raise DataError(f"task.metrics: expected one or more of {', '.join(fitting)}, got none")
    return tuple(metrics)


def check_texts(path: Path, name: str, cells: list, line_numbers: np.ndarray) -> None:
    """Raise DataError for a cell of the column `name` that is no text, which JSON allows."""
    for cell, line in zip(cells, line_numbers):
        if not isinstance(cell, str):
            raise DataError(f"{path}:{line}: '{name}' is {json.dumps(cell)}, expected a text")
        if not cell.isascii():
            try:
                cell.encode("utf-8")
            except UnicodeEncodeError:  # half a surrogate pair, which JSON's \ud800 can spell and no tokenizer can take
                raise DataError(f"{path}:{line}: '{name}' holds half a surrogate pair") from None
