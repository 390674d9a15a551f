"""The rows of a table's file, one after the other, each with the number of its line: TSV, CSV, JSON lines, a JSON array."""

from __future__ import annotations

import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ..errors import DataError
from ..json_files import Refused, unique

Rows = Iterator[tuple[int, list[str]]]
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_EXCEL = re.compile(r'"?sep=(.)"?\s*')
"""The first line of a .csv that tells Excel its separator."""


@dataclass(frozen=True)
class TableFormat:
    """What a file does not say about itself; None is what its name stands for."""

    encoding: str | None = None
    separator: str | None = None
    quoting: str | None = None
    """`csv`: cells may be in quotation marks, as RFC 4180 has them; `none`: quotation marks are text, as in GLUE's files."""
    bad_rows: str = "error"
    """`skip` leaves rows out that cannot be read."""
    options: tuple[str, ...] | None = None
    """The command's options that errors name, instead of keys of the recipe's task."""

    def say(self, key: str, value: str) -> str:
        """How a person sets this; empty where there is no way."""
        if self.options is not None:
            return f"--{key} {value}" if key in self.options else ""
        return f"task.{key}: {value}"


class Skipped:
    """The rows of a file that cannot be read: the first one is an error, or all are left out and counted."""

    def __init__(self, path: Path, format: TableFormat):
        self.path, self.format = path, format
        self.notes: list[str] = []
        self.unquoted = False
        self._count, self._lines, self._first = 0, [], ""

    def add(self, line: int, problem: str) -> None:
        """One more of them."""
        if self.format.bad_rows == "error":
            way = self.format.say("bad_rows", "skip")
            raise DataError(f"{self.path}:{line}: {problem}" + (f"; {way} leaves such rows out" if way else ""))
        self._count += 1
        self._first = self._first or problem
        if len(self._lines) < 5:
            self._lines.append(line)

    def told(self, rows: int) -> list[str]:
        """What was left out, in words."""
        if not self._count:
            return []
        lines = ", ".join(map(str, self._lines)) + (", ..." if self._count > len(self._lines) else "")
        what = "row that cannot be read is" if self._count == 1 else "rows that cannot be read are"
        return [f"{self.path.name}: {self._count:,} {what} left out of {rows + self._count:,}: line {lines} ({self._first})"]

    def reason(self) -> str:
        """Why nothing is left, where all rows are bad."""
        return f" that can be read: all {self._count:,} are bad ({self._first})" if self._count else ""


class Lines:
    """The lines of a text file with their number. Lines with a NUL character, which no text has, are bad rows."""

    def __init__(self, file: TextIO, skipped: Skipped):
        self.file, self._skipped, self.number = file, skipped, 0
        self._ahead: list[str] = []

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        while True:
            line = self._ahead.pop() if self._ahead else next(self.file)
            self.number += 1
            if "\0" not in line:
                return line
            self._bad(line)

    def numbered(self) -> Iterator[tuple[int, str]]:
        """The rest of them with their numbers, faster than one by one."""
        while self._ahead:
            yield self.number + 1, next(self)
        for number, line in enumerate(self.file, self.number + 1):
            if "\0" in line:
                self.number = number
                self._bad(line)
            else:
                yield number, line

    def _bad(self, line: str) -> None:
        way = self._skipped.format.say("encoding", "utf-16-le") if line.count("\0") > len(line) // 3 else ""
        self._skipped.add(self.number, "holds a NUL character" + (f"; if it is UTF-16: {way}" if way else ""))

    def put_back(self, line: str) -> None:
        """Let the last line come again."""
        self._ahead.append(line)
        self.number -= 1


def delimited_rows(
    path: Path, lines: Lines, skipped: Skipped, header: Sequence[str] | None, fits: Callable[[list[str]], bool]
) -> tuple[list[str], Rows, list[str]]:
    """(names of the columns, rows behind the header, notes) of a TSV or CSV file; `fits` tells whether names are those that
    are looked for, which decides what separates them where another separator than the usual one gives them."""
    format, notes = skipped.format, []
    is_tsv = path.suffix.lower() == ".tsv"
    usual = "\t" if is_tsv else ","
    separator = format.separator or usual
    first = next(lines, None)
    if first is None:
        raise DataError(f"{path}: is empty")
    told = None if is_tsv else _EXCEL.fullmatch(first)
    if told:
        separator = format.separator or told[1]
    else:
        lines.put_back(first)
        if format.separator is None and header is None:
            separator = next((other for other in (usual, *_SEPARATORS) if fits(_names(first, other, is_tsv))), usual)
            if separator != usual:
                notes.append(f"{path.name}: its columns are separated by {_SEPARATORS[separator]}")
    quoting = format.quoting or ("none" if is_tsv and separator == "\t" else "csv")
    skipped.unquoted = quoting == "none"
    rows = _plain_rows(lines, separator) if quoting == "none" else _csv_rows(path, lines, separator, skipped)
    if header is not None:
        names = list(header)
        return names, _without_header(path, rows, names, format), notes
    names = next(rows, (0, [""]))[1]
    if is_tsv and any("\r" in name for name in names):
        raise DataError(f"{path}:1: lines end with \\r alone, as on old Macintoshes; expected \\n or \\r\\n")
    while names and not names[-1].strip():
        names.pop()
    if not names:
        raise DataError(f"{path}: is empty" if next(rows, None) is None else f"{path}:1: a blank line, expected column names")
    return names, rows, notes


def _names(line: str, separator: str, is_tsv: bool) -> list[str]:
    line = line.rstrip("\r\n")
    if not is_tsv or separator != "\t":
        with contextlib.suppress(csv.Error):
            return next(csv.reader([line], delimiter=separator), [])
    return line.split(separator)


def _plain_rows(lines: Lines, separator: str) -> Rows:
    """Lines end with \\n or \\r\\n and with nothing else; the last one may lack its end."""
    for number, line in lines.numbered():
        yield number, line.removesuffix("\n").removesuffix("\r").split(separator)


def _csv_rows(path: Path, lines: Lines, separator: str, skipped: Skipped) -> Rows:
    csv.field_size_limit(2**31 - 1)  # a text may be longer than the 128 KiB that are allowed otherwise
    # strict: otherwise a quotation mark that is never closed swallows the rest of the file without a word.
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        start = lines.number + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise DataError(f"{path}:{start}: malformed CSV: a quotation mark is never closed") from None
            skipped.add(start, f"malformed CSV: {error}")
            continue
        yield start, row or [""]


def _without_header(path: Path, rows: Rows, names: list[str], format: TableFormat) -> Rows:
    """The rows of a file whose columns are named elsewhere."""
    for number, row in rows:
        if number == 1 and [cell.strip() for cell in row] == names:
            raise DataError(f"{path}:1: is a header line, but the file is said to have none; {format.say('header', 'true')}")
        yield number, row


# NaN is read here, unlike in other JSON: it may be a label, of which is warned.
_DECODER = json.JSONDecoder(object_pairs_hook=unique)


def _why_not(error: Exception) -> str:
    """Why a row is not read, without the words of Python's own limits."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, RecursionError):
        return "the JSON is nested too deep"
    if not isinstance(error, json.JSONDecodeError):
        return "the JSON has a number of too many digits"
    return f"not JSON: {str(error)[:200]}"


def json_rows(path: Path, lines: Lines, skipped: Skipped) -> Iterator[tuple[int, dict]]:
    """The objects of JSON lines, or of a .json file that holds an array of them."""
    is_first = True
    for line in lines:
        if not line.strip():
            continue
        if is_first and path.suffix.lower() == ".json" and line.lstrip().startswith("["):
            yield from _array_rows(path, line, lines, skipped)
            return
        is_first = False
        try:
            record = _DECODER.decode(line.strip())
        except (ValueError, RecursionError) as error:
            shape = ", expected one object a line or an array of objects" if path.suffix.lower() == ".json" else ""
            skipped.add(lines.number, f"{_why_not(error)}{shape}")
            continue
        if isinstance(record, dict):
            yield lines.number, record
        else:
            skipped.add(lines.number, f"got {type(record).__name__}, expected a JSON object")


def _array_rows(path: Path, first: str, lines: Iterable[str], skipped: Skipped) -> Iterator[tuple[int, dict]]:
    """The objects of an array, parsed one at a time, each with the line on which it begins."""
    number = lines.number
    text = first + "".join(lines)
    place, counted = text.index("[") + 1, 0
    space = re.compile(r"[ \t\r\n]*")
    is_start = True
    while True:
        place = space.match(text, place).end()
        if text[place : place + 1] == "]" and is_start:
            break
        number += text.count("\n", counted, place)
        counted = place
        try:
            record, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: {_why_not(error)}") from None
        if isinstance(record, dict):
            yield number, record
        else:
            skipped.add(number, f"got {type(record).__name__}, expected a JSON object")
        place = space.match(text, place).end()
        is_start = False
        if text[place : place + 1] == "]":
            break
        if text[place : place + 1] != ",":
            raise DataError(f"{path}:{number}: not JSON: expected , or ] behind an object")
        place += 1
    if text[place + 1 :].strip():
        raise DataError(f"{path}: not JSON: holds more than one array")
