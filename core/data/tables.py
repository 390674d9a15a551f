"""Named columns of .tsv, .csv and .jsonl files, each row with its line number.

GLUE's .tsv is not quoted CSV: quotation marks are text, and so are the Unicode line separators that `str.splitlines`
would cut at. Hence one reader for the three formats that is exact about both, and names file and line in every error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, did_you_mean

EXTENSIONS = (".tsv", ".csv", ".jsonl")


@dataclass(frozen=True)
class Columns:
    """`cells[name][row]` is a string, or what JSON holds; an optional column that the file lacks has no entry."""

    cells: dict[str, list]
    line_numbers: np.ndarray  # (rows,) int64: the line on which the row starts, from 1


def read_columns(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), header: Sequence[str] | None = None
) -> Columns:
    """Read the columns of these names; `header` names the columns of a file without a header line.

    Raises DataError for a missing, empty, non-UTF-8 or malformed file and for a missing column.
    """
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        raise DataError(f"{path}: unknown kind of file, expected one of {', '.join(EXTENSIONS)}")
    text = _read_text(path)
    if extension == ".jsonl":
        columns = _json_columns(path, text, required, optional)
    else:
        rows = _tsv_rows(text) if extension == ".tsv" else _csv_rows(path, text)
        columns = _delimited_columns(path, rows, required, optional, header)
    if not len(columns.line_numbers):
        raise DataError(f"{path}: holds no rows")
    return columns


def folder_contents(folder: Path) -> str:
    """What a folder holds, in words, for errors about a file that is not in it."""
    if not folder.is_dir():
        return f"the folder {folder} does not exist"
    names = sorted(entry.name for entry in folder.iterdir())
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"the folder holds {shown}" if names else "the folder is empty"


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {folder_contents(path.parent)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        # The official MRPC files start with a byte order mark, which would become part of the first column's name.
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 (byte 0x{content[error.start]:02x})") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines end with \\n or \\r\\n and with nothing else; the last one may lack its end."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines, 1):
        yield number, line.removesuffix("\r")


def _tsv_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(text):
        yield number, line.split("\t")


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    # strict: otherwise a quotation mark that is never closed swallows the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for row in reader:
            yield start, row or [""]
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{start}: malformed CSV: {error}") from None


def _delimited_columns(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    required: Sequence[str],
    optional: Sequence[str],
    header: Sequence[str] | None,
) -> Columns:
    names = list(header) if header is not None else next(rows, (0, []))[1]
    if not names:
        raise DataError(f"{path}: is empty")
    _require(path, names, required)
    wanted = [name for name in (*required, *optional) if name in names]
    for name in wanted:
        if names.count(name) > 1:
            raise DataError(f"{path}: {names.count(name)} columns are named '{name}'")
    places = [(names.index(name), []) for name in wanted]
    line_numbers = []
    for number, row in rows:
        if row == [""] and len(names) > 1:  # a blank line; with one column it is an empty text
            continue
        if len(row) != len(names):
            raise DataError(f"{path}:{number}: got {len(row)} columns, expected {len(names)}")
        line_numbers.append(number)
        for position, cells in places:
            cells.append(row[position])
    cells = {name: cells for name, (_, cells) in zip(wanted, places)}
    return Columns(cells, np.array(line_numbers, dtype=np.int64))


def _json_columns(path: Path, text: str, required: Sequence[str], optional: Sequence[str]) -> Columns:
    """An optional column is taken when the first record has it, and then every record must."""
    wanted: list[str] | None = None
    cells: dict[str, list] = {}
    line_numbers = []
    for number, line in _lines(text):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise DataError(f"{path}:{number}: got {type(record).__name__}, expected a JSON object")
        if wanted is None:
            wanted = [*required, *(name for name in optional if name in record)]
            cells = {name: [] for name in wanted}
        _require(f"{path}:{number}", list(record), wanted)
        line_numbers.append(number)
        for name in wanted:
            cells[name].append(record[name])
    return Columns(cells, np.array(line_numbers, dtype=np.int64))


def _require(place: Path | str, names: Sequence[str], required: Sequence[str]) -> None:
    for name in required:
        if name not in names:
            raise DataError(
                f"{place}: no column '{name}'{did_you_mean(name, names) or ';'} the columns are {', '.join(names)}"
            )
