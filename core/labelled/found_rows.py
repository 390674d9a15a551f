"""Which rows of a task the records of a file are of: by their texts, by ids or by their numbers; what is told of the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.answer_files import IDS, read_questions
from ..data.labels import listed
from ..data.numbered_rows import MixedRows, row_lines
from ..data.tables import read_columns
from ..data.task_specs import TaskSpec
from ..data.tasks import Examples
from ..data.texts import Texts
from ..errors import DataError
from ..file_section import FileSection
from ..shown import shown
from .labelled_file import Answers, LabelledFile
from .row_keys import aux_name, id_key, row_key, text_key

SHOWN = 5
"""How many lines or reasons are told."""


@dataclass(frozen=True)
class Join:
    """What is joined with what."""

    file: LabelledFile
    section: FileSection
    spec: TaskSpec
    key: str
    """The recipe's of the section."""
    data: Path
    """The task's folder."""


def texts_of(examples: Examples) -> list[Any]:
    pairs, of_words = [None] * len(examples) if examples.pairs is None else examples.pairs, examples.by_spaces is not None
    return [text_key(text, pair, of_words) for text, pair in zip(examples.texts, pairs)]


def _keys_of(join: Join, examples: Examples, split: str) -> list[Any]:
    """What each row is found by, None where it is not in the file for sure."""
    if not join.file.by_id:
        return texts_of(examples)
    spec, key = join.spec, "id" if join.section.row_numbers is None else "row_numbers"
    if spec.own is not None:
        way = "rows are found by their texts (id: null, row_numbers: null)"
        raise DataError(f"{join.key}.{key}: the task's plugin reads its data itself; {way}")
    if spec.answering is not None:
        return _keys_of_questions(join, examples, split)
    own = _ids(join, split) if join.section.row_numbers is None else _numbers(join, split)
    count, lines = len(examples) - examples.mixed, examples.line_numbers.tolist()
    return [*(own.get(line) for line in lines[:count]), *_keys_of_mixed(join, examples.mixed_rows, lines[count:])]


def _keys_of_mixed(join: Join, rows: MixedRows | None, lines: Sequence[int]) -> list[str | None]:
    """The same of rows of `aux_data`, which stand in these `lines` of their files, and have no ids of the task's."""
    if rows is None or join.section.row_numbers is None:
        return [None] * len(lines)
    numbers = []
    for section, (places, source) in enumerate(zip(rows.lines, rows.sources)):
        _check_numbers(join, aux_name(section), source.name, places.tolist())
        of_section = enumerate(places.tolist(), join.section.row_numbers)
        numbers.append({line: row_key(aux_name(section), number) for number, line in of_section})
    return [numbers[section].get(line) for section, line in zip(rows.sections.tolist(), lines)]


def _keys_of_questions(join: Join, examples: Examples, split: str) -> list[str | None]:
    """The same of questions, of which a file may have several in a line."""
    path = join.data / join.spec.splits[split]
    if join.section.row_numbers is None:
        if join.section.id not in IDS:
            expected = "expected id or query_id, which questions have theirs under"
            raise DataError(f"{join.key}.id: got {shown(join.section.id)}, {expected}")
        return [id_key(own) for own in examples.asked.ids]
    found = read_questions(path, join.spec.answering, False, False)
    _check_numbers(join, split, path.name, found.lines)
    numbers = {own: row_key(split, number) for number, own in enumerate(found.ids, join.section.row_numbers)}
    return [numbers.get(own) for own in examples.asked.ids]


def _numbers(join: Join, split: str) -> dict[int, str]:
    """Line -> the number of its row, of all rows of a split's file, also those that are not used. Raises DataError for a number
    in the file of answers that is no row's."""
    spec, first = join.spec, join.section.row_numbers
    path = join.data / spec.splits[split]
    lines = row_lines(path, spec)
    _check_numbers(join, split, path.name, lines.tolist())
    return {line: row_key(split, number) for number, line in enumerate(lines.tolist(), first)}


def _check_numbers(join: Join, split: str, name: str, lines: Sequence[int]) -> None:
    """Raise DataError for a number in the file of answers that is none of a split's rows, which begin in these `lines` of the
    file `name`."""
    first = join.section.row_numbers
    for own, answers in join.file.by_key.items():
        named, _, number = own.rpartition(" ")
        if named == split and not first <= int(number) < first + len(lines):
            told = f"{name} has the rows {first} to {first + len(lines) - 1}, the first of them in line {lines[0]}"
            raise DataError(f"{join.file.path}:{answers.line}: got row {number} of {split}, but {told}")


def joined(join: Join, examples: Examples, split: str, cost: np.ndarray) -> Iterator[tuple[int, Answers]]:
    """The rows of a split that the file has something of, each with what that is; their `cost`, (rows, 3), is filled in. Raises
    DataError."""
    for row, key in enumerate(_keys_of(join, examples, split)):
        answers = None if key is None else join.file.by_key.get(key)
        if answers is not None:
            answers.found = True
            _check_text(join, answers, examples, row)
            cost[row] = answers.cost
            yield row, answers


def _check_text(join: Join, answers: Answers, examples: Examples, row: int) -> None:
    """Raise DataError where a record that is joined by its row's number has another text than that row."""
    if join.section.row_numbers is None or answers.text is None or answers.text == _text_of(examples, row):
        return
    got = answers.text if isinstance(answers.text, str) else answers.text[0]
    own = len(examples) - examples.mixed
    source = examples.source if row < own else examples.mixed_rows.sources[examples.mixed_rows.sections[row - own]]
    place = f"line {examples.line_numbers[row]} of {source.name}"
    near = [each for each in (row - 1, row + 1) if 0 <= each < len(examples)]
    shifted = answers.text in (_text_of(examples, each) for each in near)
    way = f"; is {join.key}.row_numbers: {1 - join.section.row_numbers} meant?" if shifted else ""
    raise DataError(
        f"{join.file.path}:{answers.line}: its text {shown(got, 60)} is not that of its row's number, "
        f"{shown(examples.texts[row], 60)} ({place}){way}"
    )


def _text_of(examples: Examples, row: int) -> Any:
    pair = None if examples.pairs is None else examples.pairs[row]
    return text_key(examples.texts[row], pair, examples.by_spaces is not None)


def _ids(join: Join, split: str) -> dict[int, str]:
    """Line -> id, of the column that the recipe names."""
    spec, column = join.spec, join.section.id
    path = join.data / spec.splits[split]
    try:
        columns = read_columns(path, [column], header=spec.header, format=replace(spec.format, options=()))
    except DataError as error:
        way = f"where the file's ids are numbers of the task's rows: {join.key}.row_numbers, 0 or 1 of the first, in place of id"
        raise DataError(f"{join.key}.id: {error}; {way}") from None
    first: dict[str, int] = {}
    of_line = {}
    for line, cell in zip(columns.line_numbers.tolist(), columns.cells[column]):
        own = id_key(cell)
        other = first.setdefault(own, line)
        if other != line:
            raise DataError(f"{path}:{line}: the id {shown(cell)} in '{column}' is that of line {other} too")
        of_line[line] = own
    return of_line


def rows_of(examples: Examples, rows: np.ndarray) -> Examples:
    """Some of the examples, which have one text, or pair of texts, each."""

    def some(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[rows]

    return replace(
        examples,
        texts=Texts(examples.texts[row] for row in rows),
        pairs=None if examples.pairs is None else Texts(examples.pairs[row] for row in rows),
        labels=some(examples.labels),
        line_numbers=examples.line_numbers[rows],
        label_mask=some(examples.label_mask),
        weights=some(examples.weights),
        by_spaces=some(examples.by_spaces),
        word_counts=some(examples.word_counts),
        asked=None if examples.asked is None else examples.asked.of(rows),
        taught={name: taught.of(rows) for name, taught in examples.taught.items()},
        mixed_rows=_mixed(examples, rows),
    )


def _mixed(examples: Examples, rows: np.ndarray) -> MixedRows | None:
    own = len(examples) - examples.mixed
    return None if examples.mixed_rows is None else examples.mixed_rows.of(rows[rows >= own] - own)


def nothing_joined(join: Join, examples: Mapping[str, Examples]) -> str:
    file, section = join.file, join.section
    some = next(iter(file.by_key))
    sources = " or ".join(own.source.name for own in examples.values())
    what = f"the id {shown(some)}" if file.by_id else f"the text {shown(some if isinstance(some, str) else some[0])}"
    way = "a row is found by its text as it is, but for white space"
    if file.by_id:
        way = f"'{section.id}' of the task's tables has other ids"
        if section.row_numbers is not None:
            way = "rows are those of train, and of another split where the id says so, as dev-5"
    line = file.by_key[some].line
    return f"{file.path}:{line}: {what} is none of {sources}, and so is everything else in the file; {way}"


def file_lines(join: Join, unasked: int) -> list[str]:
    """What is told of a file by itself."""
    file = join.file
    what = "questions" if join.spec.kind.of_spans else "texts"
    parts = [f"{file.path.name}: {file.rows:,} rows, {len(file.by_key):,} {what}"]
    if file.repeated:
        votes = join.section.repeated == "votes"
        parts.append(f"{file.repeated:,} rows {'are more votes on' if votes else 'repeat'} a text")
    if file.abstained:
        parts.append(f"{sum(file.abstained.values()):,} without an answer ({_counted(file.abstained)})")
    if file.other_labels:
        count = sum(file.other_labels.values())
        parts.append(f"{count:,} with labels that are no class ({listed(list(file.other_labels))}), taken for no answer")
    if unasked:
        parts.append(f"{unasked:,} {what} that the task does not have")
    return ["; ".join(parts)]


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason}: {count:,}" for reason, count in reasons.most_common(SHOWN))


def place_of(examples: Examples, row: int) -> str:
    """File and line of an example of train, for an error."""
    return f"{examples.source if row < len(examples) - examples.mixed else 'aux_data'}:{examples.line_numbers[row]}"


def lines_of(examples: Examples, rows: np.ndarray) -> str:
    """The lines of the first of some examples."""
    return ", ".join(map(str, examples.line_numbers[rows[:SHOWN]])) + (", ..." if len(rows) > SHOWN else "")


def about_file(file: LabelledFile, unasked: int, splits: Mapping[str, Any]) -> dict[str, Any]:
    """What result.json says of the file: rows, why there is no answer, what each split has, and what a thousand texts cost."""
    costs = np.array([answers.cost for answers in file.by_key.values()])
    known = [None if np.isnan(column).all() else float(np.nanmean(column) * 1000) for column in costs.T]
    return {
        "file": str(file.path),
        "rows": file.rows,
        "texts": len(file.by_key),
        "repeated": file.repeated,
        "abstained": dict(file.abstained),
        "other_labels": dict(file.other_labels.most_common(20)),
        "not_in_task": unasked,
        "splits": splits,
        "per_thousand_texts": dict(zip(("tokens_read", "tokens_written", "cost"), known)),
    }
