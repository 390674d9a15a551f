"""Whose names a checkpoint has: the dialect, the family, and where each canonical tensor comes from.

Every dialect reads the names of every family, and the one whose rules know most of them is it. The `model_type` of a
configuration decides the family where there is one. Two that know equally many and disagree are no reason to guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import CheckpointError, did_you_mean
from ..core.models.families import CONFIGURATIONS
from ..core.models.known_families import encoder_families, plugin_hint
from ..core.shown import plain, shown
from .dialects import DIALECTS
from .left_out import left_out, refuse_adapter, without_averages
from .names_canonical import tied_of, told_by_names, wrappers
from .names_tensorflow import google_root
from .prefixes import LONGEST, Found, best_prefix, forms
from .reading import ReadOptions, allowed, renamed
from .rules import Dialect, Match, Spelling
from .source_shapes import reshaped
from .successor import one_of_theseus


@dataclass
class Recognised:
    """What the names of a checkpoint mean."""

    dialect: str
    family: str
    matches: dict[str, Match]
    """Canonical name -> where it comes from."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Name in the file -> why it is left out on purpose."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Name in the file that no rule knows -> the nearest that one does, or an empty string."""
    notes: list[str] = field(default_factory=list)
    prefix: str = ""
    """What the names of the model start with in the file."""
    layers: int | None = None
    """How many the model has, where it is a part of what the configuration describes."""


_USUAL_PREFIXES = ("model",)
"""What a family calls its encoder, and training code any model."""
_COPY = "copy of a tensor that it is tied to"

_SHOWN = 3
_SUGGESTIONS = 50
"""So many unknown names get the nearest known one, whose search is slow."""


def recognise(
    shapes: Mapping[str, tuple[int, ...]],
    config: Mapping[str, Any] | None,
    dialect: str | None = None,
    options: ReadOptions = ReadOptions(),
) -> Recognised:
    """What the names mean, in this dialect or in that which fits best. Raises CheckpointError where none does, where two
    fit equally well, where the file holds two models, and where two tensors claim the same place."""
    if dialect is not None and dialect not in DIALECTS:
        raise CheckpointError(f"dialect '{dialect}': expected one of {', '.join(DIALECTS)}{did_you_mean(dialect, DIALECTS)}")
    config = config or {}
    names = _Names(shapes, options)
    families = _families(config, names)
    prefixes = {
        (name, kind): _prefix(names, DIALECTS[name], kind, len(families) == 1)
        for name in (DIALECTS if dialect is None else [dialect])
        for kind in families
    }
    most = max(found.known for found in prefixes.values())
    if most == 0:
        raise CheckpointError(_nothing_known(shapes, options.prefix))
    readings = [
        _read(shapes, names, name, kind, found, config) for (name, kind), found in prefixes.items() if found.known == most
    ]
    score = max(reading.score for reading in readings)
    if score == 0:
        raise CheckpointError(_nothing_known(shapes, options.prefix))
    best = [reading for reading in readings if reading.score == score]
    others = {
        f"{reading.found.family} ({reading.found.dialect})"
        for reading in best
        if reading.found.matches != best[0].found.matches
    }
    if others:
        first = f"{best[0].found.family} ({best[0].found.dialect})"
        raise CheckpointError(
            f"the names fit {first} and {', '.join(sorted(others))} alike; a config.json with its model_type decides"
        )
    if best[0].rivals:
        several = " and ".join(shown(prefix, 97) for prefix in (best[0].found.prefix, *best[0].rivals))
        raise CheckpointError(
            f"it holds {len(best[0].rivals) + 1} models, whose names start with {several}; --prefix says which one is read"
        )
    if best[0].claimed:
        name, sources = next(iter(best[0].claimed.items()))
        several = " and ".join(plain(source, 97) for source in sources[:_SHOWN])
        raise CheckpointError(f"{several} are both {name}; expected one of them")
    found = best[0].found
    known = DIALECTS[found.dialect].table(found.family)
    found.unknown = {
        name: known.nearest(spelled) if number < _SUGGESTIONS else ""
        for number, (name, spelled) in enumerate(found.unknown.items())
    }
    return found


class _Names:
    """The names of a file without what is no part of any model."""

    def __init__(self, shapes: Iterable[str], options: ReadOptions):
        given, self.renamed = renamed((name for name in shapes if len(name) <= LONGEST), options.rename)
        self.too_long = [name for name in shapes if len(name) > LONGEST]
        refuse_adapter(given.values())
        self.options = options
        self.dropped = {source: reason for source, name in given.items() if (reason := left_out(name))}
        rest = {source: name for source, name in given.items() if source not in self.dropped}
        self.names, averages, self.notes = without_averages(rest, options.ema)
        self.dropped |= averages
        self._clean: dict[str, dict[str, str]] = {}
        self._forms: dict[str, list] = {}

    def have(self, root: str) -> bool:
        """Whether a name has this part."""
        part = re.compile(rf"(?:^|[./-]){root}[./-]")
        return any(part.search(name) for name in self.names.values())

    def clean(self, dialect: Dialect) -> dict[str, str]:
        """Name in the file -> name as the dialect cleans it."""
        if dialect.separator not in self._clean:
            self._clean[dialect.separator] = {source: dialect.clean(name) for source, name in self.names.items()}
        return self._clean[dialect.separator]

    def forms(self, dialect: Dialect) -> list:
        """The candidates for a prefix."""
        separator = dialect.separator
        if separator not in self._forms:
            alike = [other for other in DIALECTS.values() if other.separator == separator]
            starts = set().union(*(d.starts | d.table(f).starts(separator) for d in alike for f in encoder_families()))
            ends = set().union(*(d.ends | d.table(f).ends(separator) for d in alike for f in encoder_families()))
            self._forms[separator] = forms(self.clean(dialect).values(), separator, starts, ends)
        return self._forms[separator]

    def prefix(self, dialect: Dialect) -> list[str] | None:
        """The prefix that the user names, with and without the separator at its end."""
        if self.options.prefix is None:
            return None
        prefix = dialect.clean(self.options.prefix)
        return [prefix] if not prefix or prefix.endswith(dialect.separator) else [prefix, prefix + dialect.separator]


@dataclass
class _Reading:
    found: Recognised
    claimed: dict[str, list[str]]
    """Canonical name -> the names in the file that all are it, where they are several."""
    rivals: tuple[str, ...]
    """Prefixes of other models in the file, which nobody decided about."""

    @property
    def score(self) -> int:
        """Larger is better."""
        return len(self.found.matches)


def _families(config: Mapping[str, Any], names: _Names) -> tuple[str, ...]:
    kind = config.get("model_type")
    if kind is None:
        # Without their root a RoBERTa's or ERNIE's names are BERT's; MegatronBERT's root is BERT's, and its names are its own.
        googles = {_root(kind) for kind in told_by_names() if CONFIGURATIONS[kind].family.in_googles_code}
        return tuple(kind for kind in told_by_names() if _root(kind) in googles or names.have(_root(kind)))
    if kind not in encoder_families():
        raise CheckpointError(f"model_type {shown(kind)}: expected one of {', '.join(encoder_families())}{plugin_hint(kind)}")
    return (kind,)


def _root(kind: str) -> str:
    return CONFIGURATIONS[kind].family.root.removesuffix(".")


def _prefix(names: _Names, dialect: Dialect, kind: str, decided: bool) -> Found:
    """The prefix of the model's names, read as of this kind. Where the kind is not `decided`, the root of another one is no
    prefix: an ELECTRA's encoder would be a BERT's."""
    table = dialect.table(kind)
    candidates = names.forms(dialect)
    # ELECTRA's two models in TensorFlow belong together; `settle` chooses one of them.
    others = {"generator"} if dialect.separator == "/" else set()
    if not decided:
        own_root = _root(kind) if dialect.separator == "." else google_root(kind)
        others |= set(map(_root, encoder_families())) - {own_root, *_USUAL_PREFIXES}
    candidates = [form for form in candidates if others.isdisjoint(form.prefix.split(dialect.separator))]

    def known(rest: str) -> str | None:
        spelled = dialect.spelled(rest, kind)
        rule = table.canonical(spelled.replace("generator/", "electra/", 1) if kind == "electra" else spelled)
        return None if rule is None else rule[0]

    return best_prefix(candidates, known, names.prefix(dialect))


def _read(
    shapes: Mapping[str, tuple[int, ...]], names: _Names, dialect_name: str, kind: str, prefix: Found, config: Mapping[str, Any]
) -> _Reading:
    dialect, family = DIALECTS[dialect_name], kind
    clean = names.clean(dialect)
    spelling, beside = Spelling({}), {}
    for source, name in clean.items():
        if name.startswith(prefix.prefix) or source in names.renamed:
            spelling.names[source] = dialect.spelled(name.removeprefix(prefix.prefix), kind)
        else:
            beside[source] = name
    layers = one_of_theseus(spelling, names.options)
    dialect.settle(spelling, kind, config)
    found = Recognised(dialect_name, family, {}, names.dropped | spelling.dropped, prefix=prefix.prefix, layers=layers)
    sources: dict[str, list[str]] = {}
    table = dialect.table(family)
    for source, spelled in spelling.names.items():
        rule = table.canonical(spelled)
        if rule is None:
            found.unknown[source] = spelled
            continue
        name, transpose = rule
        sources.setdefault(name, []).append(source)
        found.matches[name] = Match(source, transpose)
    found.unknown |= dict.fromkeys(names.too_long, "")
    rivals = _leave_out_rivals(names, found, clean, beside, prefix.rivals)
    found.unknown |= {source: name for source, name in beside.items() if source not in found.dropped}
    read = [match.source for match in found.matches.values()]
    found.notes = [*names.notes, *_notes(names, dialect, prefix.prefix, read), *spelling.notes]
    if config.get("tie_word_embeddings") is not False:
        _leave_out_copies(found)
    flat = CONFIGURATIONS[family].family if dialect_name == "oneflow-legacy" else None
    for name, match in found.matches.items():
        shape = reshaped(name, found.matches, shapes, flat)
        found.matches[name] = Match(match.source, match.transpose, shape)
    return _Reading(found, {name: several for name, several in sources.items() if len(several) > 1}, rivals)


def _notes(names: _Names, dialect: Dialect, prefix: str, read: Iterable[str]) -> list[str]:
    notes = [f"the model's names start with '{prefix}', which is left out"] if prefix else []
    around = wrappers(names.names[source] for source in read) if dialect.separator == "." else []
    if around:
        notes.append(f"{', '.join(map(repr, around))}: names of wrapping modules, which are left out")
    return notes


def _leave_out_rivals(
    names: _Names, found: Recognised, clean: Mapping[str, str], beside: Mapping[str, str], rivals: Iterable[str]
) -> tuple[str, ...]:
    """Leave out the other models in the file where the user named the prefix, or allowed all of them to be extra; the prefixes
    of those that nobody decided about."""
    undecided = []
    for prefix in rivals:
        theirs = [source for source in found.unknown if prefix and clean.get(source, "").startswith(prefix)]
        theirs += [source for source, name in beside.items() if name.startswith(prefix) and source not in found.dropped]
        if names.options.prefix is not None:
            found.dropped |= dict.fromkeys(theirs, f"of another model, under '{prefix}'")
            found.unknown = {source: name for source, name in found.unknown.items() if source not in found.dropped}
        elif len(allowed(theirs, names.options.allow_extra)) < len(theirs):
            undecided.append(prefix)
    return tuple(undecided)


def _leave_out_copies(found: Recognised) -> None:
    """Tied tensors are kept once, under the name of the original; of a file that has only the copy, the copy."""
    for copy, original in tied_of(found.family).items():
        match = found.matches.pop(copy, None)
        if match is None:
            continue
        if original in found.matches:
            found.dropped[match.source] = _COPY
        else:
            found.matches[original] = match
            found.notes.append(f"{original} is taken from {match.source}, which is tied to it")


def _nothing_known(shapes: Mapping[str, tuple[int, ...]], prefix: str | None) -> str:
    behind = "" if prefix is None else f" behind --prefix {shown(prefix)}"
    first = ", ".join(plain(name, 97) for name in list(shapes)[:_SHOWN]) or "none"
    return (
        f"no tensor has a name that is known{behind}; the first names are {first}; supported are checkpoints of"
        f" {', '.join(encoder_families())} with the names of {', '.join(DIALECTS)}"
    )
