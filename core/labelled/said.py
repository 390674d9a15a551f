"""What is said of a text: an answer as a file has it, and how its cells are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..data.labels import number_of
from .interfaces import Tokens

Names = Mapping[str, tuple[str, ...]]


class BadRecord(Exception):
    """What is wrong with a record, for an error that names its line."""


class NotRead(BadRecord):
    """A record in which nothing is known as an answer."""


@dataclass
class Said:
    """One answer: a label, numbers of the classes, or both."""

    label: Any = None
    numbers: Any = None
    """A mapping of classes, or a list in their order."""
    form: str = ""
    """What the numbers are: `probabilities`, `log_probabilities`, `logits`, `votes`; empty where there are none. Of words, whose
    numbers are a list with those of each, `label` may also be a list: of `spans`, or `labels` of each word. Of questions it is a
    list of answers, which have their numbers themselves; `answer` is a single one without."""
    tokens: Tokens | None = None
    """Those among which the label's first token was chosen."""
    confidence: float | None = None


@dataclass(frozen=True)
class Reading:
    """How the answers of a kind of task stand in a row."""

    names: Names
    """What the columns may be called."""
    of_columns: Callable[[Mapping[str, Any], Names], list[Said] | None]
    """The answers that a row names itself, or None."""
    of_list: Callable[[list], Mapping[str, Any]]
    """A list that is an answer as a row."""
    lists: tuple[str, ...]
    """Of these names, those under which a list or nothing stands."""
    expected: str
    """What a row should hold, in words."""
    answers: tuple[str, ...]
    """Of these names, those of columns of which each is an answer by itself."""
    texts: Callable[[list[Said], str | None], list[str]]
    """What is said in words, for comparing it with another column; places are of the text."""
    whole: bool = False
    """Whether marks around the text of a response may be part of the answer, and a longer one is another answer."""


@dataclass
class PartsRead:
    """What a row says of parts of a text, with the task's labels in place of the file's."""

    line: int
    base: str | None
    """The row's own text, which places are of; None: that of the task."""
    confidence: float | None = None
    why_not: str = ""
    """Why there is no answer."""


def first_of(row: Mapping[str, Any], what: str, names: Names) -> Any:
    return next((row[name] for name in names[what] if name in row), None)


def parsed(value: Any) -> Any:
    """A cell of a table that holds JSON."""
    return json_of(value) if isinstance(value, str) and value.strip()[:1] in ("{", "[") else value


def parsed_or_text(value: Any) -> Any:
    """The same of a cell that may also be a text in brackets, as a part of a text can be: `[1]` is one."""
    try:
        found = parsed(value)
    except BadRecord:
        return value
    if isinstance(value, str) and isinstance(found, list) and not all(isinstance(each, str | Mapping | None) for each in found):
        return value
    return found


def json_of(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise BadRecord(f"got {json.dumps(text)[:80]}, expected JSON") from None


def number_from(value: Any, what: str) -> float:
    number = number_of(value)
    if isinstance(value, bool) or math.isnan(number) or number < 0:
        raise BadRecord(f"'{what}': got {json.dumps(value)[:60]}, expected a number from 0 on")
    return number
