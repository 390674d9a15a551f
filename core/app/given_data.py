"""Data that a Python program holds, as a task's folder: lists of dicts, a pandas frame, a `datasets.Dataset`, split by split.

The rows are written once, as JSON lines, into the cache, under a name made of their bytes: a run that is repeated or resumed with
the same data has the same recipe.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..cache_folder import kind_folder
from ..errors import DataError
from ..files import replace_folder
from ..locks import hold_folder
from ..shown import shown

SPLITS = ("train", "dev", "test")


def data_folder(data: Mapping[str, Any]) -> Path:
    """A folder with a .jsonl file of each split of `data` (`train`, `dev`, `test`; `validation` is dev). Raises DataError."""
    if not isinstance(data, Mapping):
        raise DataError(f"data: got {shown(data, 60)}, expected a mapping of train and dev to their rows")
    lines: dict[str, bytes] = {}
    for name, rows in data.items():
        split = {"validation": "dev"}.get(name, name)
        if split not in SPLITS or split in lines:
            raise DataError(f"data: {shown(name, 60)}: expected splits named {', '.join(SPLITS)}, each once")
        lines[split] = b"".join(_lines(split, rows))
        if not lines[split]:
            raise DataError(f"data: {split}: holds no rows")
    digest = hashlib.sha256()
    for split in sorted(lines):
        digest.update(f"{split} {len(lines[split])}\0".encode() + lines[split])
    folder = kind_folder("tables") / digest.hexdigest()[:32]
    while not hold_folder(folder):
        with replace_folder(folder) as temporary:
            for split, content in lines.items():
                (temporary / f"{split}.jsonl").write_bytes(content)
    return folder


def _lines(split: str, rows: Any) -> Iterator[bytes]:
    names = _class_names(rows)
    for number, row in enumerate(_rows(split, rows), start=1):
        if not isinstance(row, Mapping):
            raise DataError(f"data: {split}: row {number}: got {shown(row, 60)}, expected a mapping of columns to cells")
        cells = {str(key): _cell(cell, names.get(key)) for key, cell in row.items()}
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
    found = {name: getattr(feature, "names", None) for name, feature in features.items()}
    return {name: list(names) for name, names in found.items() if isinstance(names, list | tuple)}


def _cell(cell: Any, classes: list[str] | None) -> Any:
    if hasattr(cell, "item") and getattr(cell, "shape", None) == ():  # NumPy's numbers
        cell = cell.item()
    elif hasattr(cell, "tolist"):
        cell = cell.tolist()
    if classes is not None and isinstance(cell, int) and 0 <= cell < len(classes):
        return classes[cell]
    return cell


def _fits(cell: Any) -> bool:
    try:
        json.dumps(cell, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True
