"""How files of words with labels are read, as a recipe's `task` says, and what their columns are called where it does not."""

from __future__ import annotations

from dataclasses import dataclass

JSON_TEXT = "text"
"""The column of texts with spans."""
SPANS = ("spans", "entities")
"""The column of spans, the first that is there."""
WORDS = ("tokens", "words")
"""The column of lists of words."""
LABELS = ("ner_tags", "tags", "labels", "pos_tags")
"""The column of lists of their labels."""


@dataclass(frozen=True)
class TaggedFormat:
    """What a file does not say about itself, and what is made of it."""

    text: str = ""
    """The column of words, or of the text; empty: the first column, or `text`, or of lists of words `WORDS`."""
    label: str = ""
    """The column of labels, or of spans; empty: the last column, or `spans`, or of lists `LABELS`."""
    columns: tuple[str, ...] | None = None
    encoding: str | None = None
    scheme: str = "auto"
    all_pieces: bool = False
    overlap: int | None = None
    constrained: bool = False
    stray: bool = False
    """Whether a tag that goes on with nothing begins a span."""
    classes: tuple[str, ...] | None = None
    """The names of labels that are numbers, where a file has none."""
