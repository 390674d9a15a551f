"""Where words begin among word pieces: at each piece, at those without ##, or at those of a Chinese segmenter's words.

A Chinese character is a piece of its own, so that pieces say nothing of its word. jieba's words are laid over the pieces by their
places in the text. A word of several pieces ("模型", "卡拉OK") is then masked as a whole, while inputs and labels stay the
characters' own ids (Cui et al. 2019, arXiv 1906.08101, without their detour over ## pieces). Words without a Chinese character
are left to the pieces, and so is every word whose ends do not fall between two words of the tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .jieba_words import JiebaWords
from .pieces import Pieces, PieceTable
from .vocabulary import Vocabulary, is_cjk

Segment = Callable[[np.ndarray], np.ndarray]
"""Code points (characters,) of texts with line ends between them -> whether a word begins at each (characters,) bool."""


class Encoder:
    """Sentences to pieces with the places where words begin. `segment` replaces jieba."""

    def __init__(self, vocabulary: Vocabulary, whole_words: str, segment: Segment | None = None):
        self._vocabulary, self._whole_words = vocabulary, whole_words
        self._table = PieceTable(vocabulary.tokenizer.library)
        self._segment = segment or (JiebaWords().begins if whole_words == "chinese" else None)

    def encode(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (pieces,) int32 of all sentences, whether a word begins there (pieces,), and pieces of each (sentences,)."""
        pieces = self._table.encode(sentences)
        begins = np.ones(len(pieces.ids), bool) if self._whole_words == "none" else ~self._vocabulary.continues[pieces.ids]
        if self._whole_words == "chinese" and len(begins):
            begins &= ~self._joined(pieces, begins)
        return pieces.ids, begins, pieces.lengths

    def _joined(self, pieces: Pieces, begins: np.ndarray) -> np.ndarray:
        """Whether a piece belongs to a word of the segmenter that began before it."""
        codes = np.frombuffer(pieces.text.encode("utf-32-le"), np.uint32)
        word_of = np.cumsum(self._segment(codes)) - 1  # of each character
        usable = np.bincount(word_of[is_cjk(codes)], minlength=word_of[-1] + 1) > 0
        first, last = word_of[pieces.firsts], word_of[np.maximum(pieces.ends - 1, pieces.firsts)]
        # A word of the tokenizer that lies in two of the segmenter's: neither has its ends between the tokenizer's words.
        follows = ~begins
        follows[0] = False
        torn = np.flatnonzero(follows & (first != np.roll(last, 1)))
        across = np.flatnonzero(first != last)
        for ends in ((last[torn - 1], first[torn]), (first[across], last[across])):
            for one in ends:
                usable[one] = False
        joined = np.zeros(len(begins), bool)
        joined[1:] = (first[1:] == last[:-1]) & usable[first[1:]]
        return joined
