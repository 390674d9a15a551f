"""What the name rules of a dialect are, and how they are applied in both directions.

A checkpoint's tensors are known by names, and each framework has its own. A rule says what one kind of tensor is called in
the canonical form and in a dialect, and whether its two axes change places. The same table is read from left to right for
writing and from right to left for reading, so that one is the inverse of the other. Whether a tensor is transposed follows
from its name and never from its shape: a 768 x 768 kernel looks the same both ways.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

_NUMBER = "(0|[1-9][0-9]{0,4})"
_DIGITS = re.compile(r"[0-9]+|\{\}")
_LAST_PART = re.compile(r"[./-][^./-]*$")
_ALIKE = 0.6
_LONGEST_NAME = 200
"""Longer names get no suggestion: the comparison takes time that grows with the square of the length."""


@dataclass(frozen=True)
class Rule:
    """The two names of a kind of tensor; `{}` stands for the number of a layer, and there are as many in both."""

    canonical: str
    foreign: str
    transpose: bool = False


@dataclass(frozen=True)
class Match:
    """Where a canonical tensor comes from: the source is reshaped and then transposed."""

    source: str
    transpose: bool = False
    shape: tuple[int, ...] | None = None
    """What the source is reshaped to."""

    def canonical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """That of the canonical tensor, of a source of this shape."""
        reshaped = shape if self.shape is None else self.shape
        return reshaped[::-1] if self.transpose else reshaped


@dataclass
class Spelling:
    """How the rules of a dialect spell the names of a file."""

    names: dict[str, str]
    """Name in the file -> name as the rules have it."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Name in the file -> why it is left out."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Dialect:
    """How the names of a framework are read. A name is cleaned, loses the prefix of its model, is spelled, and is looked up."""

    table: Callable[[str], Table]
    """Family -> its rules."""
    separator: str
    """Between the parts of a name."""
    clean: Callable[[str], str]
    """Takes off what says nothing, wherever it is in a name."""
    spelled: Callable[[str, str], str]
    """(name without prefix, family) -> as the rules have it."""
    settle: Callable[[Spelling, str, Mapping[str, Any]], None]
    """(all names, family, configuration): decides what only shows with all names together."""
    starts: frozenset[str]
    """The parts with which a model's names may start, beside those of its rules."""
    ends: frozenset[str]
    """Those with which they may end."""


class Table:
    """The rules of one family in one dialect; those of `also` are for reading only, other names of the same tensors."""

    def __init__(self, rules: Iterable[Rule], also: Iterable[Rule] = ()):
        self.rules = tuple(rules)
        self._to_foreign: dict[str, list[Rule]] = defaultdict(list)
        self._to_canonical: dict[str, list[Rule]] = defaultdict(list)
        for rule in self.rules:
            self._to_foreign[skeleton(rule.canonical)].append(rule)
        for rule in (*self.rules, *also):
            self._to_canonical[skeleton(rule.foreign)].append(rule)

    def starts(self, separator: str) -> set[str]:
        """The first parts of the dialect's names."""
        return {name.partition(separator)[0] for name in self._to_canonical}

    def ends(self, separator: str) -> set[str]:
        """The last ones."""
        return {name.rpartition(separator)[2] for name in self._to_canonical}

    def foreign(self, canonical: str) -> tuple[str, bool] | None:
        """(name in the dialect, whether it is transposed there) of a canonical name."""
        for rule in self._to_foreign.get(skeleton(canonical), ()):
            if found := _pattern(rule.canonical).fullmatch(canonical):
                return rule.foreign.format(*found.groups()), rule.transpose
        return None

    def canonical(self, foreign: str) -> tuple[str, bool] | None:
        """(canonical name, whether it is transposed in the dialect) of a name in the dialect."""
        for rule in self._to_canonical.get(skeleton(foreign), ()):
            if found := _pattern(rule.foreign).fullmatch(foreign):
                return rule.canonical.format(*found.groups()), rule.transpose
        return None

    def nearest(self, name: str) -> str:
        """The name of the dialect that is most like an unknown one, with the unknown one's numbers; empty if none is, or if only
        the last parts are alike, as the `weight` of anything is."""
        if len(name) > _LONGEST_NAME:
            return ""
        numbers = [*_DIGITS.findall(name), "0", "0"]
        expected = [rule.foreign.format(*numbers) for rule in self.rules]
        nearest = next(iter(difflib.get_close_matches(name, expected, n=1, cutoff=_ALIKE)), "")
        stems = [_LAST_PART.sub("", each) for each in (name, nearest)]
        return nearest if difflib.SequenceMatcher(None, *stems).ratio() >= _ALIKE else ""


def skeleton(name: str) -> str:
    """The name with `#` for each number: what all layers have in common."""
    return _DIGITS.sub("#", name)


@functools.cache  # made when a name is looked up: a conversion reads a few of the thousands of all families and dialects
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_NUMBER.join(map(re.escape, template.split("{}"))))
