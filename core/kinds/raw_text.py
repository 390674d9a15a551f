"""Raw text: nothing to predict but the text itself, or the words of it that are masked."""

from __future__ import annotations

from ..models.answer_heads import NO_HEAD, WORDS
from .kind import Kind


class RawText(Kind):
    """Texts from which only what a teacher makes of them is learned; a model has no head for it."""

    name, title, described = "text", "raw text", "raw text"
    head = NO_HEAD
    has_targets = has_classes = False

    def outputs(self, labels):
        return None


class MaskedText(RawText):
    """Texts of which some tokens are masked: a model guesses them."""

    name, title, described = "mlm", "masked words", "raw text"
    head = WORDS
    is_redrawn = True
