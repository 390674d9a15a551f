"""MindRecord files, by MindSpore's own writer and reader: pages of rows in `NAME`, and an SQLite index in `NAME.db`.

The format is MindSpore's alone to write: its header holds a schema and the sizes of pages. A file keeps its name: renamed, its
index no longer fits it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from ...core.errors import DataError

_AT_ONCE = 1024


def write_rows(path: Path, rows: Iterable[dict[str, np.ndarray]]) -> None:
    """Write a file of rows of numbers, which all have the same names, types and lengths."""
    from mindspore.mindrecord import FileWriter

    rest = iter(rows)
    first = next(rest)
    writer = FileWriter(str(path), overwrite=True)
    schema = {name: {"type": str(values.dtype), "shape": list(values.shape)} for name, values in first.items()}
    writer.add_schema(schema, "records of a task's tokens")
    writer.write_raw_data([first])
    while piece := list(islice(rest, _AT_ONCE)):
        writer.write_raw_data(piece)
    writer.commit()
    for written in (path, Path(f"{path}.db")):  # which only their owner could read
        written.chmod(path.parent.stat().st_mode & 0o666)


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(file and record for errors, features) of each row. Raises DataError where MindSpore cannot read it."""
    from mindspore.mindrecord import FileReader

    number = 0
    try:
        reader = FileReader(str(path))
        for number, row in enumerate(reader.get_next(), 1):
            yield f"{path}: record {number}", {name: np.atleast_1d(values) for name, values in row.items()}
        reader.close()
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: MindSpore cannot read it after record {number}: {reason:.300}") from error
