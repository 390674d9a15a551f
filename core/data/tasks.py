"""Tasks: which file and columns hold the texts and labels, what the labels are, and how predictions are scored.

The GLUE tasks are known by their official files (Wang et al. 2019, https://gluebenchmark.com); any other name is a
plain task, whose columns the recipe gives. A folder of records (`record_note`) says itself what its task is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError, Errors, did_you_mean
from ..metrics import CLASSIFICATION_METRICS, MULTI_LABEL_METRICS, REGRESSION_METRICS
from .folders import folder_contents
from .labels import cell_text, class_indices, found_labels, label_rows, listed, scores
from .record_note import RecordNote, read_note
from .table_rows import TableFormat
from .tables import EXTENSIONS, Columns, is_half, read_columns
from .task_records import RecordTokens, read_recorded
from .task_specs import GLUE_TASKS, SPLITS, TaskSpec, glue_task
from .texts import Texts


@dataclass
class Examples:
    texts: Sequence[str]
    """None of them where there are `tokens` instead, or where they are tokens already and no longer needed."""
    pairs: Sequence[str] | None
    labels: np.ndarray | None
    """(examples,) int32 class index or float32 score, (examples, labels) float32 0 or 1 where an example may have several;
    None: the file has no labels."""
    source: Path
    line_numbers: np.ndarray  # (examples,) int64
    label_mask: np.ndarray | None = None  # (examples,) float32, 0 where the label means nothing; None: all are labels
    tokens: RecordTokens | None = None
    notes: tuple[str, ...] = ()
    """What a person must know of how the file was read."""

    def __len__(self) -> int:
        return len(self.line_numbers)

    def without_texts(self) -> Examples:
        """The same, when only labels are needed any more."""
        return replace(self, texts=[], pairs=None)


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
    header: bool | None
    columns: list[str] | None
    encoding: str | None
    separator: str | None
    quoting: str | None  # "csv" or "none"
    bad_rows: str | None  # "error" or "skip"
    skip_labels: list[str]


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
        spec = _official_task(section, official)
    if spec.labels is not None and (len(spec.labels) < 2 or len(set(spec.labels)) < len(spec.labels)):
        raise DataError(f"task.labels: expected two or more different labels, got {listed(spec.labels)}")
    half = next((label for label in spec.labels or () if is_half(label)), None)
    if half is not None:
        raise DataError(f"task.labels: {ascii(half)} holds half a surrogate pair")
    if note is not None:
        _check_records(section, spec, note)
        spec = replace(spec, splits={split: found.file for split, found in note.splits.items()})
    if section.metrics is not None:
        spec = replace(spec, metrics=_checked_metrics(section.metrics, spec))
    return spec


def check_folder(data: Path) -> None:
    """Raise DataError unless the folder of a task's files is there."""
    if not data.is_dir():
        what = "is a file, expected the folder that its train and dev files are in" if data.exists() else "no such folder"
        raise DataError(f"task.data: {data}: {what}")


def read_split(spec: TaskSpec, data_folder: Path, split: str) -> Examples:
    """Read the examples of one split. A test split without the label column has no labels, as in GLUE.

    Raises DataError that names the file and, for a bad row, its line.
    """
    data_folder = Path(data_folder)
    check_folder(data_folder)
    if split not in spec.splits:
        raise _no_split(spec.name, data_folder, split, spec.splits)
    path = data_folder / spec.splits[split]
    is_test = split.startswith("test")
    note = read_note(data_folder)
    if note is not None:
        tokens, labels = read_recorded(data_folder, note, split)
        if labels is None and not is_test:
            raise DataError(f"{path}: its records have no labels")
        return Examples([], None, labels, path, np.arange(1, len(tokens.table.lengths) + 1), tokens=tokens)
    _check_file(path, split)
    texts = [spec.text] if spec.text_pair is None else [spec.text, spec.text_pair]
    columns = read_columns(
        path,
        required=texts if is_test else [*texts, spec.label],
        optional=[spec.label] if is_test else [],
        header=None if is_test and spec.test_has_header else spec.header,
        texts=texts,
        format=spec.format,
    )
    columns = without_labels(path, columns, spec.label, spec.skip_labels, texts)
    labels = None
    if spec.label in columns.cells:
        cells, lines = columns.cells[spec.label], columns.line_numbers
        if spec.labels is None:
            labels = scores(path, spec.label, cells, lines)
        else:
            source = "" if path.name == spec.labels_from else spec.labels_from
            labels = (label_rows if spec.multi_label else class_indices)(path, spec.labels, cells, lines, source)
    pairs = None if spec.text_pair is None else columns.cells[spec.text_pair]
    return Examples(columns.cells[spec.text], pairs, labels, path, columns.line_numbers, notes=columns.notes)


def without_labels(path: Path, columns: Columns, label: str, skip: Sequence[str], texts: Sequence[str]) -> Columns:
    """The rows of a table whose label is none of `skip`, and a note of the others."""
    if not skip or label not in columns.cells:
        return columns
    kept = np.array([cell_text(cell) not in skip for cell in columns.cells[label]], bool)
    if kept.all():
        return columns
    if not kept.any():
        raise DataError(f"{path}: every row has a label of task.skip_labels ({listed(skip)})")
    cells = {}
    for name, column in columns.cells.items():
        left = (cell for cell, keep in zip(column, kept) if keep)
        cells[name] = Texts(left) if name in texts else list(left)
    count = int((~kept).sum())
    note = f"{path.name}: {count:,} {'row is' if count == 1 else 'rows are'} left out for task.skip_labels ({listed(skip)})"
    return Columns(cells, columns.line_numbers[kept], (*columns.notes, note))


def check_files(section: TaskSection) -> None:
    """What is wrong with the train and dev files of a task that cannot be resolved, to be told together with the reason; raises
    DataError."""
    if section.kind in ("text", "mlm") or glue_task(section.name) is not None or not (section.text and section.label):
        return
    check_folder(section.data)
    errors, splits = Errors(), _found_splits(section)
    names = [name for name in (section.text, section.text_pair, section.label) if name is not None]
    for split in ("train", "dev"):
        if split not in splits:
            errors.append(_no_split(section.name, section.data, split, splits))
        else:
            path = section.data / splits[split]
            errors.collect(read_columns, path, names, (), section.columns, names[:-1], table_format(section, "error"))
    errors.throw()


def table_format(section: TaskSection, bad_rows: str) -> TableFormat:
    """How the task's tables are to be read; `bad_rows` is the default."""
    return TableFormat(section.encoding, section.separator, section.quoting, section.bad_rows or bad_rows)


def _no_split(name: str, folder: Path, split: str, splits: dict[str, str]) -> DataError:
    near = did_you_mean(split, splits)
    expected = "" if near else f" ({', '.join(f'{split}{end}' for end in EXTENSIONS)}, or task.files.{split})"
    return DataError(f"{folder}: task '{name}' has no file for the split '{split}'{expected}{near or f'; {folder_contents(folder)}'}")


def _check_file(path: Path, split: str) -> None:
    """Raise DataError where a task's file is not there, with the one that may be meant."""
    if path.exists():
        return
    others = [f"{split}{end}" for end in EXTENSIONS if (path.parent / f"{split}{end}").is_file()]
    hint = f"; to read {others[0]}: task.files.{split}: {others[0]}" if others else ""
    raise DataError(f"{path}: no such file; {folder_contents(path.parent)}{hint}")


def _official_task(section: TaskSection, official: TaskSpec) -> TaskSpec:
    kind = "regression" if official.labels is None else "classification"
    if section.kind not in (None, kind):
        raise DataError(f"task.kind: '{official.name}' is a {kind} task, got '{section.kind}'")
    if kind == "regression" and section.labels is not None:
        raise DataError(f"task.labels: '{official.name}' is a regression task and has no label names")
    header, test_has_header = official.header, official.test_has_header
    if section.header is not None:
        header, test_has_header = (None if section.header else _columns(section)), False
    return replace(
        official,
        text=section.text or official.text,
        text_pair=section.text_pair or official.text_pair,
        label=section.label or official.label,
        labels=official.labels if section.labels is None else tuple(label.strip() for label in section.labels),
        names=official.names if section.labels is None else None,
        splits={**official.splits, **section.files},
        header=header,
        test_has_header=test_has_header,
        # The official QQP files have rows without all columns, which everybody leaves out.
        format=table_format(section, "skip"),
        skip_labels=tuple(section.skip_labels),
    )


def _columns(section: TaskSection) -> tuple[str, ...]:
    if section.columns is None:
        raise DataError("task.columns: needed with header: false, the names of all columns in their order")
    return tuple(section.columns)


def _found_splits(section: TaskSection) -> dict[str, str]:
    splits = dict(section.files)
    for split in SPLITS:
        if split not in splits:
            found = [f"{split}{end}" for end in EXTENSIONS if (Path(section.data) / f"{split}{end}").is_file()]
            # Beside a table, a .json is what the table was made of.
            found = [name for name in found if not name.endswith(".json")] or found
            if len(found) > 1:
                raise DataError(f"task.files.{split}: needed, because {section.data} holds {' and '.join(found)}")
            if found:
                splits[split] = found[0]
    return splits


def _plain_task(section: TaskSection) -> TaskSpec:
    for key in ("text", "label"):
        if not getattr(section, key):
            hint = did_you_mean(section.name.lower(), GLUE_TASKS)
            raise DataError(f"task.{key}: needed, because '{section.name}' is not a GLUE task{hint}")
    header = _columns(section) if section.header is False else None
    splits = _found_splits(section)
    is_regression, multi_label = section.kind == "regression", section.kind == "multi_label"
    if is_regression and section.labels is not None:
        raise DataError("task.labels: a regression task has no label names")
    spec = TaskSpec(
        name=section.name,
        text=section.text,
        text_pair=section.text_pair,
        label=section.label,
        labels=None if section.labels is None else tuple(label.strip() for label in section.labels),
        metrics=REGRESSION_METRICS if is_regression else MULTI_LABEL_METRICS if multi_label else ("accuracy", "macro_f1"),
        splits=splits,
        header=header,
        multi_label=multi_label,
        format=table_format(section, "error"),
        skip_labels=tuple(section.skip_labels),
    )
    if is_regression or section.labels is not None:
        return spec
    return replace(spec, labels=_labels_of_train(spec, Path(section.data)), labels_from=splits["train"])


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


def _labels_of_train(spec: TaskSpec, data: Path) -> tuple[str, ...]:
    """The distinct labels of the train file."""
    check_folder(data)
    if "train" not in spec.splits:
        raise _no_split(spec.name, data, "train", spec.splits)
    path = data / spec.splits["train"]
    texts = [spec.text] if spec.text_pair is None else [spec.text, spec.text_pair]
    columns = read_columns(path, [spec.label], header=spec.header, format=spec.format, there=texts)
    columns = without_labels(path, columns, spec.label, spec.skip_labels, ())
    return found_labels(path, columns.cells[spec.label], columns.line_numbers, spec.multi_label)


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

