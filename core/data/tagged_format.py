"""How files of words with labels are read, as a recipe's `task` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaggedFormat:
    """What a file does not say about itself, and what is made of it."""

    text: str = ""
    """The column of words, or of the text; empty: the first column, or `text`."""
    label: str = ""
    """The column of labels, or of spans; empty: the last column, or `spans`."""
    columns: tuple[str, ...] | None = None
    encoding: str | None = None
    scheme: str = "auto"
    all_pieces: bool = False
    overlap: int | None = None
    constrained: bool = False
    stray: bool = False
    """Whether a tag that goes on with nothing begins a span."""
