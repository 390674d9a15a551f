"""Raw text: nothing to predict but the text itself, the words of it that are masked, or the next one at each place."""

from __future__ import annotations

from ..metrics import CLM_LOSS, MLM_LOSS
from ..models.answer_heads import NEXT_WORDS, NO_HEAD, WORDS
from .kind import Kind


class RawText(Kind):
    """Texts from which only what a teacher makes of them is learned; a model has no head for it."""

    name, title, described = "text", "raw text", "raw text"
    head = NO_HEAD
    has_targets = has_classes = is_used = False

    def outputs(self, labels):
        return None


class MaskedText(RawText):
    """Texts of which some tokens are masked: a model guesses them."""

    name, title, described = "mlm", "masked words", "raw text"
    head, words_metric = WORDS, MLM_LOSS
    not_kept = "it sees masked texts, which are masked anew in every epoch"


class NextText(RawText):
    """Texts of which a model guesses each next token from those before it."""

    name, title, described = "clm", "next words", "raw text"
    head, words_metric = NEXT_WORDS, CLM_LOSS
    not_kept = "what it says of the next word is compared as it is made: kept, it would be a vector for each token of the corpus"
