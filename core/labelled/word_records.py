"""The answers that a row names itself, where each word of a text has a label: spans, a label a word, or numbers of the classes a
word. Of these, what a row says; which words they are of is found where the text is known (`word_answers`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data.labels import cell_text
from .class_records import NAMES as OF_TEXTS
from .said import BadRecord, Names, Reading, Said, first_of, number_from, parsed

NAMES = {
    "label": (),
    "labels": ("labels", "tags", "ner_tags"),
    "spans": ("spans", "entities"),
    **{what: OF_TEXTS[what] for what in ("probabilities", "log_probabilities", "logits", "confidence", "cost")},
}
_ANSWERS = ("label", "spans", "labels")
_LABELS = ("label", "type", "entity_group", "entity_type", "category", "class")
_WORDS = ("text", "word", "entity", "name", "mention", "span")


@dataclass(frozen=True)
class SpanSaid:
    """A part of a text with a label: from `start` to before `end`, in characters, or by its words alone."""

    label: Any
    start: int | None = None
    end: int | None = None
    words: str = ""

    def __str__(self) -> str:
        return f"'{self.words}'" if self.start is None else f"{self.start} to {self.end}"


def of_columns(row: Mapping[str, Any], own: Names) -> list[Said] | None:
    """The answers that a row names itself, or None."""
    confidence = first_of(row, "confidence", own)
    confidence = None if confidence in (None, "") else number_from(confidence, "confidence")
    for what in ("logits", "log_probabilities", "probabilities", "label", "spans", "labels"):
        name = next((name for name in own[what] if name in row), None)
        value = None if name is None else parsed(row[name])
        if value is None or value == "" or (what == "log_probabilities" and not isinstance(value, list)):
            continue
        if what in _ANSWERS and isinstance(value, str):
            return [Said(value)]  # a word for no answer, or what is none
        if what == "label":
            what = next(iter(_of_list(value))) if isinstance(value, list) and name not in NAMES["spans"] else "spans"
        if what == "spans" or (what == "labels" and isinstance(value, list) and value and isinstance(value[0], Mapping | list)):
            return [Said(_spans(value, name), None, "spans", None, confidence)]
        if not isinstance(value, list):
            raise BadRecord(f"'{name}': got {json.dumps(value)[:80]}, expected a list, {_each(what)} for each word")
        if what == "labels":
            return [Said(value, None, what, None, confidence)]
        wrong = next((each for each in value if not isinstance(each, Mapping | list | None)), None)
        if wrong is not None:
            expected = "expected a mapping of labels to numbers, or a list"
            raise BadRecord(f"'{name}': got {json.dumps(wrong)[:80]} for a word, {expected}")
        return [Said(None, value, what, None, confidence)]
    return None


def _each(what: str) -> str:
    return "a label" if what == "labels" else f"{what} of the labels"


def _spans(value: Any, name: str) -> list[SpanSaid]:
    if isinstance(value, Mapping):  # label -> what is it
        pairs = ((label, words if isinstance(words, list) else [words]) for label, words in value.items())
        value = [{"label": label, "text": each} for label, found in pairs for each in found]
    if not isinstance(value, list):
        raise BadRecord(f"'{name}': got {json.dumps(value)[:80]}, expected a list of spans")
    return [_span(each, name) for each in value]


def _span(given: Any, name: str) -> SpanSaid:
    if isinstance(given, list) and len(given) in (2, 3):
        given = dict(zip(("start", "end", "label") if len(given) == 3 else ("text", "label"), given))
    if isinstance(given, Mapping):
        key = next((key for key in _LABELS if key in given), None)
        start, end = given.get("start"), given.get("end")
        if key is not None and type(start) is int and type(end) is int:
            return SpanSaid(given[key], start, end)
        words = next((given[each] for each in _WORDS if each != key and isinstance(given.get(each), str)), "").strip()
        if key is not None and words and start is None and end is None:
            return SpanSaid(given[key], words=" ".join(words.split()))
    expected = '{"start": number, "end": number, "label": text}, in characters, or {"text": words, "label": text}'
    raise BadRecord(f"'{name}': got {json.dumps(given)[:80]}, expected {expected}")


def _of_list(items: list) -> Mapping[str, Any]:
    return {"labels": items} if items and not isinstance(items[0], Mapping | list) else {"spans": items}


def texts_of(said: list[Said], base: str | None) -> list[str]:
    """Spans with their labels, or the labels of words in a row."""
    found = set()
    for each in said:
        if each.form == "spans":
            for span in each.label:
                words = span.words or (str(span) if base is None else base[span.start : span.end])
                found.add(f"{cell_text(span.label)}: {' '.join(words.split())}")
        elif each.form == "labels":
            found.add(" ".join("null" if label is None else cell_text(label) for label in each.label))
        else:
            found.add(each.label if isinstance(each.label, str) else "")
    return sorted(found) if found or not said else ["no spans"]


_EXPECTED = "spans, or labels or probabilities of each word"
OF_WORDS = Reading(NAMES, of_columns, _of_list, ("spans", "labels"), _EXPECTED, _ANSWERS, texts_of)
