"""Which tensors beside a model look like its head, under a name that nobody knows: what `--rename` would read them as.

Training code calls the last map of a classifier as it likes (`fc`, `head.out`), and puts it beside an encoder whose names have a
prefix. Names do not tell whether it is the head, but shapes do: a linear map of the encoder's width. It is only suggested, since
no tensor tells what the training code computed before it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping

from ..core.models.families import CONFIGURATIONS

_ACTIVATIONS = {"relu": "a ReLU", "gelu": "a GELU", "tanh": "a tanh"}

_DEPTH = 8
"""Parts of a name that a pattern may have."""


def suggested_renames(
    unknown: Mapping[str, tuple[int, ...]],
    family: str,
    width: int | None,
    known: Callable[[str], bool],
    taken: Collection[str],
    prefix: str = "",
) -> tuple[list[str], str]:
    """(values of `--rename` with which the unknown tensors are read, each in quotes of a shell; what they are read as), both
    empty where nothing can be said. `unknown` holds the shapes by the names of the file, `width` is the encoder's, `known` tells
    whether the family has a tensor of that name, `taken` are the canonical ones that the file has, and `prefix` is what their
    names start with there: parts of the model that lie beside it get it too."""
    if parts := list(dict.fromkeys(name.split(".")[0] for name in unknown if known(name) and name not in taken)):
        return _quoted((f"{part}.*", f"{prefix}{part}.*") for part in parts), "parts of the model"
    own, what = CONFIGURATIONS[family].family, "the classifier"
    head, before, stems = own.name("classifier"), None, _linear(unknown, width)
    if not own.pooler_in_encoder and "pooler" in own.by_role:  # a square map before the last one
        before = own.name("pooler")
        what += f", behind {before} and {_ACTIVATIONS[own.pooler_activation]}"
    squares = [stem for stem, rows in stems.items() if rows == width]
    if f"{head}.weight" in taken or len(stems) != (1 if before is None else 2) or (before is not None and len(squares) != 1):
        return [], ""
    last = next(stem for stem in stems if before is None or stem not in squares)
    pairs = [(f"{last}.*", f"{head}.*")]
    return _quoted(pairs if before is None else [(f"{squares[0]}.*", f"{before}.*"), *pairs]), what


def left_out_patterns(unknown: Iterable[str], read: Iterable[str]) -> list[str]:
    """Values of `--allow-extra` that leave the unknown tensors out and none that is read, each in quotes of a shell."""
    own = {start for name in read for start in _starts(name)}
    patterns = (next((f"{start}*" for start in _starts(name) if start not in own), name) for name in unknown)
    return [shlex.quote(pattern) for pattern in dict.fromkeys(patterns)]


def _starts(name: str) -> list[str]:
    """The leading parts of a name, each with its dot."""
    parts = name.split(".")[:_DEPTH]
    return [".".join(parts[:depth]) + "." for depth in range(1, len(parts))]


def _linear(unknown: Mapping[str, tuple[int, ...]], width: int | None) -> dict[str, int]:
    """What the names of linear maps of this width start with -> rows of its result."""
    stems = {}
    for name, shape in unknown.items():
        stem, _, part = name.rpartition(".")
        if part == "weight" and len(shape) == 2 and shape[1] == width and unknown.get(f"{stem}.bias", shape[:1]) == shape[:1]:
            stems[stem] = shape[0]
    return stems


def _quoted(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return [shlex.quote(f"{pattern}={name}") for pattern, name in pairs]
