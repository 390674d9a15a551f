"""All kinds of tasks, this package's and those of plugins, by their names in a recipe and by what people call them."""

from __future__ import annotations

from collections.abc import Iterable

from ..models.answer_heads import EMBEDDINGS, SPANS, TOKENS
from ..models.spec import ModelConfig
from .answers import Answers
from .kind import Kind
from .one_class import OneClass
from .one_number import OneNumber
from .ranking import Ranking
from .raw_text import MaskedText, NextText, RawText
from .sentence_embeddings import SentenceEmbeddings
from .several_labels import SeveralLabels
from .token_labels import TokenLabels

ONE_CLASS, ONE_NUMBER, SEVERAL_LABELS = OneClass(), OneNumber(), SeveralLabels()
TOKEN_LABELS, ANSWERS, SENTENCE_EMBEDDINGS, RANKING = TokenLabels(), Answers(), SentenceEmbeddings(), Ranking()
RAW_TEXT, MASKED_TEXT, NEXT_TEXT = RawText(), MaskedText(), NextText()

_ALL: tuple[Kind, ...] = (
    *(ONE_CLASS, ONE_NUMBER, SEVERAL_LABELS, TOKEN_LABELS, ANSWERS, SENTENCE_EMBEDDINGS, RANKING),
    *(RAW_TEXT, MASKED_TEXT, NEXT_TEXT),
)
KINDS = {kind.name: kind for kind in _ALL}
"""Name in a recipe -> kind; those of plugins come when they are loaded."""
BUILT_IN: tuple[str, ...] = tuple(KINDS)
"""The names of those of this package."""
OF_TABLES = tuple(name for name, kind in KINDS.items() if kind.has_targets and not kind.over_tokens and kind.one_row)
"""The names of those of this package whose examples are rows with an answer."""


def add_kinds(kinds: Iterable[Kind]) -> None:
    """Make kinds of plugins known, in place of those of the same name that other plugins brought."""
    KINDS.update({kind.name: kind for kind in kinds})


def kind_named(name: str | None) -> Kind:
    """That of a recipe's `task.kind`; classes where it names none."""
    return ONE_CLASS if name is None else KINDS[name]


def kind_titled(title: str) -> Kind:
    """The kind that people call so."""
    return next(kind for kind in KINDS.values() if kind.title == title)


def kind_of_model(outputs: int | None, problem_type: str | None = None, config: ModelConfig | None = None) -> Kind:
    """What a model with so many logits, or None, answers: classes unless its configuration says more."""
    if getattr(config, "classifier", None) == EMBEDDINGS:
        return SENTENCE_EMBEDDINGS
    if outputs is None:
        return RAW_TEXT
    if getattr(config, "classifier", None) == TOKENS:
        return TOKEN_LABELS
    if getattr(config, "classifier", None) == SPANS:
        return ANSWERS
    if outputs == 1:
        return ONE_NUMBER
    return SEVERAL_LABELS if problem_type == SEVERAL_LABELS.problem_type else ONE_CLASS
