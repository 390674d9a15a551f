"""From what a model said to numbers of the task's classes: names, distributions over some of them, votes, tokens.

With C classes, q the probabilities that are told (of classes, or of tokens that begin their names), r = 1 - sum q - what tokens
have that are no class's:
  rest spread   each class that is not told gets min(r / their number, the least q); all are then divided by their sum
  rest drop     they get 0; likewise
  votes         the mean of the distributions of the answers, a label alone being all of it
  floor         no class has less than `floor`, and all are divided by their sum once more
  logits        z_c = log p_c - mean over c of log p_c, so that softmax(z / T) is p^(1/T) over its sum at any temperature T
What a file has as `logits` is taken as it is. Where a text may have several labels, p_c are probabilities of their own, none of
them less than `floor` or more than 1 - `floor`, and z_c = log p_c - log(1 - p_c). A number is what it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..data.labels import SEPARATOR, cell_text, label_key, number_of
from ..data.task_specs import TaskSpec
from ..errors import DataError, did_you_mean
from ..file_section import FileSection
from ..shown import shown
from .interfaces import Tokens
from .said import BadRecord, Said

_MORE_THAN_ALL = 1e-3
"""By how much probabilities may sum to more than 1, of rounded numbers."""


class UnknownLabel(Exception):
    """A label that is no class of the task."""

    def __init__(self, label: str):
        super().__init__(label)
        self.label = label


class Classes:
    """The classes of a task by the names that a file may have for them."""

    def __init__(self, spec: TaskSpec, section: FileSection, key: str):
        """`key` is the recipe's of the section. Raises DataError for a name of `labels` that is no class."""
        self.labels, self.section, self.kind = spec.label_names or (), section, spec.kind
        self.told = self.labels
        """What a label may be, for people."""
        self._places = {}
        for names in (spec.label_names or (), spec.labels or ()):
            self._places |= {label_key(name): place for place, name in enumerate(names)}
        for name, meant in section.labels.items():
            if label_key(meant) not in self._places:
                hint = did_you_mean(meant, self.labels) or f"; expected one of {', '.join(map(shown, self.labels[:20]))}"
                raise DataError(f"{key}.labels.{name}: {shown(meant)} is no class of the task{hint}")
        self._places |= {label_key(name): self._places[label_key(meant)] for name, meant in section.labels.items()}
        self._none = {label_key(name) for name in section.abstentions} - set(self._places)
        self._known: dict[str, int | None] = {}
        if spec.kind.has_classes and section.floor * len(self.labels) >= 1:
            expected = f"expected less than 1 / {len(self.labels)}, since the classes have no more together"
            raise DataError(f"{key}.floor: got {section.floor:g}, {expected}")

    def place(self, label: Any) -> int | None:
        """The number of a class, None for a label that is no answer. Raises UnknownLabel."""
        text = "" if label is None or (isinstance(label, float) and math.isnan(label)) else cell_text(label)
        if text not in self._known:
            key = label_key(text)
            if key not in self._places and key not in self._none:
                raise UnknownLabel(text)
            self._known[text] = self._places.get(key)
        return self._known[text]

    def values(self, said: Said) -> np.ndarray | None:
        """What an answer comes to (outputs,), in float64, None where it is none: probabilities of the classes, logits where it
        has those, or a number. Raises UnknownLabel and BadRecord."""
        if not self.kind.has_classes:
            return _number(said, self._none)
        if isinstance(said.numbers, Mapping) and said.numbers and self._abstains(said.numbers):
            return None
        if said.form == "logits":
            return self._listed(said, None)
        if not self.kind.one_class:
            return self._several(said)
        if said.form == "votes":
            counts = self._listed(said, 0.0)
            if counts.min() < 0 or not counts.sum():
                raise BadRecord(f"'votes': got {json.dumps(said.numbers)[:80]}, expected numbers from 0 on, one of them above")
            return counts / counts.sum()
        if said.form:
            return self._spread(*self._told(said))
        place = self.place(_only(said.label))
        if place is None:
            return None
        taken = None if said.tokens is None else self._of_tokens(said.tokens, place)
        return np.eye(len(self.labels))[place] if taken is None else taken

    def _abstains(self, labels: Iterable[Any]) -> bool:
        """Whether all of these are words for no answer."""
        return all([self.place(label) is None for label in labels])

    def _told(self, said: Said) -> tuple[dict[int, float], float]:
        """Class -> probability, of those that are named, and what words for no answer have."""
        numbers, named, elsewhere = said.numbers, {}, 0.0
        pairs = enumerate(self._listed(said, None)) if isinstance(numbers, list) else numbers.items()
        for label, given in pairs:
            place = label if isinstance(numbers, list) else self.place(label)
            number = _finite(given, label)
            number = math.exp(min(number, 1.0)) if said.form == "log_probabilities" else number
            if place is None:
                elsewhere += number
            else:
                named[place] = named.get(place, 0.0) + number
        least = min([*named.values(), elsewhere])
        if not named or least < 0 or not sum(named.values()) or sum(named.values()) + elsewhere > 1 + _MORE_THAN_ALL:
            what = "logarithms of probabilities" if said.form == "log_probabilities" else "probabilities"
            raise BadRecord(f"got {json.dumps(numbers)[:120]}, expected {what}, which sum to 1 at most")
        return named, elsewhere

    def _listed(self, said: Said, missing: float | None) -> np.ndarray:
        """Numbers of all classes (C,), in a list in their order or a mapping, which may lack some where `missing` stands for
        them."""
        numbers, found = said.numbers, np.full(len(self.labels), np.nan if missing is None else missing)
        if isinstance(numbers, list):
            if len(numbers) != len(found):
                raise BadRecord(f"'{said.form}': got {len(numbers)} numbers, expected {len(found)}, one for each class")
            return np.array([_finite(number, said.form) for number in numbers])
        for label, number in numbers.items():
            place = self.place(label)
            if place is not None:
                found[place] = _finite(number, label)
        if np.isnan(found).any():
            raise BadRecord(f"'{said.form}': has none of {shown(self.labels[int(np.isnan(found).argmax())])}")
        return found

    def _several(self, said: Said) -> np.ndarray | None:
        """Probabilities of labels, each of its own."""
        if said.form:
            found = self._listed(said, 0.0)
            found = np.exp(np.minimum(found, 0.0)) if said.form == "log_probabilities" else found
            if found.min() < 0 or found.max() > 1 + _MORE_THAN_ALL:
                raise BadRecord(f"got {json.dumps(said.numbers)[:120]}, expected probabilities from 0 to 1")
            return found
        labels = said.label
        if isinstance(labels, str):
            labels = [part for part in labels.split(SEPARATOR) if part.strip()]
        labels = labels if isinstance(labels, list) else [labels]
        if labels and self._abstains(labels):
            return None
        found = np.zeros(len(self.labels))
        for label in labels:
            place = self.place(label)
            if place is not None:
                found[place] = 1.0
        return found

    def _of_tokens(self, tokens: Tokens, chosen: int) -> np.ndarray | None:
        """The distribution over the classes of the tokens that could have begun the label; None where the token that did so
        begins the names of several classes, or has no probability."""
        told: dict[int, float] = {}
        elsewhere = 0.0
        for token, logprob in tokens:
            place = self._begun(token)
            if place is None:
                elsewhere += math.exp(min(logprob, 0.0))
            else:
                told[place] = told.get(place, 0.0) + math.exp(min(logprob, 0.0))
        # Where an answer's form is prescribed, interfaces write -9999 for a token that would not have been written.
        return self._spread(told, elsewhere) if told.get(chosen) else None

    def _begun(self, token: str) -> int | None:
        """The class that a token names, or the only one whose name it begins."""
        key = label_key(token.strip(" \t\r\n\"'`*.Ġ▁"))
        if not key:
            return None
        if key in self._places:
            return self._places[key]
        begun = {place for name, place in self._places.items() if name.startswith(key)}
        return begun.pop() if len(begun) == 1 else None

    def _spread(self, told: Mapping[int, float], elsewhere: float) -> np.ndarray:
        found, others = np.zeros(len(self.labels)), len(self.labels) - len(told)
        for place, number in told.items():
            found[place] = number
        if others and self.section.rest == "spread":
            left = max(0.0, 1.0 - found.sum() - elsewhere)
            found[[place not in told for place in range(len(found))]] = min(left / others, min(told.values()))
        return found / found.sum()

    def logits(self, answers: Sequence[np.ndarray], are_logits: bool) -> np.ndarray:
        """What stands for a model's logits (..., outputs), of the `values` of one answer or of several votes."""
        mean = np.mean(answers, axis=0)
        if are_logits or not self.kind.has_classes:
            return mean
        floor = self.section.floor
        if not self.kind.one_class:
            clipped = np.clip(mean, floor, 1 - floor)
            return np.log(clipped) - np.log1p(-clipped)
        raised = np.maximum(mean, floor)
        logs = np.log(raised / raised.sum(axis=-1, keepdims=True))
        return logs - logs.mean(axis=-1, keepdims=True)


def _only(label: Any) -> Any:
    """The one label of a list."""
    if not isinstance(label, list):
        return label
    if len(label) > 1:
        raise BadRecord(f"got {json.dumps(label)[:80]}, expected one label")
    return label[0] if label else None


def _number(said: Said, none: set[str]) -> np.ndarray | None:
    """The score of a regression."""
    if said.form:
        raise BadRecord(f"'{said.form}': got {json.dumps(said.numbers)[:80]}, expected a number, the task being a regression")
    label = _only(said.label)
    if label is None or (isinstance(label, str) and label_key(label) in none):
        return None
    return np.array([_finite(label, "label")])


def _finite(value: Any, name: Any) -> float:
    number = number_of(value)
    if math.isnan(number) or isinstance(value, bool):
        raise BadRecord(f"{shown(name)}: got {shown(value)}, expected a finite number")
    return number
