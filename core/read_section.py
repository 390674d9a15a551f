"""The section of a recipe that says how a checkpoint is read."""

from __future__ import annotations

from .section import Section


class ReadSection(Section):
    """How a checkpoint is read that does not say everything itself, as the options of `crossdistil convert` of the same names:
    the prefix of its model's names, tensors under other names (`fc.*=classifier.*`), patterns of tensors to leave out, moving
    averages instead of the weights, the successor of BERT-of-Theseus."""

    prefix: str | None = None
    """Where the model's names begin, of a file that holds several models."""
    rename: tuple[str, ...] = ()
    """Tensors that are read under another name."""
    allow_extra: tuple[str, ...] = ()
    """Patterns of tensors that are left out."""
    ema: bool = False
    """Read the moving averages in place of the weights."""
    successor: bool = False
    """Read the successor of a BERT-of-Theseus training."""
