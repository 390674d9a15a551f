"""Tensors that are no part of a model: refused, with what can be done about them, unless the user leaves them out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ..core.errors import CheckpointError
from ..core.models.sizes import sizes
from .dialects import DIALECTS
from .head_suggestions import left_out_patterns, suggested_renames
from .recognise import Recognised
from .tensors import Tensor

_SHOWN = 5
_PATTERNS = 3


def refuse_unknown(path: Path, unknown: Mapping[str, str], found: Recognised, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError with the unknown tensors (name in the file -> the nearest that is known), and what can be done."""
    if not unknown:
        return
    renames, what = [], ""
    if found.dialect in ("canonical", "oneflow"):
        canonical = {name: match.canonical_shape(shapes[match.source]) for name, match in found.matches.items()}
        own_sizes = sizes(found.family, canonical)
        width = own_sizes.get("dim", own_sizes.get("hidden_size"))
        table = DIALECTS[found.dialect].table(found.family)
        given = {name: shapes[name] for name in unknown}
        renames, what = suggested_renames(
            given, found.family, width, lambda name: table.canonical(name) is not None, found.matches, found.prefix
        )
    lines = []
    for name, near in unknown.items():
        lines.append(
            f"{path}: unknown tensor {name}" + (f"; did you mean {near}?" if near not in ("", name) and not renames else "")
        )
    more = f"\nand {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    prefix = f", whose names start with '{found.prefix}'" if found.prefix else ""
    extra = left_out_patterns(unknown, (match.source for match in found.matches.values()))
    reads = (
        f"{_options('--rename', renames)} reads them as {what}"
        if renames
        else "--rename PATTERN=NAME reads them under another name"
    )
    leaves = f"{_options('--allow-extra', extra if len(extra) <= _PATTERNS else ['PATTERN'])} leaves them out"
    raise CheckpointError("\n".join(lines[:_SHOWN]) + f"{more}\n(no part of the model{prefix}; {reads}, {leaves})")


def _options(name: str, values: Iterable[str]) -> str:
    return " ".join(f"{name} {value}" for value in values)


def refuse_trained(path: Path, added: Iterable[Tensor]) -> None:
    """What a DistilBERT gets for Google's graph is left out again only as long as it says nothing: a graph that was trained
    further has weights there."""
    problems = []
    for tensor in added:
        name, array = tensor.info.name, tensor.load()
        size = math.isqrt(array.size)
        is_kernel = name.endswith(("kernel", "weight"))
        if is_kernel:
            trained = size * size != array.size or not np.array_equal(array.reshape(size, size), np.eye(size))
        else:
            trained = array.any()
        if trained:
            what = "an identity matrix" if is_kernel else "zeros"
            problems.append(
                f"{path}: {name} holds weights that a DistilBERT has no place for, expected {what}, as a conversion adds for "
                f"Google's graph; --allow-extra {name} leaves it out"
            )
    if problems:
        raise CheckpointError("\n".join(problems))
