"""What one record of a file says, whoever wrote it: the answers in it, what they cost, and why there is none.

A record is a row with columns of one's own, or what an interface returns, on its own or as the `response` (`result`, `output`) of
a row: chat completions and completions as OpenAI, vLLM, Together and others have them, responses of OpenAI's later interface,
messages of Anthropic, candidates of Gemini, chats of Ollama, outputs of vLLM's Python interface, and a line of a batch's output
that wraps one of them. Texts of an answer may be a label, or JSON that holds one; what a model thought before is left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .class_records import OF_CLASSES
from .interfaces import READERS, NoAnswer, Texts, Tokens, Written
from .one_answer import RESPONSES, WRAPPERS, answer_in, checked
from .said import BadRecord, NotRead, Reading, Said, first_of, json_of, number_from, parsed_or_text

_THOUGHT = re.compile(r"^\s*<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL)
_FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
AROUND = " \t\r\n\"'`*.!。！“”‘’「」『』《》"
IDS = ("custom_id", "id", "key", "recordId")
_SCORES = ("score", "value", "rating")
_ANSWERS = ("label", "labels", "spans", "probabilities", "log_probabilities", "logits", "votes")
"""Of these, what an answer may be."""


@dataclass
class Record:
    """What a line says."""

    said: list[Said] = field(default_factory=list)
    """Several where a model was asked for several."""
    why_not: str = ""
    """Why there is no answer."""
    read: float = math.nan
    written: float = math.nan
    """Tokens."""
    cost: float = math.nan


def record_of(
    row: Mapping[str, Any],
    columns: Mapping[str, str],
    reading: Reading = OF_CLASSES,
    number: bool = False,
    base: str | None = None,
    key: str = "teacher.file",
) -> Record:
    """What a row says, as `reading` has it; `columns` are the names that differ from the usual ones. With `number` the answer is
    one, and may be called a score. Places in it are of `base`; `key` is the recipe's of the file. Raises BadRecord."""
    found, chosen = Record(), columns.get("label")
    names = {what: (columns[what],) if what in columns else usual for what, usual in reading.names.items()}
    if chosen in RESPONSES:  # of a row that names answers in another column too
        names["label"] = reading.names["label"]
    elif chosen is not None:  # no other column answers
        names |= {what: () for what in reading.answers if what not in columns}
    if number:
        names |= {"confidence": ()} | ({"label": (*_SCORES, *names["label"])} if chosen is None or chosen in RESPONSES else {})
    own = replace(reading, names=names)
    if chosen in RESPONSES:
        row = answer_in(row, own, chosen)
    cost = first_of(row, "cost", own.names)
    if cost not in (None, ""):
        found.cost = number_from(cost, "cost")
    try:
        found.said = list(_answers(row, own, found, 0))
        if not any(what in columns for what in _ANSWERS):
            found.said = checked(row, own, found.said, base, key, lambda other: list(_answers(other, own, found, 0)))
        if not found.said:
            raise NoAnswer("no answer in it")
    except NoAnswer as reason:
        found.said, found.why_not = [], str(reason)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        told = f"{type(error).__name__} {error}"[:80]
        raise BadRecord(f"looks like the response of an interface, but has another form than its ({told})") from None
    return found


def _answers(row: Mapping[str, Any], own: Reading, found: Record, depth: int) -> Iterator[Said]:
    """The answers of a row, of what it wraps, or of what an interface returned."""
    _count(row, found)
    said = own.of_columns(row, own.names)
    if said is not None:
        yield from said
        return
    for reader in READERS:
        if (texts := reader(row)) is not None:
            yield from _of_texts(texts, own)
            return
    if isinstance(row.get("error"), Mapping | str) and row["error"]:
        raise NoAnswer("an error of the interface")
    if isinstance(kind := row.get("type"), str) and kind in ("errored", "canceled", "expired"):
        raise NoAnswer(kind)
    if isinstance(status := row.get("status_code"), int) and status >= 400:
        raise NoAnswer(f"status {status}")
    for name in WRAPPERS:
        inner = row.get(name)
        if isinstance(inner, str) and name != "message" and isinstance(value := parsed_or_text(inner), Mapping):
            inner = value
        elif isinstance(inner, list) and inner:
            inner = json.dumps(inner)
        if isinstance(inner, Mapping) and depth < 4:
            yield from _answers(inner, own, found, depth + 1)
            return
        if isinstance(inner, str):
            yield _of_text(inner, None, own)
            return
    if isinstance(content := row.get("content"), str):
        yield _of_text(content, None, own)
        return
    for what in own.lists:
        if any(name in row for name in own.names[what]):
            yield Said(first_of(row, what, own.names))  # an empty cell
            return
    if any(name in row for name in WRAPPERS):
        raise NoAnswer("no answer in it")
    names = ", ".join(map(str, list(row)[:12])) or "none"
    raise NotRead(f"got the columns {names}, expected {own.expected} or a response")


def _of_texts(texts: Texts, own: Reading) -> list[Said]:
    """The answers that texts are; of several, those that are none are left out."""
    found, why_not = [], NoAnswer("no answer in it")
    for text, tokens in texts:
        try:
            found.append(_of_text(text, tokens, own))
        except NoAnswer as reason:
            why_not = reason
    if not found:
        raise why_not
    return found


def _of_text(text: str | None, tokens: Written | None, own: Reading) -> Said:
    """The answer that a text is, with the tokens that it is made of and those that could have been."""
    if text is None or not text.strip():
        raise NoAnswer("an empty answer")
    text, whole = _THOUGHT.sub("", text).strip(), text
    fenced = _FENCE.match(text)
    text = fenced[1] if fenced else text
    if text[:1] in ("{", "[") and not (own.whole and isinstance(parsed_or_text(text), str)):
        value = json_of(text)
        usual = own.names | {what: (what,) for what in ("labels", "spans") if what in own.names}
        said = own.of_columns(*((value, own.names) if isinstance(value, Mapping) else (own.of_list(value), usual)))
        if said is None or len(said) != 1:
            raise BadRecord(f"got the answer {json.dumps(text)[:80]}, expected JSON that holds a label")
        first = said[0]
        if first.form or not isinstance(first.label, str) or tokens is None:
            return first
        start = whole.rfind(json.dumps(first.label, ensure_ascii=False)[1:-1])
        return Said(first.label, tokens=_at(tokens, start), confidence=first.confidence)
    if own.whole:
        return Said(text)
    label = text.strip(AROUND)
    return Said(label, tokens=None if tokens is None else _at(tokens, whole.rfind(label)))


def _at(tokens: Written, start: int) -> Tokens | None:
    """What could have stood where the label begins, of tokens that make a text."""
    place = 0
    for token, others in tokens:
        blank = len(token) - len(token.lstrip())
        if place + blank <= start < place + len(token):
            # A token that begins before the label, as `{"`, says nothing of it.
            return others if place + blank == start or not token[: start - place].strip(" \"'`*") else None
        place += len(token)
    return None


def _count(row: Mapping[str, Any], found: Record) -> None:
    """The tokens and the money that a response says it took."""
    usage = row.get("usage") if isinstance(row.get("usage"), Mapping) else row.get("usageMetadata")
    usage = usage if isinstance(usage, Mapping) else row
    for key, names in {
        "read": ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_eval_count"),
        "written": ("completion_tokens", "output_tokens", "candidatesTokenCount", "eval_count"),
    }.items():
        value = next((usage[name] for name in names if name in usage), None)
        if value not in (None, ""):
            setattr(found, key, number_from(value, "tokens"))
    if math.isnan(found.cost) and usage is not row and isinstance(usage.get("cost"), int | float):
        found.cost = float(usage["cost"])
