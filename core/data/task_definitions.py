"""What a recipe's `task` section means: GLUE's definition, that of a folder of records, or a plain table; with what the recipe
states in place of defaults."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import DataError, did_you_mean
from ..kinds.kind import Kind
from ..kinds.known_kinds import KINDS, kind_named, kind_titled
from ..plugin_calls import from_kind
from .arrow_tables import arrow_split
from .folders import folder_contents, folders_for_files
from .labels import cell_text, listed
from .records.record_note import RecordNote
from .table_rows import TableFormat
from .tables import EXTENSIONS, Columns, column_names, read_columns, require_columns
from .task_specs import GLUE_TASKS, SPLITS, TaskSpec, glue_task
from .texts import Texts


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


def check_folder(data: Path, or_file: bool = False) -> None:
    """Raise DataError unless the folder of a task's files is there; `or_file` is whether a file would do as well."""
    if not data.is_dir():
        missing = "no such file or folder" if or_file else "no such folder"
        what = "is a file, expected the folder that its train and dev files are in" if data.exists() else missing
        raise DataError(f"task.data: {data}: {what}")


def no_split(name: str, folder: Path, split: str, splits: dict[str, str]) -> DataError:
    """The error about a split that has no file."""
    if wrong := folders_for_files(folder, (f"{split}{end}" for end in EXTENSIONS)):
        return DataError(wrong)
    near = did_you_mean(split, splits)
    expected = "" if near else f" ({', '.join(f'{split}{end}' for end in EXTENSIONS)}, or task.files.{split})"
    otherwise = near or f"; {folder_contents(folder)}"
    return DataError(f"{folder}: task '{name}' has no file for the split '{split}'{expected}{otherwise}")


def table_format(section: TaskSection, bad_rows: str) -> TableFormat:
    """How the task's tables are to be read; `bad_rows` is the default."""
    return TableFormat(section.encoding, section.separator, section.quoting, section.bad_rows or bad_rows)


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


def official_task(section: TaskSection, official: TaskSpec) -> TaskSpec:
    """GLUE's task with what the recipe states instead. Raises DataError."""
    kind = official.kind
    if section.kind not in (None, kind.name):
        raise DataError(f"task.kind: '{official.name}' is a {kind.name} task, got '{section.kind}'")
    if not kind.has_classes and section.labels is not None:
        raise DataError(f"task.labels: '{official.name}' is a {kind.name} task and has no label names")
    header, test_has_header = official.header, official.test_has_header
    if section.header is not None:
        header, test_has_header = (None if section.header else columns_of(section)), False
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


def check_labels(labels: Sequence[str] | None, kind: Kind) -> None:
    """Raise DataError where a recipe names the classes of a task that has none."""
    if labels is not None and not kind.has_classes:
        raise DataError(f"task.labels: {kind.a_title} task has no label names")


def columns_of(section: TaskSection) -> tuple[str, ...]:
    if section.columns is None:
        raise DataError("task.columns: needed with header: false, the names of all columns in their order")
    return tuple(section.columns)


def found_splits(section: TaskSection) -> dict[str, str]:
    """Split -> file, those that the recipe names and those that the folder has. Raises DataError."""
    splits = dict(section.files)
    for split in SPLITS:
        if split not in splits:
            found = [f"{split}{end}" for end in EXTENSIONS if (Path(section.data) / f"{split}{end}").is_file()]
            # Beside a table, a .json is what the table was made of.
            found = [name for name in found if not name.endswith(".json")] or found or arrow_split(Path(section.data), split)
            if len(found) > 1:
                raise DataError(f"task.files.{split}: needed, because {section.data} holds {' and '.join(found)}")
            if found:
                splits[split] = found[0]
    return splits


def splits_of_names(section: TaskSection, names: Sequence[str]) -> dict[str, str]:
    """Split -> file, those that the recipe names and those that the folder has under one of `names`, in which {} stands for the
    split. Raises DataError."""
    splits, folder = dict(section.files), Path(section.data)
    for split in SPLITS:
        if split not in splits:
            wanted = [name.format(split) for name in names]
            found = [name for name in wanted if (folder / name).is_file()]
            if len(found) > 1:
                raise DataError(f"task.files.{split}: needed, because {folder} holds {' and '.join(found)}")
            if found:
                splits[split] = found[0]
            elif wrong := folders_for_files(folder, wanted):
                raise DataError(wrong)
    return splits


def plain_task(section: TaskSection, others: Iterable[str] = (), taught: bool = False) -> TaskSpec:
    """A task of any other name, of the columns that the recipe gives; `others` are tasks of plugins, one of which may be meant.
    With `taught`, its training texts may be without labels. Raises DataError."""
    for key in ("text", "label"):
        if not getattr(section, key):
            hint = did_you_mean(section.name.lower(), [*GLUE_TASKS, *others])
            hint = hint or ("" if section.text or section.label else "; a plugin's task needs --plugin FILE")
            raise DataError(f"task.{key}: needed, because '{section.name}' is not a GLUE task{hint}")
    header = columns_of(section) if section.header is False else None
    splits = found_splits(section)
    kind = kind_named(section.kind)
    check_labels(section.labels, kind)
    spec = TaskSpec(
        name=section.name,
        text=section.text,
        text_pair=section.text_pair,
        label=section.label,
        labels=None if section.labels is None else tuple(label.strip() for label in section.labels),
        metrics=kind.default_metrics,
        splits=splits,
        header=header,
        kind=kind,
        format=table_format(section, "error"),
        skip_labels=tuple(section.skip_labels),
    )
    if not kind.has_classes or section.labels is not None:
        return spec
    if taught and "train" in splits and (path := Path(section.data) / splits["train"]).is_file():
        names = header or column_names(path, spec.format)
        if spec.label not in names and not did_you_mean(spec.label, names):
            raise DataError(f"task.labels: needed, because {path} has no column '{spec.label}' to find the classes in")
    return replace(spec, labels=_labels_of_train(spec, Path(section.data)), labels_from=splits["train"])


def check_misspelt(path: Path, label: str, header: Sequence[str] | None, format: TableFormat) -> None:
    """Raise DataError where a table without the column of labels has one that may be meant."""
    names = header or column_names(path, format)
    if did_you_mean(label, names):
        require_columns(path, names, [label], format)


def recorded_task(section: TaskSection, note: RecordNote) -> TaskSpec:
    """A task of any name, as its records describe it."""
    kind = kind_titled(note.kind)
    return TaskSpec(
        name=section.name,
        text=section.text or note.text,
        text_pair=section.text_pair or note.text_pair,
        label=section.label or note.label,
        labels=None if note.labels is None else tuple(section.labels or note.labels),
        metrics=kind.default_metrics,
        kind=kind,
    )


def check_records(section: TaskSection, spec: TaskSpec, note: RecordNote) -> None:
    """Raise DataError unless the records are of the task that the recipe means."""
    official = glue_task(note.task)
    name = note.task if official is None else official.name
    if name != spec.name:
        raise DataError(f"task.name: '{section.name}', but the records in {section.data} are of '{note.task}'")
    wanted = spec.kind if section.kind is None else KINDS[section.kind]
    if not spec.kind.title == note.kind == wanted.title:
        raise DataError(f"task.kind: the records in {section.data} are of a {note.kind}, not of a {wanted.title}")
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
        raise no_split(spec.name, data, "train", spec.splits)
    path = data / spec.splits["train"]
    texts = [spec.text] if spec.text_pair is None else [spec.text, spec.text_pair]
    columns = read_columns(path, [spec.label], header=spec.header, format=spec.format, there=texts)
    columns = without_labels(path, columns, spec.label, spec.skip_labels, ())
    return from_kind(spec.kind, "found_labels", path, columns.cells[spec.label], columns.line_numbers, spec.label)
