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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any

from ..core.errors import CheckpointError, did_you_mean
from ..core.shown import plain, shown
from . import names_canonical, names_mindspore, names_oneflow, names_tensorflow
from .names_canonical import FAMILIES, ROBERTA, TIED, is_norm
from .rules import Match, Spelling, Table

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


@dataclass(frozen=True)
class _Dialect:
    table: Callable[[str], Table]
    spell: Callable[[Iterable[str], str, Mapping[str, Any]], Spelling]


_CANONICAL = _Dialect(names_canonical.table, names_canonical.spell)
DIALECTS: dict[str, _Dialect] = {
    "canonical": _CANONICAL,
    "tensorflow": _Dialect(names_tensorflow.table, names_tensorflow.spell),
    "mindspore": _Dialect(partial(names_mindspore.table, dialect="mindspore"), names_mindspore.spell),
    "mindspore-old": _Dialect(partial(names_mindspore.table, dialect="mindspore-old"), names_mindspore.spell),
    "oneflow": _CANONICAL,
    "oneflow-legacy": _Dialect(names_oneflow.table, names_oneflow.spell),
}

_OPTIMIZER, _TRAINING, _BUFFER = "state of the optimizer", "state of the training", "buffer that follows from the configuration"
_LEFT_OUT = (
    (re.compile(r"(^|/)(adam|lamb)_[mv](_[0-9]+)?(:0)?$|(^|/)(AdamWeightDecay|LAMB)Optimizer|/Adam(_1)?(:0)?$"), _OPTIMIZER),
    (re.compile(r"/\.OPTIMIZER_SLOT/|^(.*/)?optimizer/|^(adam|adamw|Adam)/"), _OPTIMIZER),
    (re.compile(r"^[^./]*-[mv]$"), _OPTIMIZER),
    (re.compile(r"^(adam_[mv]|lamb_[mv]|moments?[12]?|momentum_buf|accum|vhat|stat|mean_(square|grad))\."), _OPTIMIZER),
    (re.compile(r"^(max_)?exp_avg(_sq(_row|_col)?)?[._]|^(state_step|step_t|afactor_step)$"), _OPTIMIZER),
    (re.compile(r"^(beta[12]_power|learning_rate(_group_[0-9]+)?|weight_decay|momentum)(:0)?$"), _OPTIMIZER),
    (re.compile(r"^(global_step|save_counter|step_num|epoch_num|epoch|step)(:0|/.*)?$|^System-"), _TRAINING),
    (re.compile(r"^(loss_scale|scale_sense|temperature|current_iterator_step|last_overflow_iterator_step)$"), _TRAINING),
    (re.compile(r"(^|[./-])position_ids$|embeddings[./-]token_type_ids$"), _BUFFER),
)
_COPY = "copy of a tensor that it is tied to"

_PROJECTED = re.compile(r"(query|key|value|[qkv]_lin)\.(weight|bias)$")
_MERGED = re.compile(r"(attention\.output\.dense|attention\.dense|out_lin)\.weight$")
_SHOWN = 3
_SUGGESTIONS = 50
"""So many unknown names get the nearest known one, whose search is slow."""


def recognise(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None, dialect: str | None = None
) -> Recognised:
    """What the names mean, in this dialect or in that which fits best. Raises CheckpointError where none does, where two
    fit equally well, and where two tensors claim the same place."""
    if dialect is not None and dialect not in DIALECTS:
        raise CheckpointError(f"dialect '{dialect}': expected one of {', '.join(DIALECTS)}{did_you_mean(dialect, DIALECTS)}")
    config = config or {}
    families = _families(config)
    readings = [
        _read(shapes, family, name, config)
        for name in (DIALECTS if dialect is None else [dialect])
        for family in families
    ]
    score = max(reading.score for reading in readings)
    best = [reading for reading in readings if reading.score == score]
    if score == 0:
        raise CheckpointError(_nothing_known(shapes))
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
    if best[0].claimed:
        name, sources = next(iter(best[0].claimed.items()))
        raise CheckpointError(f"{' and '.join(sources)} are both {name}; expected one of them")
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


@dataclass
class _Reading:
    found: Recognised
    claimed: dict[str, list[str]]
    """Canonical name -> the names in the file that all are it, where they are several."""

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


def _read(shapes: Mapping[str, tuple[int, ...]], family: str, dialect: str, config: Mapping[str, Any]) -> _Reading:
    dropped = {name: reason for name in shapes if (reason := _left_out(name))}
    spelling = DIALECTS[dialect].spell([name for name in shapes if name not in dropped], family, config)
    found = Recognised(dialect, family, {}, dropped | spelling.dropped, notes=spelling.notes)
    sources: dict[str, list[str]] = {}
    table = DIALECTS[dialect].table(family)
    for source, spelled in spelling.names.items():
        rule = table.canonical(spelled)
        if rule is None:
            found.unknown[source] = spelled
            continue
        name, transpose = rule
        sources.setdefault(name, []).append(source)
        found.matches[name] = Match(source, transpose)
    if config.get("tie_word_embeddings") is not False:
        _leave_out_copies(found)
    for name, match in found.matches.items():
        first_row = spelling.first_position if name.endswith("position_embeddings.weight") else 0
        shape = _reshaped(name, found.matches, shapes, flat=dialect == "oneflow-legacy")
        found.matches[name] = Match(match.source, match.transpose, shape, first_row)
    return _Reading(found, {name: several for name, several in sources.items() if len(several) > 1})


def _left_out(name: str) -> str:
    return next((reason for pattern, reason in _LEFT_OUT if pattern.search(name)), "")


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


def _nothing_known(shapes: Mapping[str, tuple[int, ...]]) -> str:
    first = ", ".join(plain(name, 97) for name in list(shapes)[:_SHOWN]) or "none"
    return (
        f"no tensor has a name that is known; the first names are {first}; supported are checkpoints of"
        f" {', '.join(FAMILIES)} and roberta with the names of {', '.join(DIALECTS)}"
    )
