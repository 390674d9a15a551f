"""Texts that are asked about one by one, as a service is: the rows that a model reads of them, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.token_table import TokenTable


@dataclass(frozen=True)
class Asked:
    """Texts as a model reads them."""

    table: TokenTable
    """Its rows are what is computed: of each text one, or several windows, in the order of the texts."""
    owners: np.ndarray
    """(rows,) the number of each row's text."""
    cut: np.ndarray
    """(texts,) booleans: which texts have more tokens than are read."""
    answers: Callable[[Sequence[int], Sequence[Sequence[np.ndarray]]], list[dict[str, Any]]]
    """`answers(texts, logits)`: what predictions say of the texts of these numbers, each by the logits of its rows in their
    order; those of tokens may be followed by those of padding."""


def whole_texts(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    length: int,
    answers: Callable[[np.ndarray], list[dict[str, Any]]],
) -> Asked:
    """Of each text, or pair of texts, one row of at most `length` tokens, and the `answers` to logits (texts, outputs)."""
    table = tokenizer.encode_pairs(texts, pairs, length)
    cut = np.zeros(len(texts), bool)
    full = np.flatnonzero(np.asarray(table.lengths) >= length)
    if len(full):  # with room for one more, those that are cut have more
        others = None if pairs is None else [pairs[row] for row in full]
        longer = tokenizer.encode_pairs([texts[row] for row in full], others, length + 1)
        cut[full] = np.diff(longer.offsets) > np.diff(table.offsets)[full]
    return Asked(table, np.arange(len(texts)), cut, lambda _, logits: answers(np.stack([own[0] for own in logits])))
