"""Files whose words have labels: columns, as CoNLL's shared tasks have them, a word a line and an empty line behind each
sentence; rows with a list of words and one of labels (`tagged_lists`); or JSON lines with a text and its spans. All become texts
and a tag for each of their words.

Of columns and lists the text is the words with a space between them. The words of any other text are its runs of letters and
digits, Chinese characters one by one, and every other character that is no space.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from ..shown import shown
from .arrow_tables import ARROW_EXTENSIONS, is_arrow
from .table_rows import TableFormat
from .tables import read_columns
from .tag_schemes import OUTSIDE, PLAIN, NoScheme, Span, as_bio, parts_of, scheme_of, tags_of
from .tagged_format import JSON_TEXT, SPANS
from .tagged_lists import read_lists, words_column
from .text_files import open_text
from .texts import Texts

ONLY_COLUMNS = (".conll", ".bio", ".iob")
"""How files end that hold columns and nothing else."""
COLUMN_FILES = (*ONLY_COLUMNS, ".txt", ".tsv")
JSON_FILES = (".jsonl", ".json")
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+|[^\w\s]")
_BY_SPACES = re.compile(r"\S+")


class TaggedSection(Protocol):
    """What a recipe says of such files, as far as it is read here."""

    text: str
    label: str
    columns: tuple[str, ...] | None
    encoding: str | None
    scheme: str
    stray: bool
    classes: tuple[str, ...] | None


@dataclass
class TaggedTexts:
    """Texts with a tag for each word."""

    texts: Texts
    tags: list[list[str]] | None
    """BIO, or plain labels; None where the file has none."""
    lines: np.ndarray
    """(texts,) int64: where each begins."""
    by_spaces: bool
    scheme: str
    notes: list[str] = field(default_factory=list)
    word_a_line: bool = False


def word_places(text: str, by_spaces: bool) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, in characters."""
    return [found.span() for found in (_BY_SPACES if by_spaces else _WORD).finditer(text)]


def read_tagged(path: Path, section: TaggedSection, has_labels: bool = True) -> TaggedTexts:
    """The texts and tags of a file, which without `has_labels` may be words or texts alone. Raises DataError, which names file
    and line."""
    if path.suffix.lower() in JSON_FILES or is_arrow(path):
        words = words_column(path, section.text, TableFormat(section.encoding))
        return _lists(path, words, section, has_labels) if words else _json_spans(path, section, has_labels)
    if path.suffix.lower() in COLUMN_FILES:
        return _columns(path, section, has_labels)
    expected = ", ".join((*COLUMN_FILES, *JSON_FILES, *ARROW_EXTENSIONS))
    raise DataError(f"{path}: unknown kind of file, expected one of {expected}")


def _columns(path: Path, section: TaggedSection, has_labels: bool) -> TaggedTexts:
    texts, rows, places = Texts(), [], []
    word_at, tag_at = _place(section.columns, section.text, 0), _place(section.columns, section.label, -1)
    alone = False
    for numbers, sentence in _sentences(path, section.columns, section.encoding, 2 if has_labels else 1):
        alone = len(sentence[0]) == 1
        texts.append(" ".join(cells[0 if alone else word_at] for cells in sentence))
        rows.append([cells[tag_at] for cells in sentence])
        places.append(numbers)
    if not rows:
        raise DataError(f"{path}: holds no words{' with labels' if has_labels else ''}")
    lines = [numbers[0] for numbers in places]
    if alone:
        return TaggedTexts(texts, None, np.array(lines, np.int64), True, PLAIN)
    scheme, notes = _made_bio(path, rows, section, lambda row, word: (places[row][word], ""))
    return TaggedTexts(texts, rows, np.array(lines, np.int64), True, scheme, notes, word_a_line=True)


def _lists(path: Path, words: str, section: TaggedSection, has_labels: bool) -> TaggedTexts:
    format = TableFormat(section.encoding)
    found = read_lists(path, words, section.label, format, section.classes, True if has_labels else None)
    if found.tags is None:
        return TaggedTexts(found.texts, None, found.lines, True, PLAIN, list(found.notes))
    places = found.lines.tolist()
    scheme, notes = _made_bio(path, found.tags, section, lambda row, word: (places[row], f" {found.label}[{word}]:"))
    return TaggedTexts(found.texts, found.tags, found.lines, True, scheme, [*found.notes, *notes])


def _made_bio(
    path: Path, rows: list[list[str]], section: TaggedSection, place: Callable[[int, int], tuple[int, str]]
) -> tuple[str, list[str]]:
    """Make the tags of `rows` BIO where they are no plain labels: their scheme, and what is to be told. `place` gives the line of
    a word, and where in it."""
    if section.scheme == PLAIN:
        return PLAIN, []
    notes, stray = [], []
    try:
        scheme = scheme_of(rows)
        for number, row in enumerate(rows):
            own: list[int] = []
            rows[number] = as_bio(row, scheme, number, own if section.stray else None)
            stray += [place(number, word)[0] for word in own]
    except NoScheme as error:
        line, within = place(error.row, error.word)
        raise DataError(f"{path}:{line}:{within} {error}") from None
    if scheme != "BIO":
        notes.append(f"{path.name}: its tags are {scheme}, and are read as BIO")
    if stray:
        what = "1 tag that goes on with nothing begins a span" if len(stray) == 1 else (
            f"{len(stray):,} tags that go on with nothing begin spans"
        )
        notes.append(f"{path.name}: {what} (line {stray[0]})")
    return scheme, notes


def read_words(
    path: Path, columns: Sequence[str] | None = None, word: str = "", encoding: str | None = None, way_out: str = "--encoding"
) -> tuple[Texts, np.ndarray, int]:
    """The texts of a file of columns, which may have no labels: the words of each sentence with a space between them, from which
    line on each is, and how many columns there are. `columns` are the names of its columns and `word` that of the words; without
    them, the words are the first column. Raises DataError, which names `way_out` as the key of another encoding."""
    place, found, lines, width = _place(columns, word, 0), Texts(), [], 0
    for numbers, rows in _sentences(path, columns, encoding, 1, way_out):
        found.append(" ".join(cells[place] for cells in rows))
        lines.append(numbers[0])
        width = len(rows[0])
    if not found:
        raise DataError(f"{path}: holds no words")
    return found, np.array(lines, np.int64), width


def _sentences(
    path: Path, columns: Sequence[str] | None, encoding: str | None, least: int, way_out: str = "task.encoding"
) -> Iterator[tuple[list[int], list[list[str]]]]:
    """The numbers of the lines of each sentence, and their cells, of which there are `least` or more."""
    expected = None if columns is None else len(columns)
    numbers: list[int] = []
    rows: list[list[str]] = []
    try:
        with open_text(path, encoding) as file:
            for number, line in enumerate(file, 1):
                cells = line.split()
                if not cells or cells[0] == "-DOCSTART-":
                    if rows:
                        yield numbers, rows
                    numbers, rows = [], []
                    continue
                expected = expected or len(cells)
                if len(cells) != expected or expected < least:
                    what = f"{expected} column{'s' * (expected != 1)}"
                    what = what if expected >= least else "two columns or more: a word, and last its label"
                    got = f"{len(cells)} column{'s' * (len(cells) != 1)} ({shown(line.strip(), 60)})"
                    raise DataError(f"{path}:{number}: got {got}, expected {what}")
                numbers.append(number)
                rows.append(cells)
    except UnicodeError:
        raise DataError(f"{path}: is no text in {encoding or 'UTF-8'}; {way_out} names another encoding") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    if rows:
        yield numbers, rows


def _place(columns: Sequence[str] | None, name: str, usual: int) -> int:
    if columns is None or not name:
        return usual
    if name not in columns:
        raise DataError(f"task.columns: has no '{name}', expected it among {', '.join(columns)}")
    return list(columns).index(name)


def _json_spans(path: Path, section: TaggedSection, has_labels: bool) -> TaggedTexts:
    text = section.text or JSON_TEXT
    table = read_columns(path, [text], [section.label] if section.label else SPANS, texts=[text])
    name = next((name for name in ([section.label] if section.label else SPANS) if name in table.cells), None)
    if name is None and not has_labels:
        return TaggedTexts(table.cells[text], None, table.line_numbers, False, "BIO", list(table.notes))
    if name is None:
        raise DataError(f"{path}: has no column of spans, expected '{section.label or SPANS[0]}': a list of "
                        '{"start": 0, "end": 5, "label": "PER"}')  # fmt: skip
    rows, cut = [], []
    for row, value in enumerate(table.cells[text]):
        line = int(table.line_numbers[row])
        places = word_places(value, False)
        spans = []
        cells = _list(path, line, name, table.cells[name][row])
        for start, end, kind in sorted(_span(path, line, name, cell, value) for cell in cells):
            if spans and start < spans[-1][1]:
                got = f"the spans {spans[-1][:2]} and {(start, end)} overlap"
                raise DataError(f"{path}:{line}: {name}: {got}, expected one label a character")
            spans.append((start, end, kind))
        starts, ends = [place[0] for place in places], [place[1] for place in places]
        found = []
        for start, end, kind in spans:
            first, last = int(np.searchsorted(ends, start, "right")), int(np.searchsorted(starts, end, "left"))
            if first >= last or starts[first] != start or ends[last - 1] != end:
                cut.append(line)
            if first < last:
                found.append(Span(first, last, kind))
        rows.append(tags_of(found, len(places)))
    notes = []
    if cut:
        what = "a span begins or ends" if len(cut) == 1 else f"{len(cut):,} spans begin or end"
        notes.append(f"{path.name}: {what} within a word or at a space (line {cut[0]}), and the whole words are taken")
    return TaggedTexts(table.cells[text], rows, table.line_numbers, False, "BIO", [*table.notes, *notes])


def _list(path: Path, line: int, name: str, cell: Any) -> list:
    if not isinstance(cell, list):
        raise DataError(f"{path}:{line}: '{name}' is {shown(cell, 60)}, expected a list of spans")
    return cell


def _span(path: Path, line: int, name: str, cell: Any, text: str) -> tuple[int, int, str]:
    if isinstance(cell, list | tuple) and len(cell) == 3:
        cell = dict(zip(("start", "end", "label"), cell))
    keys = {"start": int, "end": int, "label": str}
    kind = None if not isinstance(cell, dict) else cell.get("label", cell.get("type"))
    values = (None, None, None) if not isinstance(cell, dict) else (cell.get("start"), cell.get("end"), kind)
    if any(type(value) is not wanted for value, wanted in zip(values, keys.values())) or not values[2].strip():
        expected = '{"start": number, "end": number, "label": text}'
        raise DataError(f"{path}:{line}: {name}: got {shown(cell, 60)}, expected {expected}")
    start, end, kind = values
    if not 0 <= start < end <= len(text):
        expected = f"0 <= start < end <= {len(text)}, the text's characters"
        raise DataError(f"{path}:{line}: {name}: got start {start} and end {end}, expected {expected}")
    return start, end, kind.strip()


def found_types(rows: Sequence[Sequence[str]]) -> set[str]:
    """The types of the spans of BIO tags."""
    return {parts_of(tag)[1] for row in rows for tag in row if tag != OUTSIDE}
