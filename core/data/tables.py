"""Named columns of .tsv, .csv, .json and .jsonl files, each row with its line number; those of Arrow's files, with their
own number, are read in `arrow_tables`.

GLUE's .tsv is not quoted CSV: quotation marks are text, and so are the Unicode line separators that `str.splitlines`
would cut at. Hence one reader for all formats that is exact about it, reads a row at a time, and names file and line in
every error. What a file is, beyond its name, is a `TableFormat`.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from ..errors import DataError, did_you_mean
from .arrow_tables import ARROW_EXTENSIONS, arrow_names, arrow_rows, is_arrow
from .table_rows import Lines, Rows, Skipped, TableFormat, delimited_rows, json_rows
from .text_files import MARK, not_text, open_text
from .texts import Texts

EXTENSIONS = (".tsv", ".csv", ".jsonl", ".json", *ARROW_EXTENSIONS)
_JSON = (".jsonl", ".json")
_KEYS = "task.text, task.text_pair and task.label"
_SHOWN = 20  # names of columns in an error
Asked = tuple[Sequence[str], Sequence[str], Sequence[str]]
"""Names of columns: those that are read, those that are read where they are there, and those that must be there."""


@dataclass(frozen=True)
class Columns:
    """`cells[name][row]` is a string, or what JSON holds; an optional column that the file lacks has no entry."""

    cells: dict[str, Sequence]
    line_numbers: np.ndarray  # (rows,) int64: the line on which the row starts, from 1
    notes: tuple[str, ...] = ()
    """What a person must know of how the file was read: rows that were left out, a separator that was found."""


def read_columns(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    header: Sequence[str] | None = None,
    texts: Collection[str] = (),
    format: TableFormat = TableFormat(),
    there: Sequence[str] = (),
) -> Columns:
    """Read the columns of these names; `header` names the columns of a file without a header line. Columns of `texts` are
    `Texts`, and a cell of theirs that is no text is an error; those of `there` must be there, and are not read. A name in the
    file may have other capitals, and white space around it, where only one column is meant.

    Raises DataError for a missing, empty or malformed file, for one in another encoding and for a missing column.
    """
    skipped = Skipped(path, format)
    if is_arrow(path):
        names = arrow_names(path)
        require_columns(path, names, [*there, *required], format)
        wanted = [names[_place(path, names, name)] for name in (*required, *optional, *there) if not _missing(names, [name])]
        rows = arrow_rows(path, list(dict.fromkeys(wanted)))
        columns = _json_columns(path, rows, (required, optional, there), texts, skipped)
        if not len(columns.line_numbers):
            raise DataError(f"{path}: holds no rows{skipped.reason()}")
        return Columns(columns.cells, columns.line_numbers, (*skipped.notes, *skipped.told(len(columns.line_numbers))))
    with _opened(path, format) as file:
        lines = Lines(file, skipped)
        if path.suffix.lower() in _JSON:
            columns = _json_columns(path, json_rows(path, lines, skipped), (required, optional, there), texts, skipped)
        else:
            names, rows, notes = delimited_rows(
                path, lines, skipped, header, lambda found: not _missing(found, [*there, *required])
            )
            columns = _delimited_columns(path, names, rows, (required, optional, there), texts, skipped, header is None)
            skipped.notes += notes
        encoding = file.encoding
    if not len(columns.line_numbers):
        raise DataError(f"{path}: holds no rows{skipped.reason()}")
    if encoding.startswith("utf-") and encoding not in ("utf-8", "utf-8-sig", format.encoding):
        skipped.notes.append(f"{path.name}: is {encoding.upper()}, as its byte-order mark says")
    return Columns(columns.cells, columns.line_numbers, (*skipped.notes, *skipped.told(len(columns.line_numbers))))


def table_records(path: Path, format: TableFormat = TableFormat()) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a table with the number of each one's line, as name -> cell, whatever columns a row of JSON has. Raises
    DataError."""
    if path.suffix.lower() in _JSON:
        skipped = Skipped(path, format)
        with _opened(path, format) as file:
            yield from json_rows(path, Lines(file, skipped), skipped)
        return
    names = column_names(path, format)
    columns = read_columns(path, names, format=format)
    for row, line in enumerate(columns.line_numbers):
        yield int(line), {name: columns.cells[name][row] for name in names}


def column_names(path: Path, format: TableFormat = TableFormat()) -> list[str]:
    """The names in a table's header, or the keys of its first JSON object."""
    if is_arrow(path):
        return arrow_names(path)
    skipped = Skipped(path, format)
    with _opened(path, format) as file:
        if path.suffix.lower() in _JSON:
            _, first = next(json_rows(path, Lines(file, skipped), skipped), (0, None))
            if first is None:
                raise DataError(f"{path}: is empty")
            return list(first)
        return delimited_rows(path, Lines(file, skipped), skipped, None, lambda found: len(found) > 1)[0]


@contextlib.contextmanager
def _opened(path: Path, format: TableFormat) -> Iterator[TextIO]:
    """A table's file; what is wrong with its text is told as an error of the data."""
    extension = path.suffix.lower()
    if extension not in EXTENSIONS:
        raise DataError(f"{path}: unknown kind of file, expected one of {', '.join(EXTENSIONS)}")
    quoted_lines = format.quoting == "csv" or (extension == ".csv" and format.quoting is None)
    try:
        with open_text(path, format.encoding, "" if quoted_lines else "\n") as file:
            yield file
    except UnicodeError:
        raise DataError(not_text(path, path.read_bytes(), format.encoding, format.say("encoding", "{}"))) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


class _Builder:
    """Columns that grow by a row at a time: `adders` take its cells, `line` the number of its line."""

    def __init__(self, names: Iterable[str], texts: Collection[str]):
        self._cells = {name: Texts() if name in texts else [] for name in names}
        self._lines = array("q")
        self.line = self._lines.append
        self.adders = [self._adder(column) for column in self._cells.values()]

    @staticmethod
    def _adder(column: Texts | list) -> Callable[[Any], None]:
        if isinstance(column, Texts):
            return column.append
        known: dict[str, str] = {}
        add, same = column.append, known.setdefault
        # A label is one string object, however many rows have it.
        return lambda cell: add(same(cell, cell) if isinstance(cell, str) else cell)

    def quoted(self) -> int:
        """How many texts look as CSV quotes them."""
        texts = [column for column in self._cells.values() if isinstance(column, Texts) and b'""' in column.utf8]
        return sum(text.startswith('"') and text.endswith('"') and '""' in text for column in texts for text in column)

    def columns(self) -> Columns:
        return Columns(self._cells, np.array(self._lines, dtype=np.int64))


def _delimited_columns(
    path: Path,
    names: list[str],
    rows: Rows,
    asked: Asked,
    texts: Collection[str],
    skipped: Skipped,
    has_header: bool,
) -> Columns:
    required, optional, there = asked
    require_columns(path, names, [*there, *required], skipped.format, has_header)
    wanted = [name for name in (*required, *optional) if not _missing(names, [name])]
    places = [_place(path, names, name) for name in wanted]
    builder, width = _Builder(wanted, texts), len(names)
    steps = list(zip(builder.adders, places))
    for number, row in rows:
        if len(row) != width or not row[0]:
            if len(row) > width and not any(row[width:]):
                row = row[:width]
            if width > 1 and (not any(row) or (len(row) == 1 and not row[0].strip())):
                continue  # a blank line; with one column it is an empty text
            if len(row) != width:
                is_quoted = path.suffix.lower() == ".tsv" and _is_open(row)
                hint = skipped.format.say("quoting", "csv") if is_quoted else ""
                hint = f", where cells are quoted as in CSV: {hint}" if hint else ""
                skipped.add(number, f"got {len(row)} columns, expected {width}{hint}")
                continue
        for add, place in steps:
            add(row[place])
        builder.line(number)
    quotes = builder.quoted() if skipped.unquoted and skipped.format.quoting is None else 0
    if quotes:
        way = skipped.format.say("quoting", "csv")
        way = f"; {way}" if way else ""
        skipped.notes.append(
            f"{path.name}: {quotes:,} texts look quoted as in CSV, but quotation marks in .tsv files are text{way}"
        )
    return builder.columns()


def _is_open(row: list[str]) -> bool:
    """Whether a cell begins with a quotation mark that it does not end with, as where a line was cut in a quoted cell."""
    return any(cell.startswith('"') and (len(cell) < 2 or not cell.endswith('"')) for cell in row)


def _json_columns(
    path: Path, rows: Iterator, asked: Asked, texts: Collection[str], skipped: Skipped
) -> Columns:
    """An optional column is taken when the first record has it, and then every record must."""
    required, optional, there = asked
    builder: _Builder | None = None
    wanted: list[str] = []
    keys: list[str] = []
    for number, record in rows:
        if builder is None:
            names = list(record)
            require_columns(f"{path}:{number}", names, [*there, *required], skipped.format)
            wanted = [*required, *(name for name in optional if not _missing(names, [name]))]
            keys = [names[_place(path, names, name)] for name in wanted]
            builder = _Builder(wanted, texts)
        problems = (_json_problem(record, name, key, name in texts) for name, key in zip(wanted, keys))
        problem = next(filter(None, problems), None)
        if problem is not None:
            skipped.add(number, problem)
        else:
            for add, key in zip(builder.adders, keys):
                add(record[key])
            builder.line(number)
    return Columns({}, np.zeros(0, np.int64)) if builder is None else builder.columns()


def _json_problem(record: dict, name: str, key: str, is_text: bool) -> str | None:
    """Why a record has no cell of that name, or None."""
    if key not in record:
        return f"no column '{name}'{did_you_mean(name, record) or ';'} the columns are {_listed(list(record))}"
    cell = record[key]
    if not is_text:
        return None
    if not isinstance(cell, str):
        return f"'{name}' is {json.dumps(cell)[:100]}, expected a text"
    return f"'{name}' holds half a surrogate pair" if is_half(cell) else None


def is_half(text: str) -> bool:
    """Whether a text holds half a surrogate pair, which JSON's \\ud800 can spell and no file of text can hold."""
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _key(name: str) -> str:
    """What two names have in common that a person takes for the same."""
    return name.strip().strip(MARK).casefold()


def _missing(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    if all(name in names for name in wanted):
        return []
    keys = {_key(name) for name in names}
    return [name for name in wanted if name not in names and _key(name) not in keys]


def _place(path: Path, names: Sequence[str], wanted: str) -> int:
    same = [index for index, name in enumerate(names) if name == wanted]
    same = same or [index for index, name in enumerate(names) if _key(name) == _key(wanted)]
    if len(same) > 1:
        raise DataError(f"{path}: {len(same)} columns are named '{wanted}'")
    return same[0]


def require_columns(
    place: Path | str,
    names: Sequence[str],
    required: Sequence[str],
    format: TableFormat | None = None,
    has_header: bool = False,
) -> None:
    """Raise DataError, which begins with `place`, unless columns of these names are among `names`; with a `format` it says how a
    person names columns, and with `has_header` also that the first line may be none."""
    missing = _missing(names, required)
    if not missing:
        return
    what = f"column '{missing[0]}'" if len(missing) == 1 else "columns " + " and ".join(f"'{name}'" for name in missing)
    near = next((hint for hint in (did_you_mean(name, names) for name in missing) if hint), "")
    text = f"{place}: no {what}{near or ';'} the columns are {_listed(names)}"
    if not near and format is not None and format.options is None:
        text += f"; {_KEYS} name the task's columns"
    ways = [] if near or format is None or not has_header else [format.say("header", "false"), format.say("columns", "[...]")]
    if any(ways):
        text += f"; if its first line is no header: {' and '.join(filter(None, ways))}, the names of all columns in their order"
    raise DataError(text)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
