"""The answers that a row names itself, where each is a class, several labels or a number."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.labels import cell_text, number_of
from .said import BadRecord, Names, Reading, Said, first_of, number_from, parsed

NAMES = {
    "label": ("label", "answer", "class", "category", "prediction", "sentiment"),
    "labels": ("labels",),
    "order": ("labels",),
    "probabilities": ("probabilities", "probs", "distribution", "scores", "label_probabilities"),
    "log_probabilities": ("log_probabilities", "label_logprobs", "logprobs"),
    "logits": ("logits",),
    "votes": ("votes",),
    "confidence": ("confidence", "score", "certainty"),
    "cost": ("cost", "cost_usd", "price"),
}
"""What a row's columns are looked for as; `score` is what pipelines of transformers call the probability of a label, and
`labels` beside numbers says whose they are."""


def of_columns(row: Mapping[str, Any], own: Names) -> list[Said] | None:
    """The answers that a row names itself, or None."""
    confidence = first_of(row, "confidence", own)
    confidence = None if confidence in (None, "") else number_from(confidence, "confidence")
    order = parsed(first_of(row, "order", own))
    # What chats call content is read elsewhere, with its tokens.
    for what in ("logits", "log_probabilities", "probabilities", "votes", "labels"):
        value = parsed(first_of(row, what, own))
        if value is None or value == "" or (what == "log_probabilities" and not _is_numbers(value)):
            continue
        if isinstance(value, Sequence) and not isinstance(value, str) and value and isinstance(value[0], Mapping):
            value = _pairs(value)
        if what != "labels" and isinstance(value, list) and isinstance(order, list) and len(order) == len(value):
            value = dict(zip(map(cell_text, order), value))  # as zero-shot pipelines of transformers have them, the best first
        if what == "labels" and isinstance(value, str):
            value = [part.strip() for part in value.split("|")]
        if what in ("votes", "labels") and isinstance(value, list):
            return [Said(label) for label in value] if what == "votes" else [Said(value)]
        form = "probabilities" if what == "labels" else what
        if not isinstance(value, Mapping | list):
            raise BadRecord(f"'{what}': got {json.dumps(value)[:80]}, expected a mapping of classes to numbers, or a list")
        label = first_of(row, "label", own)
        return [Said(label, value, form, None, confidence)]
    name = next((name for name in own["label"] if name in row), None)
    if name is None:
        return None
    label = row[name]
    if isinstance(label, Mapping | list):
        label = _pairs(label) if isinstance(label, list) and label and isinstance(label[0], Mapping) else label
        return [Said(None, label, "probabilities")] if isinstance(label, Mapping) else [Said(label)]
    return [Said(label, confidence=confidence)]


def _is_numbers(value: Any) -> bool:
    """Whether these are of classes, be some no numbers, and not of tokens."""
    numbers = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(isinstance(number, int | float) for number in numbers)


def _pairs(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`[{"label": ..., "score": ...}]` as pipelines of transformers answer."""
    pairs = {}
    for item in items:
        score = next((item[name] for name in ("score", "probability", "confidence") if name in item), None)
        if "label" not in item or score is None:
            raise BadRecord(f"got {json.dumps(item)[:80]}, expected a label and its score")
        pairs[str(item["label"])] = score
    return pairs


def texts_of(said: list[Said], base: str | None) -> list[str]:
    """Labels, of several the most probable one."""
    found = set()
    for each in said:
        label = each.label
        if isinstance(each.numbers, Mapping) and each.numbers:
            label = max(each.numbers, key=lambda name: number_of(each.numbers[name]))
        elif each.numbers is not None:
            label = json.dumps(each.numbers)
        found |= {"" if one is None else cell_text(one) for one in (label if isinstance(label, list) else [label])}
    return sorted(found)


OF_CLASSES = Reading(
    NAMES, of_columns, lambda items: {"labels": items}, ("labels",), "a label, probabilities", ("label", "labels"), texts_of
)
