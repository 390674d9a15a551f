"""The answers that a row names itself, where each is a part of a text: by its words, with or without its place, one or several
with votes or probabilities, or none. Where the words stand is found where the text is known (`answer_places`)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..json_files import is_number
from .class_records import NAMES as OF_TEXTS
from .said import BadRecord, Names, Reading, Said, first_of, number_from, parsed, parsed_or_text

NAMES = {
    "label": ("answer", "answers", "prediction", "prediction_text", "predicted_answer", "label", "labels"),
    **{what: OF_TEXTS[what] for what in ("probabilities", "log_probabilities", "votes", "cost")},
    "confidence": (*OF_TEXTS["confidence"], "probability"),
    "impossible": ("is_impossible",),
}
_TEXTS, _STARTS, _ENDS = ("text", "answer", "answer_text", "span"), ("answer_start", "start"), ("answer_end", "end")
_SHARES = {
    "probabilities": ("probability", "score", "confidence"),
    "log_probabilities": ("log_probability", "logprob"),
    "votes": ("votes", "count"),
}
"""What an answer of several has as its number."""
_MORE_THAN_ALL = 1e-3
"""By how much probabilities may sum to more than 1, of rounded numbers."""


@dataclass(frozen=True)
class AnswerSaid:
    """A part of a text by its words, and from which character to which it is, where that is told."""

    text: str | None
    """None: the text has no answer."""
    start: int | None = None
    end: int | None = None
    share: float = 1.0
    """Of all answers of the row: how probable it is, or how many have said so."""


def of_columns(row: Mapping[str, Any], own: Names) -> list[Said] | None:
    """The answers that a row names itself, or None."""
    confidence = first_of(row, "confidence", own)
    confidence = None if confidence in (None, "") else number_from(confidence, "confidence")
    column = next((name for name in own["label"] if name in row), None)
    impossible = any(row.get(name) is True for name in own["impossible"])
    cells = None if column is None else parsed_or_text(row[column])
    cells = None if column in NAMES["impossible"] and cells is True else cells  # the only one that is meant
    for what in ("log_probabilities", "probabilities", "votes"):
        value = parsed(first_of(row, what, own))
        if value is None or (what == "log_probabilities" and not isinstance(value, Mapping | list)):
            continue
        if isinstance(value, Mapping) and "content" in value and not isinstance(value["content"], int | float):
            continue  # of tokens, as chats have them
        return [Said(_with_numbers(value, cells, what), None, what, None, confidence)]
    if column is None and not impossible:
        return None
    beside = {name: row[name] for name in (*_STARTS, *_ENDS) if name in row}
    if beside and (isinstance(cells, str) or cells is None):  # as pipelines of transformers answer
        cells = None if cells is None else {"text": cells, **beside}
    answers, form = _listed(cells, column or "is_impossible")
    if impossible and any(answer.text is not None for answer in answers):
        raise BadRecord(f"is_impossible is true, but '{column}' has an answer: {json.dumps(row[column])[:80]}")
    return [Said(answers, None, form, None, confidence)]


def _listed(cells: Any, column: str) -> tuple[list[AnswerSaid], str]:
    """The answers of a cell, of which one says no more than that there is none, and what their numbers are."""
    if isinstance(cells, Mapping) and any(isinstance(cells.get(name), list) for name in _TEXTS):  # a column of a dataset
        texts = next(cells[name] for name in _TEXTS if isinstance(cells.get(name), list))
        starts = next((cells[name] for name in _STARTS if isinstance(cells.get(name), list)), [None] * len(texts))
        if len(starts) != len(texts):
            raise BadRecord(f"'{column}': got {json.dumps(cells)[:80]}, expected as many starts as texts")
        cells = [{"text": text, "start": start} for text, start in zip(texts, starts)]
    if not isinstance(cells, list):
        return [_answer(cells, column)[0]], "answer"
    found = [_answer(cell, column) for cell in cells] or [(AnswerSaid(None), "")]
    forms = {form for _, form in found}
    if len(forms) > 1:
        expected = "expected a number of the same kind for each answer, or for none"
        raise BadRecord(f"'{column}': got {json.dumps(cells)[:80]}, {expected}")
    form = forms.pop()
    return _checked([answer for answer, _ in found], form, cells), form or ("votes" if len(found) > 1 else "answer")


def _answer(cell: Any, column: str) -> tuple[AnswerSaid, str]:
    """An answer, and what its number is."""
    if cell is None or cell == "" or cell == {}:
        return AnswerSaid(None), ""
    if isinstance(cell, str) and cell.strip():
        return AnswerSaid(cell.strip()), ""
    expected = 'a text, {"text": text, "answer_start": number}, or null, where the context has none'
    if not isinstance(cell, Mapping):
        raise BadRecord(f"'{column}': got {json.dumps(cell)[:80]}, expected {expected}")
    text = next((cell[name] for name in _TEXTS if name in cell), None)
    start, end = (next((cell[name] for name in names if cell.get(name) is not None), None) for names in (_STARTS, _ENDS))
    form = next((what for what, names in _SHARES.items() if any(cell.get(name) is not None for name in names)), "")
    share = 1.0 if not form else _number(next(cell[name] for name in _SHARES[form] if cell.get(name) is not None), form)
    known = all(type(place) in (int, type(None)) for place in (start, end)) and isinstance(text, str | None)
    if known and text is not None and text.strip():
        if start is None:
            text = text.strip()
        elif end is not None and end - start != len(text):
            told = f"got {json.dumps(dict(cell))[:100]}: from {start} to {end} are {end - start} characters"
            raise BadRecord(f"'{column}': {told}, expected {len(text)}, those of the text")
        return AnswerSaid(text, start, None if start is None else start + len(text), share), form
    if known and text is None and start is not None and end is not None and 0 <= start < end:
        return AnswerSaid("", start, end, share), form
    if known and (text is None or not text.strip()) and (start is None or start <= 0) and any(name in cell for name in _TEXTS):
        return AnswerSaid(None, share=share), form
    raise BadRecord(f"'{column}': got {json.dumps(dict(cell))[:80]}, expected {expected}")


def _with_numbers(value: Any, cells: Any, what: str) -> list[AnswerSaid]:
    """Answers with a number each: a mapping, or a list beside that of the answers; of votes also a list of what was said."""
    if isinstance(value, Mapping):
        found = [AnswerSaid(text.strip() or None, share=_number(number, what)) for text, number in value.items()]
        return _checked(found, what, value)
    if isinstance(value, list) and isinstance(cells, list) and len(cells) == len(value) and all(map(is_number, value)):
        found = [replace(_answer(cell, "answers")[0], share=_number(number, what)) for cell, number in zip(cells, value)]
        return _checked(found, what, value)
    if what == "votes" and isinstance(value, list) and value:
        return [_answer(cell, what)[0] for cell in value]
    expected = "a mapping of answers to numbers, or a list of numbers beside a list of answers"
    raise BadRecord(f"'{what}': got {json.dumps(value)[:80]}, expected {expected}")


def _checked(answers: list[AnswerSaid], form: str, given: Any) -> list[AnswerSaid]:
    total = sum(answer.share for answer in answers)
    if not total or (form in ("probabilities", "log_probabilities") and total > 1 + _MORE_THAN_ALL):
        told = {"log_probabilities": "logarithms of probabilities, which sum to 1 at most",
                "probabilities": "probabilities, which sum to 1 at most"}  # fmt: skip
        raise BadRecord(f"got {json.dumps(given)[:120]}, expected {told.get(form, 'numbers from 0 on, one of them above')}")
    return answers


def _number(value: Any, what: str) -> float:
    """How much an answer of several counts."""
    if what != "log_probabilities":
        return number_from(value, what)
    if not is_number(value) or math.isnan(value):
        raise BadRecord(f"'{what}': got {json.dumps(value)[:60]}, expected the logarithm of a probability")
    return math.exp(min(value, 1.0))


def texts_of(said: list[Said], base: str | None) -> list[str]:
    """The words of answers, empty where there is none."""
    answers = [AnswerSaid(each.label) if isinstance(each.label, str) else each.label for each in said]
    given = [answer for each in answers for answer in (each if isinstance(each, list) else [each])]
    return sorted({answer.text or (base or "")[slice(answer.start or 0, answer.end or 0)] for answer in given})


_EXPECTED = "an answer, answers with votes or probabilities"
OF_QUESTIONS = Reading(
    NAMES, of_columns, lambda items: {"answers": items}, ("label",), _EXPECTED, ("label", "impossible"), texts_of, True
)
