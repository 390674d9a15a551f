"""Data that a Python program holds, as a task's folder: lists of dicts, a pandas frame, a `datasets.Dataset`, split by split.

The rows are written once, as JSON lines, into the cache, under a name made of their bytes: a run that is repeated or resumed with
the same data has the same recipe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..cache_folder import kind_folder
from ..data.tables import require_columns
from ..data.task_specs import glue_task
from ..errors import CrossdistilError, DataError
from ..files import replace_folder
from ..kinds.known_kinds import kind_named
from ..locks import hold_folder
from ..recipe import Recipe, parsed_override
from ..shown import shown
from ..task_section import TaskSection

SPLITS = ("train", "dev", "test")


class GivenData:
    """The rows of each split of `data` (`train`, `dev`, `test`; `validation` is dev), as they will be .jsonl files in `folder`.
    Raises DataError for what are no rows."""

    def __init__(self, data: Mapping[str, Any]):
        if not isinstance(data, Mapping):
            raise DataError(f"data: got {shown(data, 60)}, expected a mapping of train and dev to their rows")
        self._lines: dict[str, bytes] = {}
        self._names: dict[str, dict[tuple[str, ...], int]] = {}
        """Split -> names of columns -> number of the first row that has these."""
        for name, rows in data.items():
            split = {"validation": "dev"}.get(name, name)
            if split not in SPLITS or split in self._lines:
                raise DataError(f"data: {shown(name, 60)}: expected splits named {', '.join(SPLITS)}, each once")
            self._names[split] = {}
            self._lines[split] = b"".join(_lines(split, rows, self._names[split]))
            if not self._lines[split]:
                raise DataError(f"data: {split}: holds no rows")
        digest = hashlib.sha256()
        for split in sorted(self._lines):
            digest.update(f"{split} {len(self._lines[split])}\0".encode() + self._lines[split])
        self.folder = kind_folder("tables") / digest.hexdigest()[:32]

    def beside(self, overrides: Sequence[str]) -> list[str]:
        """Overrides of a recipe with that of its data. Raises CrossdistilError where one of them names other data."""
        for key, value, asked in map(parsed_override, overrides):
            inside = [f"task.{name}" for name in value] if key == "task" and isinstance(value, dict) else [key]
            for name in ("task.data", "task.files"):
                if any(each == name or each.startswith(f"{name}.") for each in inside):
                    raise CrossdistilError(f"{asked}: sets {name}, and data gives the rows; leave one of the two out")
        return [*overrides, f"task.data={json.dumps(str(self.folder))}"]

    def placed(self, recipe: Recipe) -> Recipe:
        """The recipe, of this data, with `folder` written. Raises DataError, and writes nothing, where a split or a column is
        missing that its task has."""
        task = recipe.task
        if task.name not in recipe.registered.tasks:  # a plugin's task reads what it likes
            self._check(task)
            if task.files or glue_task(task.name) is not None:  # whose files have other names
                files = {split: f"{split}.jsonl" for split in self._lines}
                recipe = recipe.model_copy(update={"task": task.model_copy(update={"files": files})})
        while not hold_folder(self.folder):
            with replace_folder(self.folder) as temporary:
                for split, content in self._lines.items():
                    (temporary / f"{split}.jsonl").write_bytes(content)
        self._lines.clear()  # a run needs the memory
        return recipe

    def _check(self, task: TaskSection) -> None:
        if not kind_named(task.kind).has_targets:
            raise DataError(f"data: holds rows, but a task of kind: {task.kind} reads files of text; give task.data")
        for split in ("train", "dev"):
            if split not in self._names:
                raise DataError(f"data: {split}: missing; a run needs train and dev, got {', '.join(self._names) or 'nothing'}")
        if task.bad_rows == "skip":
            return
        known = glue_task(task.name)
        for split, found in self._names.items():
            keys = ("text", "text_pair", "label")[: 2 if split == "test" else 3]
            wanted = [name for name in (getattr(task, key) or getattr(known, key, None) for key in keys) if name is not None]
            for names, row in found.items():
                require_columns(f"data: {split}: row {row}", names, wanted)

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Errors about the files of `folder` name the data that the caller gave, and the row."""
        try:
            yield
        except CrossdistilError as error:
            if not isinstance(error, DataError) and type(error) is not CrossdistilError:
                raise
            files = re.compile(rf"{re.escape(str(self.folder))}/(\w+)\.jsonl(?::(\d+))?")
            text = files.sub(lambda found: f"data: {found[1]}" + (f": row {found[2]}" if found[2] else ""), str(error))
            if text == str(error):
                raise
            raise DataError(text) from error


def _lines(split: str, rows: Any, found: dict[tuple[str, ...], int]) -> Iterator[bytes]:
    """The rows as JSON lines; `found` gets the names of their columns, with the first row that has them."""
    classes = _class_names(rows)
    for number, row in enumerate(_rows(split, rows), start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"data: {split}: row {number}: got {shown(row, 60)}, expected a mapping of columns to cells")
        cells = {str(key): _cell(cell, classes.get(key)) for key, cell in row.items()}
        found.setdefault(tuple(cells), number)
        try:
            yield json.dumps(cells, allow_nan=False).encode() + b"\n"
        except (TypeError, ValueError) as error:
            bad = next((key for key, cell in cells.items() if not _fits(cell)), "")
            got = f"column {shown(bad)}: got {shown(cells.get(bad), 60)}"
            raise DataError(f"data: {split}: row {number}: {got}, expected text, a number, or a list of them") from error


def _rows(split: str, rows: Any) -> Iterable[Any]:
    """The rows of what has them: a frame gives its own records."""
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        return rows.to_dict("records")
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise DataError(f"data: {split}: got {shown(rows, 60)}, expected rows: a list of dicts, a frame, or a dataset")
    return rows


def _class_names(rows: Any) -> dict[str, list[str]]:
    """Column -> the names of its classes, of a dataset that has them."""
    features = getattr(rows, "features", None)
    if not isinstance(features, Mapping):
        return {}
    found = {name: getattr(_inner(feature), "names", None) for name, feature in features.items()}
    return {name: list(names) for name, names in found.items() if isinstance(names, list | tuple)}


def _inner(feature: Any) -> Any:
    """What a column holds, or its lists do."""
    return feature[0] if isinstance(feature, list) and len(feature) == 1 else getattr(feature, "feature", feature)


def _cell(cell: Any, classes: list[str] | None) -> Any:
    if hasattr(cell, "item") and getattr(cell, "shape", None) == ():  # NumPy's numbers
        cell = cell.item()
    elif hasattr(cell, "tolist"):
        cell = cell.tolist()
    if classes is not None and isinstance(cell, list):
        return [_cell(each, classes) for each in cell]
    if classes is not None and isinstance(cell, int) and 0 <= cell < len(classes):
        return classes[cell]
    return cell


def _fits(cell: Any) -> bool:
    try:
        json.dumps(cell, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
