"""Whose names a checkpoint has: the dialect, the family, and where each canonical tensor comes from.

Every dialect reads the names of every family, and the one whose rules know most of them is it. The `model_type` of a
configuration decides the family where there is one. Two that know equally many and disagree are no reason to guess.

    canonical       Hugging Face transformers 5, PyTorch
    tensorflow      Google's code; read, other TensorFlow code as well
    mindspore       the model zoo since r1.2 (BERT); Hugging Face's names with MindSpore's parameters (others)
    mindspore-old   the model zoo before
    oneflow         OneFlow 0.9: canonical names
    oneflow-legacy  OneFlow up to 0.4
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

from ..core.errors import CheckpointError, did_you_mean
from ..core.shown import plain, shown
from . import names_canonical, names_mindspore, names_oneflow, names_tensorflow
from .left_out import left_out, refuse_adapter, without_averages
from .names_canonical import FAMILIES, ROBERTA, TIED, is_norm
from .prefixes import LONGEST, Found, best_prefix, forms
from .reading import ReadOptions, allowed, renamed
from .rules import Dialect, Match, Spelling

__all__ = ["DIALECTS", "Match", "Recognised", "foreign_names", "recognise"]


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


_CANONICAL = Dialect(
    names_canonical.table,
    ".",
    names_canonical.clean,
    names_canonical.spelled,
    names_canonical.settle,
    names_canonical.STARTS,
    names_canonical.ENDS,
)


def _mindspore(dialect: str) -> Dialect:
    own = partial(names_mindspore.table, dialect=dialect)
    clean, settle = names_canonical.clean, names_canonical.settle
    return Dialect(own, ".", clean, names_mindspore.spelled, settle, names_mindspore.STARTS, names_mindspore.ENDS)


DIALECTS: dict[str, Dialect] = {
    "canonical": _CANONICAL,
    "tensorflow": Dialect(
        names_tensorflow.table,
        "/",
        names_tensorflow.clean,
        names_tensorflow.spelled,
        names_tensorflow.settle,
        names_tensorflow.STARTS,
        names_tensorflow.ENDS,
    ),
    "mindspore": _mindspore("mindspore"),
    "mindspore-old": _mindspore("mindspore-old"),
    "oneflow": _CANONICAL,
    "oneflow-legacy": Dialect(
        names_oneflow.table, "-", names_oneflow.clean, names_oneflow.spelled, names_oneflow.settle, frozenset(), names_oneflow.ENDS
    ),
}

_COPY = "copy of a tensor that it is tied to"

_PROJECTED = re.compile(r"(query|key|value|[qkv]_lin)\.(weight|bias)$")
_MERGED = re.compile(r"(attention\.output\.dense|attention\.dense|out_lin)\.weight$")
_SHOWN = 3
_ROBERTA_PART = re.compile(r"(?<![^.])roberta\.")
_SUCCESSOR = re.compile(r"encoder\.scc_layer\.|encoder-student-layer_")
"""As the published code and OneFlow's name it."""
_PREDECESSOR = re.compile(r"encoder\.layer\.|encoder-layer_")
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
    families = _families(config)
    kinds = [ROBERTA if family == "bert" and names.is_roberta(config) else family for family in families]
    prefixes = {
        (name, kind): _prefix(names, DIALECTS[name], kind, len(families) == 1)
        for name in (DIALECTS if dialect is None else [dialect])
        for kind in kinds
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


def foreign_names(canonical: Iterable[str], family: str, dialect: str) -> dict[str, tuple[str, bool]]:
    """Canonical name -> (name in the dialect, whether it is transposed there). Raises CheckpointError for names that have
    none there: unknown ones, and decoders that are not tied, where the dialect's networks tie them."""
    table = DIALECTS[dialect].table(family)
    names, problems = {}, []
    for name in canonical:
        found = table.foreign(name)
        if found is not None:
            names[name] = found
        elif name in TIED[family]:
            problems.append(f"{name}: networks of {dialect} {family} tie it to {TIED[family][name]}; it cannot be kept apart")
        else:
            expected = [rule.canonical.replace("{}", "0") for rule in table.rules]
            problems.append(f"{name}: no tensor of {family} has this name{did_you_mean(name, expected)}")
    if problems:
        more = f"\nand {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise CheckpointError("\n".join(problems[:_SHOWN]) + more)
    return names


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

    def is_roberta(self, config: Mapping[str, Any]) -> bool:
        """Whether a BERT is one of RoBERTa's."""
        return config.get("model_type") == ROBERTA or any(_ROBERTA_PART.search(name) for name in self.names.values())

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
            starts = set().union(*(d.starts | d.table(f).starts(separator) for d in alike for f in FAMILIES))
            ends = set().union(*(d.ends | d.table(f).ends(separator) for d in alike for f in FAMILIES))
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


def _families(config: Mapping[str, Any]) -> tuple[str, ...]:
    kind = config.get("model_type")
    if kind is None:
        return FAMILIES
    if kind == ROBERTA:
        return ("bert",)
    if kind not in FAMILIES:
        raise CheckpointError(f"model_type {shown(kind)}: expected one of {', '.join((*FAMILIES, ROBERTA))}")
    return (kind,)


def _family(kind: str) -> str:
    return "bert" if kind == ROBERTA else kind


def _prefix(names: _Names, dialect: Dialect, kind: str, decided: bool) -> Found:
    """The prefix of the model's names, read as of this kind. Where the kind is not `decided`, the root of another one is no
    prefix: an ELECTRA's encoder would be a BERT's."""
    table = dialect.table(_family(kind))
    candidates = names.forms(dialect)
    # ELECTRA's two models in TensorFlow belong together; `settle` chooses one of them.
    others = {"generator"} if dialect.separator == "/" else set()
    if not decided:
        own_root = "bert" if dialect.separator != "." and kind in ("distilbert", "albert") else kind
        others |= {*FAMILIES, ROBERTA} - {own_root}
    candidates = [form for form in candidates if others.isdisjoint(form.prefix.split(dialect.separator))]

    def known(rest: str) -> str | None:
        spelled = dialect.spelled(rest, kind)
        rule = table.canonical(spelled.replace("generator/", "electra/", 1) if kind == "electra" else spelled)
        return None if rule is None else rule[0]

    return best_prefix(candidates, known, names.prefix(dialect))


def _read(
    shapes: Mapping[str, tuple[int, ...]], names: _Names, dialect_name: str, kind: str, prefix: Found, config: Mapping[str, Any]
) -> _Reading:
    dialect, family = DIALECTS[dialect_name], _family(kind)
    clean = names.clean(dialect)
    spelling, beside = Spelling({}), {}
    for source, name in clean.items():
        if name.startswith(prefix.prefix) or source in names.renamed:
            spelling.names[source] = dialect.spelled(name.removeprefix(prefix.prefix), kind)
        else:
            beside[source] = name
    layers = _one_of_theseus(spelling, dialect, names.options)
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
    for name, match in found.matches.items():
        first_row = spelling.first_position if name.endswith("position_embeddings.weight") else 0
        shape = _reshaped(name, found.matches, shapes, flat=dialect_name == "oneflow-legacy")
        found.matches[name] = Match(match.source, match.transpose, shape, first_row)
    return _Reading(found, {name: several for name, several in sources.items() if len(several) > 1}, rivals)


def _one_of_theseus(spelling: Spelling, dialect: Dialect, options: ReadOptions) -> int | None:
    """A training by replacement keeps predecessor and successor in one encoder: one of them is read, if it is said which. Returns
    the number of layers of a successor. Raises CheckpointError."""
    successors = {source: name for source, name in spelling.names.items() if _SUCCESSOR.search(name)}
    if not successors:
        return None
    if not options.successor:
        if len(allowed(successors, options.allow_extra)) == len(successors):
            return None
        raise CheckpointError(
            f"{next(iter(successors))} is of the successor in a training of BERT-of-Theseus, whose predecessor is in the same "
            "encoder: --successor reads the successor (in a recipe: read.successor), --allow-extra with a pattern of its names "
            "leaves it out"
        )
    predecessors = [source for source, name in spelling.names.items() if _PREDECESSOR.search(name)]
    spelling.dropped |= dict.fromkeys(predecessors, "of the predecessor, whose successor is read")
    for source in predecessors:
        del spelling.names[source]
    for source, name in successors.items():
        spelling.names[source] = _SUCCESSOR.sub(_replaced, name)
    return len({skeleton[0] for name in successors.values() if (skeleton := re.findall("[0-9]+", name))})


def _replaced(found: re.Match[str]) -> str:
    return "encoder.layer." if "." in found[0] else "encoder-layer_"


def _notes(names: _Names, dialect: Dialect, prefix: str, read: Iterable[str]) -> list[str]:
    notes = [f"the model's names start with '{prefix}', which is left out"] if prefix else []
    wrappers = names_canonical.wrappers(names.names[source] for source in read) if dialect.separator == "." else []
    if wrappers:
        notes.append(f"{', '.join(map(repr, wrappers))}: names of wrapping modules, which are left out")
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
    for copy, original in TIED[found.family].items():
        match = found.matches.pop(copy, None)
        if match is None:
            continue
        if original in found.matches:
            found.dropped[match.source] = _COPY
        else:
            found.matches[original] = match
            found.notes.append(f"{original} is taken from {match.source}, which is tied to it")


def _reshaped(
    name: str, matches: Mapping[str, Match], shapes: Mapping[str, tuple[int, ...]], flat: bool
) -> tuple[int, ...] | None:
    """What the source of a canonical tensor is to be reshaped to; None is as it is. `flat`: files without shapes."""
    match = matches[name]
    shape = shapes[match.source]
    if name.endswith("position_embeddings.weight") and len(shape) == 3 and shape[0] == 1:
        return shape[1:]
    if match.transpose and len(shape) == 3:
        if _PROJECTED.search(name):  # (hidden, heads, size of a head)
            return (shape[0], shape[1] * shape[2])
        if _MERGED.search(name):  # (heads, size of a head, hidden)
            return (shape[0] * shape[1], shape[2])
    if len(shape) == 2 and name.endswith(".bias") and _PROJECTED.search(name):
        return (shape[0] * shape[1],)
    if flat and len(shape) == 1 and name.endswith(".weight") and not is_norm(name):
        return _unflattened(name, matches, shapes)
    return None


def _unflattened(
    name: str, matches: Mapping[str, Match], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...] | None:
    """The shape that a weight of a file without shapes must have by its bias, an embedding by the LayerNorm behind it."""
    embedding = names_canonical.is_embedding(name)
    partner = re.sub(r"[a-z_]+\.weight$", "LayerNorm.bias", name) if embedding else re.sub("weight$", "bias", name)
    if partner not in matches:
        return None
    elements, (width, *_) = prod(shapes[matches[name].source]), (*shapes[matches[partner].source], 0)
    if not width or elements % width:
        return None
    by_bias_first = not embedding and not matches[name].transpose
    return (width, elements // width) if by_bias_first else (elements // width, width)


def _nothing_known(shapes: Mapping[str, tuple[int, ...]], prefix: str | None) -> str:
    behind = "" if prefix is None else f" behind --prefix {shown(prefix)}"
    first = ", ".join(plain(name, 97) for name in list(shapes)[:_SHOWN]) or "none"
    return (
        f"no tensor has a name that is known{behind}; the first names are {first}; supported are checkpoints of"
        f" {', '.join(FAMILIES)} and roberta with the names of {', '.join(DIALECTS)}"
    )
