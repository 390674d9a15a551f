"""Rows that answer in more than one place, as rows of labelled data do to which a model's answer was added: they say the same
everywhere, or which place is meant must be told. Of whole texts, words and questions alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..data.labels import label_key
from ..shown import shown
from .interfaces import NoAnswer
from .said import BadRecord, NotRead, Reading, Said

WRAPPERS = ("response", "result", "output", "modelOutput", "completion", "body", "message")
"""What an interface's response is called in a row."""
RESPONSES = (*WRAPPERS, "choices", "candidates", "outputs", "content")
"""The same, and what a response has itself."""
_NUMBERS = ("logits", "log_probabilities", "probabilities", "votes")

Row = Mapping[str, Any]


def answer_in(row: Row, own: Reading, column: str) -> dict[str, Any]:
    """A row that answers in one column alone."""
    others = {name for what in (*own.answers, *_NUMBERS, "labels") for name in own.names.get(what, ())} | set(RESPONSES)
    return {name: cell for name, cell in row.items() if name == column or name not in others}


def checked(
    row: Row, own: Reading, said: list[Said], base: str | None, key: str, read: Callable[[Row], list[Said]]
) -> list[Said]:
    """What a row says, which is `said`; `read` finds what another one says. Of two columns that say the same it is the one that
    tells more. Places are of `base`. Raises BadRecord, with the recipe's `key` of the file, where two do not say the same."""
    columns = [name for what in own.answers for name in own.names[what] if name in row and _answers(own, row, name)]
    responses = [name for name in RESPONSES if _is_response(row, name)]
    numbers = any(row.get(name) for what in _NUMBERS for name in own.names.get(what, ()))
    if not columns or len(columns) + len(responses) < 2 or numbers:
        return said
    first = columns[0]
    words = own.texts(said, base)
    for name in (*columns[1:], *responses):
        try:
            other = read(answer_in(row, own, name))
        except (NoAnswer, BadRecord) as error:
            if isinstance(error, NotRead) and not isinstance(row[name], str):
                continue  # nothing that a model has said
            other = []
        told = own.texts(other, base)
        if _keys(words) == _keys(told):
            said = other if _tells_more(other) else said
        elif name in columns or not _within(words, other, own):
            raise BadRecord(
                f"holds two answers, '{first}': {_shown(words)} and '{name}': {_shown(told)}; "
                f"{key}.columns says which is meant: {{label: {first}}} or {{label: {name}}}"
            )
    return said


def _answers(own: Reading, row: Row, name: str) -> bool:
    """Whether a column answers; one that says whether a question has an answer does where it has none."""
    return name not in own.names.get("impossible", ()) or row[name] is True


def _is_response(row: Row, name: str) -> bool:
    """Whether a column holds what an interface returned; as text only where its name says so."""
    value = row.get(name)
    if name in ("message", "body"):
        return isinstance(value, Mapping)
    return bool(value) and (name in WRAPPERS or isinstance(value, list))


def _keys(texts: list[str]) -> set[str]:
    return {label_key(text) for text in texts}


def _within(words: list[str], other: list[Said], own: Reading) -> bool:
    """Whether a response is a longer text, out of which a class may have been taken."""
    texts = [each.label for each in other if isinstance(each.label, str) and not each.form]
    alone = len(words) == 1 and words[0] and texts and len(texts) == len(other) and not own.whole
    return bool(alone) and all(label_key(words[0]) in label_key(text) for text in texts)


def _shown(texts: list[str]) -> str:
    told = ", ".join(texts)
    return shown(told, 60) if told else "no answer"


def _tells_more(said: list[Said]) -> bool:
    return len(said) > 1 or any(each.tokens is not None or each.form in _NUMBERS for each in said)
