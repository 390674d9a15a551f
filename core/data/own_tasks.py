"""A task of a plugin: its rows come from the plugin's own reader, and are then treated as those of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CrossdistilError, DataError, PluginError, did_you_mean
from ..kinds.known_kinds import kind_named
from ..plugin_calls import first_line
from ..plugin_errors import error_text, plugin_line
from ..registered import RegisteredTask
from ..shown import plain, shown
from ..task_section import TaskSection
from .tables import Columns, is_half
from .task_definitions import check_labels
from .task_specs import TaskSpec
from .texts import Texts

TEXT, PAIR, LABEL = "text", "text_pair", "label"
"""The keys of a row."""
_OF_TABLES = ("text", "text_pair", "label", "files", "header", "columns", "encoding", "separator", "quoting", "bad_rows")


def own_task(section: TaskSection, task: RegisteredTask) -> TaskSpec:
    """The task that a recipe names, as its plugin describes it. Raises DataError for what a recipe says of tables."""
    for key in _OF_TABLES:
        if getattr(section, key) not in (None, {}, ()):
            raise DataError(f"task.{key}: is for tables, but the task '{task.name}' is a plugin's, which reads its own data")
    if section.kind not in (None, task.kind):
        raise DataError(f"task.kind: the task '{task.name}' of {task.place} is a {task.kind}, got '{section.kind}'")
    if not section.data.exists():
        raise DataError(f"task.data: {section.data}: no such file or folder")
    kind, labels = kind_named(task.kind), section.labels or task.labels
    check_labels(labels, kind)
    return TaskSpec(
        task.name,
        TEXT,
        PAIR if task.pairs else None,
        LABEL,
        None if labels is None else tuple(labels),
        kind.default_metrics,
        {split: split for split in task.splits},
        kind=kind,
        skip_labels=tuple(section.skip_labels),
        own=task,
    )


def own_columns(task: RegisteredTask, data: Path, split: str) -> Columns:
    """The rows of a split as the columns of a table; a row's number, from 1, is its line. Raises PluginError, which names the
    reader's line, for what it raises and for rows that are none."""
    wanted = (TEXT, PAIR) if task.pairs else (TEXT,)
    keys = ", ".join((*wanted, LABEL))
    cells: dict[str, Any] = {name: Texts() for name in wanted}
    labels: list[Any] = []
    for number, row in enumerate(_rows(task, data, split), 1):
        where = f"{first_line(task.read, task.place)}: task '{task.name}', {split}, row {number}"
        if not isinstance(row, Mapping):
            raise PluginError(f"{where}: got {shown(row, 60)}, expected a mapping with {keys}")
        unknown = [key for key in row if key not in (*wanted, LABEL)]
        if unknown:
            near = did_you_mean(str(unknown[0]), (*wanted, LABEL))
            raise PluginError(f"{where}: unknown key {shown(unknown[0])}{near or f'; expected {keys}'}")
        for name in wanted:
            text = row.get(name)
            if not isinstance(text, str) or is_half(text):
                got = f"got {shown(text, 60)}" if name in row else "is missing"
                raise PluginError(f"{where}: {name}: {got}, expected a text")
            cells[name].append(text)
        if LABEL in row:
            labels.append(_cell(row[LABEL]))
        elif labels or not split.startswith("test"):
            raise PluginError(f"{where}: {LABEL}: is missing")
    if not cells[TEXT]:
        raise DataError(f"{plain(str(data))}: the task '{task.name}' has no rows for the split '{split}'")
    if labels and len(labels) != len(cells[TEXT]):
        raise PluginError(f"{first_line(task.read, task.place)}: task '{task.name}', {split}: only some rows have a {LABEL}")
    if labels:
        cells[LABEL] = labels
    return Columns(cells, np.arange(1, len(cells[TEXT]) + 1))


def _cell(label: Any) -> Any:
    """A label as a table has it: a text, or a list of them."""
    if isinstance(label, list | tuple | set | frozenset):
        return [str(each) for each in label]
    return str(label.item() if isinstance(label, np.generic) else label)


def _rows(task: RegisteredTask, data: Path, split: str) -> Iterator[Any]:
    try:
        yield from task.read(data, split)
    except (CrossdistilError, MemoryError, GeneratorExit):
        raise
    except Exception as error:
        where = plugin_line(error, [task.place.rpartition(":")[0]]) or first_line(task.read, task.place)
        what = f"task '{task.name}' fails for {plain(str(data))}, {split}"
        raise PluginError(f"{plain(where)}: {what}: {error_text(error)}") from error
