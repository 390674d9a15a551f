"""The rows of Parquet, Arrow and Feather files, and of folders that `datasets` saved (`save_to_disk`), through pyarrow.

They are read a record batch at a time, and of it only the columns that are asked for. Columns of a `datasets.ClassLabel`, and of
lists of it, give the names of their classes, which stand in the schema, and no numbers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..extras import require

ARROW_EXTENSIONS = (".parquet", ".arrow", ".feather")
_STATE = "state.json"
"""In a folder that `save_to_disk` wrote: which files, in which order."""


def is_arrow(path: Path) -> bool:
    """Whether a table is of this kind, by its name: one file, a pattern of several, or a saved folder."""
    return path.suffix.lower() in ARROW_EXTENSIONS or is_saved_split(path)


def is_saved_split(path: Path) -> bool:
    """Whether a folder is one split of a dataset as `save_to_disk` wrote it."""
    return (path / _STATE).is_file()


def arrow_split(folder: Path, split: str) -> list[str]:
    """What a folder has of a split: a file, a pattern of numbered files, or a folder. `datasets` says `validation` for dev."""
    for name in (split, "validation") if split == "dev" else (split,):
        found = [f"{name}{end}" for end in ARROW_EXTENSIONS if (folder / f"{name}{end}").is_file()]
        found += [name] if is_saved_split(folder / name) else []
        for place in ("", "data/"):  # the hub's own folders have a folder `data`
            pattern = f"{place}{name}-*-of-*.parquet"
            found += [pattern] if next(folder.glob(pattern), None) is not None else []
        if found:
            return found
    return []


def arrow_names(path: Path) -> list[str]:
    """The names of the columns. Raises DataError, and BackendError where pyarrow is missing."""
    files = _files(path)
    with _told(files[0]):
        return list(_schema(files[0]).names)


def arrow_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the row, counted from 1, its cells by name) of these columns."""
    number = 0
    for file in _files(path):
        with _told(file):
            schema = _schema(file)
            kept = [name for name in columns if name in schema.names]
            _check_types(file, schema, kept)
            classes = _classes(schema)
            for batch in _batches(file, kept):
                cells = [_cells(batch.column(index), classes.get(name)) for index, name in enumerate(batch.schema.names)]
                for row in zip(*cells, strict=True):
                    number += 1
                    yield number, dict(zip(batch.schema.names, row, strict=True))


def arrow_classes(path: Path) -> dict[str, list[str]]:
    """Column -> the names of its classes, or of those in its lists."""
    return _classes(_schema(_files(path)[0]))


def _files(path: Path) -> list[Path]:
    require("data", path)
    if "*" in path.name:
        return sorted(path.parent.glob(path.name))
    if not path.is_dir():
        return [path]
    try:
        names = [entry["filename"] for entry in json.loads((path / _STATE).read_bytes())["_data_files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / _STATE}: is not what datasets writes: {error or type(error).__name__}") from error
    wrong = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if wrong or not names:
        raise DataError(f"{path / _STATE}: _data_files: got {wrong or names}, expected names of files beside it")
    return [path / name for name in names]


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, pyarrow.ArrowException) as error:
        what = " ".join(str(error).split())[:300]
        raise DataError(f"{path}: cannot be read as {path.suffix[1:] or 'arrow'}: {what}") from error


def _schema(path: Path):
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as parquet

        return parquet.read_schema(path)
    with _opened(path) as reader:
        return reader.schema


def _opened(path: Path):
    """A reader of Arrow's file format, which Feather is, or of its stream format, which `datasets` writes."""
    import pyarrow

    source = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_file(source)
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_stream(source)


def _batches(path: Path, columns: Sequence[str]) -> Iterator:
    if path.suffix.lower() == ".parquet":
        import pyarrow.parquet as parquet

        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(columns=list(columns))
        return
    with _opened(path) as reader:
        count = getattr(reader, "num_record_batches", None)
        batches = reader if count is None else (reader.get_batch(index) for index in range(count))
        for batch in batches:
            yield batch.select(list(columns))


def _check_types(path: Path, schema, columns: Sequence[str]) -> None:
    """Raise DataError for a column that holds neither texts nor numbers nor lists of them."""
    import pyarrow.types as types

    for name in columns:
        kind = schema.field(name).type
        while types.is_list(kind) or types.is_large_list(kind) or types.is_dictionary(kind):
            kind = kind.value_type
        known = (types.is_string, types.is_large_string, types.is_integer, types.is_floating, types.is_boolean, types.is_null)
        if not any(is_kind(kind) for is_kind in known):
            raise DataError(f"{path}: column '{name}': is of {kind}, expected text, numbers, or lists of them")


def _classes(schema) -> dict[str, list[str]]:
    """Column -> the names of its classes, of those that `datasets` knows to be of a ClassLabel."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        kinds = {name: _inner(feature) for name, feature in features.items()}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    found = {name: feature.get("names") for name, feature in kinds.items() if feature.get("_type") == "ClassLabel"}
    return {name: names for name, names in found.items() if isinstance(names, list)}


def _inner(feature: Any) -> dict[str, Any]:
    """What a column holds, or its lists do, which `datasets` describes as Sequence, List, LargeList or `[feature]`."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    elif isinstance(feature, dict) and feature.get("_type") in ("Sequence", "List", "LargeList"):
        feature = feature.get("feature")
    return feature if isinstance(feature, dict) else {}


def _cells(column, classes: list[str] | None) -> list[Any]:
    values = column.to_pylist()
    if classes is None:
        return values

    def named(cell: Any) -> Any:
        # datasets has -1 where there is no label.
        return classes[cell] if isinstance(cell, int) and 0 <= cell < len(classes) else cell

    return [[named(each) for each in cell] if isinstance(cell, list) else named(cell) for cell in values]
