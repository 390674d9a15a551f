"""Which teacher layer a student layer learns from: published rules by name, or a list of pairs.

Layers are counted from 1, and 0 is the embedding output. With N teacher and n student layers:
    uniform   m <- m N / n for m = 1..n                   (TinyBERT, Jiao et al. 2020, section 4.1)
    skip      m <- m N / n for m = 1..n-1                 (PKD-Skip, Sun et al. 2019, section 3.2)
    last      m <- N - n + m for m = 1..n-1               (PKD-Last, the same)
    top       m <- N - n + m for m = 1..n                 (TinyBERT's ablation)
    bottom    m <- m for m = 1..n                         (the same)
    final     n <- N                                      (DistilBERT, Sanh et al. 2019)
The last layer is left out of PKD's rules, because its output reaches the loss through the logits.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

RULES = ("uniform", "skip", "last", "top", "bottom", "final")

Layer = Annotated[int, Field(ge=0, strict=True)]
Side = Layer | Annotated[tuple[Layer, Layer], Field()]
Pairs = tuple[tuple[Side, Side], ...]
"""(teacher, student) pairs; a side is a layer, or two layers for the losses that compare a pair of them (`fsp`, `mmd`)."""


def resolve_layers(choice: str | Pairs, teacher_layers: int, student_layers: int) -> Pairs:
    """The (teacher, student) pairs that a rule or a list means. Raises ValueError with what does not fit."""
    total, own = teacher_layers, student_layers
    if not isinstance(choice, str):
        return _checked(choice, total, own)
    if choice in ("uniform", "skip"):
        if total % own:
            raise ValueError(
                f"'{choice}' needs a number of teacher layers that is a multiple of the student's, got {total} and {own}; "
                f"give a list of [teacher, student] layers{_fitting(None, total, own)}"
            )
        pairs = tuple((m * total // own, m) for m in range(1, own + 1))
    elif choice == "final":
        pairs = ((total, own),)
    elif choice == "bottom":
        pairs = tuple((m, m) for m in range(1, own + 1))
    else:
        pairs = tuple((total - own + m, m) for m in range(1, own + 1))
    if choice in ("skip", "last"):
        pairs = pairs[:-1]
    if not pairs:
        raise ValueError(f"'{choice}' matches no layer of a student of one layer{_fitting(None, total, own)}")
    return _checked(pairs, total, own)


def even_layers(available: int, wanted: int) -> list[int]:
    """Evenly spaced layers, counted from 0, for a student that starts from them; at most as many as there are."""
    wanted = min(wanted, available)
    return [index * available // wanted for index in range(wanted)]


def placed(place: str, key: str, text: str) -> str:
    """The problem of a key as one line; layers that would fit are told as the setting that takes them."""
    told, found, layers = text.partition(_FITTING)
    dotted = re.sub(r"\[(\d+)\]", r".\1", f"{place}.{key}")
    return f"{place}.{key}: {told}" + (f"; for example --set '{dotted}={layers}'" if found else "")


_FITTING = "; layers that fit: "


def _fitting(pairs: Pairs | None, total: int, own: int) -> str:
    """Pairs that are even and fit two models: of a list those of its student's layers, else of all."""
    wanted = range(1, own + 1) if pairs is None else [side for _, side in pairs if isinstance(side, int) and side <= own]
    even = [[round(layer * total / own), layer] for layer in wanted]
    return f"{_FITTING}{even}" if even else ""


def _checked(pairs: Pairs, total: int, own: int) -> Pairs:
    if not pairs:
        raise ValueError("expected at least one [teacher, student] pair of layers")
    for teacher, student in pairs:
        for who, side, count in (("teacher", teacher, total), ("student", student, own)):
            for layer in sides(side):
                if not 0 <= layer <= count:
                    raise ValueError(
                        f"{who} layer {layer} does not exist; the {who} has layers 1 to {count}, and 0 for the embeddings"
                        + _fitting(pairs, total, own)
                    )
    return pairs


def sides(side: Side) -> tuple[int, int]:
    """A side as two layers."""
    return (side, side) if isinstance(side, int) else side


def pairs_text(pairs: Pairs) -> str:
    """`3→1, 6→2` for people."""
    return ", ".join(f"{_side_text(teacher)}→{_side_text(student)}" for teacher, student in pairs)


def _side_text(side: Side) -> str:
    return str(side) if isinstance(side, int) else f"({side[0]},{side[1]})"
