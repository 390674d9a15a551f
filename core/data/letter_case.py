"""Whether a tokenizer's vocabulary has capital letters, and its texts keep theirs."""

from __future__ import annotations

import re
from collections.abc import Collection

import tokenizers
from tokenizers import models

CASED_SHARE = 0.01
"""Of the tokens of a vocabulary with capital letters, above which it is a cased one (Google's: 0 and 29 %)."""

_CAPITAL = re.compile("[A-Z]")


def upper_case_share(tokens: Collection[str]) -> float:
    """The share of tokens with a capital letter; special ones ([CLS], [unused1]) do not count."""
    words = [token for token in tokens if not (token.startswith("[") and token.endswith("]"))]
    return sum(token != token.lower() for token in words) / max(1, len(words))


def lowers(library: tokenizers.Tokenizer) -> bool:
    """Whether texts are lower-cased before they are looked up."""
    return library.normalizer is not None and library.normalizer.normalize_str("A") == "a"


def lost_capitals(library: tokenizers.Tokenizer, special: Collection[int]) -> float:
    """The share of tokens that no text reaches for their capital letters; 0 where texts keep them or the vocabulary hardly has
    any. Of vocabularies other than WordPiece's only ASCII letters count: byte-level ones write bytes as letters of all kinds."""
    if not lowers(library):
        return 0.0
    vocabulary = library.get_vocab(with_added_tokens=True)
    if isinstance(library.model, models.WordPiece):
        share = upper_case_share(vocabulary)
    else:
        words = [token for token, index in vocabulary.items() if index not in special]
        share = sum(_CAPITAL.search(token) is not None for token in words) / max(1, len(words))
    return share if share > CASED_SHARE else 0.0
