"""Files of questions with answers that are parts of a text: SQuAD's JSON (1.1 and 2.0), CMRC 2018's, which is the same or
has `context_text` and `query_text` in place of `context` and `question`, and JSON lines with a question each.

Places are counted in characters. An answer has to be where its file says that it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..json_files import json_lines, read_json
from ..shown import plain, shown
from .answer_format import AnswerFormat
from .tables import is_half
from .texts import Texts

FILES = (".json", ".jsonl")
_MOST_BYTES = 1 << 30
"""SQuAD's largest file has 42 million."""
CONTEXTS, QUESTIONS, IDS = ("context", "context_text"), ("question", "query_text", "query"), ("id", "query_id")
"""What contexts, questions and their ids are called."""
_ANSWERS, _STARTS = ("answers", "answer"), ("answer_start", "start")
_NOWHERE = -1


@dataclass
class Questions:
    """Questions in the order of the file."""

    questions: Texts = field(default_factory=Texts)
    contexts: Texts = field(default_factory=Texts)
    ids: list[str] = field(default_factory=list)
    golds: list[tuple[str, ...]] = field(default_factory=list)
    """Of each question the answers that are right; none where the context does not tell, or where the file tells none."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """(start, end) of the first answer in characters of the context; -1 without one."""
    lines: list[int] = field(default_factory=list)
    """Where each stands: the line, of JSON the number of the question from 1."""
    told: bool = True
    """Whether the file tells answers."""
    notes: list[str] = field(default_factory=list)

    @property
    def targets(self) -> np.ndarray | None:
        """`places` as (questions, 2) int32; None where the file tells none."""
        return np.array(self.places, np.int32).reshape(-1, 2) if self.told else None


@dataclass
class _Misplaced:
    """Answers that are not where their file says."""

    moved: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def read_questions(path: Path, format: AnswerFormat, needs_answers: bool = True, reads_answers: bool = True) -> Questions:
    """The questions of a file. Without `needs_answers` they may have none, and without `reads_answers` none is looked at. Raises
    DataError, which names file and question."""
    if path.suffix.lower() not in FILES:
        raise DataError(f"{path}: unknown kind of file, expected one of {', '.join(FILES)}")
    found, seen, misplaced = Questions(), {}, _Misplaced()
    untold: list[str] = []
    for number, (where, line, context, raw) in enumerate(_questions(path, format), 1):
        question = _text(raw, _keys(format.question, QUESTIONS), where)
        name = _id(raw, where, number)
        if any(key in raw for key in IDS):
            where = f"{path}:{line}: {name}" if path.suffix.lower() == ".jsonl" else f"{path}: {name}"
        if name in seen:
            raise DataError(f"{where}: the id is there twice, in questions {seen[name]} and {number}; expected one question each")
        seen[name] = number
        answers = _answers(raw, format, where) if reads_answers else None
        if answers is None:
            if needs_answers and reads_answers:
                raise DataError(f"{where}: '{format.answers}' is missing, expected a list of answers")
            untold.append(name)
            places = []
        else:
            _check_none(raw, answers, format, where)
            places = [_place(context, text, start, where, format, misplaced) for text, start in answers]
            if places:
                places = [place for place in places if place is not None]
                if not places:  # of several answers, one that is nowhere is still a right one to be scored with
                    misplaced.missing.append(name)
                    continue
        found.questions.append(question)
        found.contexts.append(context)
        found.ids.append(name)
        found.golds.append(tuple(text for text, _ in answers or ()))
        found.places.append(places[0] if places else (_NOWHERE, _NOWHERE))
        found.lines.append(line)
    if untold and len(untold) < len(found.ids):
        raise DataError(f"{path}: {untold[0]}: '{format.answers}' is missing, and other questions have it")
    found.told = not untold
    if not found.ids:
        raise DataError(f"{path}: holds no questions{' whose answer is in the context' if misplaced.missing else ''}")
    found.notes += _notes(path, misplaced)
    return found


def _notes(path: Path, misplaced: _Misplaced) -> list[str]:
    notes = []
    if names := misplaced.moved:
        count = "1 answer is" if len(names) == 1 else f"{len(names):,} answers are"
        notes.append(f"{path.name}: {count} not where the file says, and taken at the nearest place ({names[0]})")
    if names := misplaced.missing:
        count = "1 question is" if len(names) == 1 else f"{len(names):,} questions are"
        notes.append(f"{path.name}: {count} left out, whose answers are not in the context ({names[0]})")
    return notes


def _questions(path: Path, format: AnswerFormat) -> Iterator[tuple[str, int, str, dict]]:
    """(where it is, its line or number, context, question) of each question."""
    try:
        if path.suffix.lower() == ".jsonl":
            for line, item in json_lines(path, DataError):
                for where, context, raw in _of_item(item, f"{path}:{line}", format):
                    yield where, line, context, raw
            return
        content = read_json(path, DataError, _MOST_BYTES)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    items, at = (content.get("data"), "data") if isinstance(content, dict) else (content, "")
    if not isinstance(items, list):
        got = f"data: {shown(items, 40)}" if isinstance(content, dict) and "data" in content else shown(content, 40)
        raise DataError(f"{path}: got {got}, expected {{\"data\": [...]}} as SQuAD has it, or a list of contexts or questions")
    number = 0
    for index, item in enumerate(items):
        for where, context, raw in _of_item(item, f"{path}: {at}[{index}]", format):
            number += 1
            yield where, number, context, raw


def _of_item(item: Any, where: str, format: AnswerFormat) -> Iterator[tuple[str, str, dict]]:
    """The questions of an article, a context or a question."""
    item = _object(item, where)
    if "paragraphs" in item:
        for index, part in enumerate(_list(item["paragraphs"], f"{where}.paragraphs")):
            yield from _of_item(part, f"{where}.paragraphs[{index}]", format)
        return
    context = _text(item, _keys(format.context, CONTEXTS), where)
    if not context.strip():
        raise DataError(f"{where}: the context is empty, expected a text")
    if "qas" not in item:
        yield where, context, item
        return
    for index, raw in enumerate(_list(item["qas"], f"{where}.qas")):
        yield f"{where}.qas[{index}]", context, _object(raw, f"{where}.qas[{index}]")


def _object(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise DataError(f"{where}: got {shown(value, 60)}, expected an object")
    return value


def _list(value: Any, where: str) -> list:
    if not isinstance(value, list):
        raise DataError(f"{where}: got {shown(value, 60)}, expected a list")
    return value


def _keys(named: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Under which keys a text may be: the one that a recipe names, alone, or those of the known forms."""
    return known if named in known else (named,)


def _text(raw: dict, keys: tuple[str, ...], where: str) -> str:
    key = next((key for key in keys if key in raw), None)
    if key is None:
        there = ", ".join(plain(str(name), 30) for name in list(raw)[:8]) or "nothing"
        raise DataError(f"{where}: '{keys[0]}' is missing, expected a text; there is {there}")
    value = raw[key]
    if not isinstance(value, str):
        raise DataError(f"{where}: {key}: got {shown(value, 60)}, expected a text")
    if is_half(value):
        raise DataError(f"{where}: {key}: holds half a surrogate pair")
    return value


def _id(raw: dict, where: str, number: int) -> str:
    value = next((raw[key] for key in IDS if key in raw), number)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{where}: id: got {shown(value, 60)}, expected a text")
    return plain(str(value), 100)


def _answers(raw: dict, format: AnswerFormat, where: str) -> list[tuple[str, int | None]] | None:
    """(text, start or None) of each answer; None where the file tells nothing."""
    value = next((raw[key] for key in _keys(format.answers, _ANSWERS) if key in raw), None)
    if value is None:
        return [] if raw.get("is_impossible") is True else None
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # a column of a dataset
        starts = value.get("answer_start", value.get("start"))
        starts = [None] * len(value["text"]) if starts is None else starts
        if not isinstance(starts, list) or len(starts) != len(value["text"]):
            raise DataError(f"{where}: {format.answers}: got {shown(value, 60)}, expected as many starts as texts")
        value = [{"text": text, "start": start} for text, start in zip(value["text"], starts)]
    cells = [value] if isinstance(value, dict | str) else _list(value, f"{where}: {format.answers}")
    return [_answer(cell, f"{where}: {format.answers}") for cell in cells]


def _answer(cell: Any, where: str) -> tuple[str, int | None]:
    if isinstance(cell, str):
        cell = {"text": cell}
    text = cell.get("text") if isinstance(cell, dict) else None
    start = next((cell[key] for key in _STARTS if key in cell), None) if isinstance(cell, dict) else None
    if not isinstance(text, str) or type(start) not in (int, type(None)):
        raise DataError(f'{where}: got {shown(cell, 60)}, expected {{"text": text, "answer_start": number}}')
    if not text.strip():
        raise DataError(f"{where}: got the text {shown(text)}, expected a part of the context")
    return text, start


def _check_none(raw: dict, answers: list, format: AnswerFormat, where: str) -> None:
    """Raise DataError where a question has no answer and should, or has one and should not."""
    impossible = raw.get("is_impossible", False)
    if not isinstance(impossible, bool):
        raise DataError(f"{where}: is_impossible: got {shown(impossible, 60)}, expected true or false")
    if impossible and answers:
        raise DataError(f"{where}: is_impossible is true, but there is the answer {shown(answers[0][0], 60)}")
    if not answers and not format.unanswerable:
        raise DataError(
            f"{where}: got a question without an answer, expected one; task.answers.unanswerable: true is for data that has such"
        )


def _place(
    context: str, text: str, start: int | None, where: str, format: AnswerFormat, misplaced: _Misplaced
) -> tuple[int, int] | None:
    """Where an answer is; None where the context has it nowhere, which is counted."""
    if start is not None and start >= 0 and context[start : start + len(text)] == text:
        return start, start + len(text)
    first = context.find(text)
    if start is None and first >= 0:  # CMRC's own form names no place: the first one is meant
        return first, first + len(text)
    if not format.nearest:
        if first < 0:
            raise DataError(
                f"{where}: the answer {shown(text, 60)} is not in the context{_more(format)}"
            )
        got = shown(context[start : start + len(text)], 60) if 0 <= start < len(context) else "nothing"
        raise DataError(
            f"{where}: answer_start {start}: got {got} there, expected {shown(text, 60)}, which begins at character {first}"
            f"{_more(format)}"
        )
    if first < 0:
        return None
    places, at = [], first
    while at >= 0:
        places.append(at)
        at = context.find(text, at + 1)
    nearest = min(places, key=lambda place: abs(place - start))
    misplaced.moved.append(where.rpartition(": ")[2])
    return nearest, nearest + len(text)


def _more(format: AnswerFormat) -> str:
    return "; task.answers.misplaced: nearest takes the nearest place, and leaves out what the context does not have"
