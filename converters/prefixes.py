"""Which prefix the names of a model have in a file: that under which most names are known.

Training code puts a model into others, and so one or several parts before all its names (`model.bert.`, `0.auto_model.`,
`student.`); what lies beside the model (`criterion.weight`) has other prefixes. Every leading part of a name is a candidate. A
file in which a second model is known under another prefix is told, never guessed.

The work does not grow with the square of anything that a file decides: names of the same form are looked up once, up to
`_DEPTH` parts of a name are tried, and of many different forms the most frequent decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from heapq import nlargest

from .rules import skeleton

_DEPTH = 8
_FORMS = 1024
"""A model has some dozens, under each of its prefixes."""
_RIVALS = 3
"""More are not told."""
LONGEST = 400
"""Letters: longer names are unknown."""
_OF_AN_ENCODER = re.compile(r"word_embeddings\.weight$|(^|\.)wte\.weight$|(query|q_lin)\.weight$")


@dataclass
class _Form:
    """Names that differ in the numbers behind a prefix."""

    prefix: str
    rest: str
    """What follows the prefix in one of them."""
    count: int = 0


@dataclass(frozen=True)
class Found:
    """The best prefix and what speaks for it."""

    prefix: str
    known: int
    """Names that are known under it."""
    rivals: tuple[str, ...] = ()
    """Prefixes of other models in the file."""


def forms(names: Iterable[str], separator: str, starts: Collection[str], ends: Collection[str]) -> list[_Form]:
    """The forms of the names behind each prefix that is a candidate: none, and every one before a part in `starts`. Names whose
    last part is not in `ends` are known to nobody."""
    found: dict[tuple[str, str], _Form] = {}
    for name in names:
        if len(name) > LONGEST or name.rpartition(separator)[2] not in ends:
            continue
        same = skeleton(name)
        _count(found, "", same, name)
        if separator not in name:
            continue
        parts, form = name.split(separator, _DEPTH), same.split(separator, _DEPTH)
        position = 0
        for depth in range(1, min(len(parts), _DEPTH)):
            position += len(parts[depth - 1]) + len(separator)
            if parts[depth] in starts:
                _count(found, name[:position], separator.join(form[depth:]), name[position:])
    return nlargest(_FORMS, found.values(), key=lambda form: form.count)


def _count(found: dict[tuple[str, str], _Form], prefix: str, same: str, rest: str) -> None:
    form = found.get((prefix, same))
    if form is None:
        form = found[prefix, same] = _Form(prefix, rest)
    form.count += 1


def best_prefix(candidates: Iterable[_Form], known: Callable[[str], str | None], only: Collection[str] | None = None) -> Found:
    """The prefix under which most names are known, the shortest of equals. `known` gives the canonical name of what follows a
    prefix, or None; `only` are the prefixes to choose from."""
    counts: dict[str, int] = {}
    encoders: dict[str, list[_Form]] = {}
    for form in candidates:
        canonical = known(form.rest)
        if canonical is not None:
            counts[form.prefix] = counts.get(form.prefix, 0) + form.count
            if _OF_AN_ENCODER.search(canonical):
                encoders.setdefault(form.prefix, []).append(form)
    ordered = sorted(counts, key=lambda prefix: (-counts[prefix], len(prefix)))
    chosen = [prefix for prefix in ordered if only is None or prefix in only]
    if not chosen:
        return Found("", 0)
    best, taken = chosen[0], chosen[:1]
    for prefix in ordered:
        if len(taken) <= _RIVALS and prefix in encoders and not any(_is_within(form, taken, known) for form in encoders[prefix]):
            taken.append(prefix)
    return Found(best, counts[best], tuple(taken[1:]))


def _is_within(form: _Form, prefixes: Iterable[str], known: Callable[[str], str | None]) -> bool:
    """Whether a name is known under one of the prefixes too."""
    name = form.prefix + form.rest
    return any(name.startswith(prefix) and known(name.removeprefix(prefix)) is not None for prefix in prefixes)
