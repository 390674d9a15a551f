"""Where words begin among word pieces: at each piece, at those without ##, or at those of a Chinese segmenter's words.

A Chinese character is a piece of its own, so that pieces say nothing of its word. jieba's words are laid over the pieces by their
places in the text. A word of several pieces ("模型", "卡拉OK") is then masked as a whole, while inputs and labels stay the
characters' own ids (Cui et al. 2019, arXiv 1906.08101, without their detour over ## pieces). Words without a Chinese character
are left to the pieces, and so is every word whose ends do not fall between two words of the tokenizer.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence

import numpy as np

from ..token_cache import default_cache_folder
from .vocabulary import Vocabulary, is_cjk

_CHUNK = 4096  # texts encoded at once
Segment = Callable[[str], list[int]]
"""The lengths in characters of a text's words, all characters among them."""


def jieba_segmenter() -> Segment:
    """jieba's accurate mode with its model for unknown words."""
    import jieba

    jieba.setLogLevel(logging.WARNING)
    # Its own object: jieba keeps its dictionary unpacked, by default in a temporary folder where others may write.
    tokenizer = jieba.Tokenizer()
    folder = default_cache_folder() / "jieba"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.tmp_dir = str(folder)
    except OSError:  # it is done without, like other caches
        pass
    tokenizer.initialize()
    return lambda text: [len(word) for word in tokenizer.cut(text)]


class Encoder:
    """Sentences to pieces with the places where words begin. `segment` replaces jieba."""

    def __init__(self, vocabulary: Vocabulary, whole_words: str, segment: Segment | None = None):
        self._vocabulary, self._whole_words = vocabulary, whole_words
        self._segment = segment or (jieba_segmenter() if whole_words == "chinese" else None)

    def encode(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids (pieces,) int32 of all sentences, whether a word begins there (pieces,), and pieces of each (sentences,)."""
        parts = [self._encode(sentences[start : start + _CHUNK]) for start in range(0, len(sentences), _CHUNK)]
        ids, begins, lengths = (np.concatenate(arrays) for arrays in zip(*parts))
        return ids, begins, lengths

    def _encode(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._whole_words != "chinese":
            ids, lengths = self._vocabulary.tokenizer.encode_pieces(sentences)
            begins = np.ones(len(ids), bool) if self._whole_words == "none" else ~self._vocabulary.continues[ids]
            return ids, begins, lengths
        encodings = self._vocabulary.tokenizer.library.encode_batch(list(sentences), add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        lengths = np.array([len(row) for row in rows], np.int64)
        ids = np.fromiter(itertools.chain.from_iterable(rows), np.int32)
        flat = itertools.chain.from_iterable(itertools.chain.from_iterable(encoding.offsets for encoding in encodings))
        places = np.fromiter(flat, np.int64).reshape(-1, 2)
        begins = ~self._vocabulary.continues[ids]
        return ids, begins & ~self._joined(sentences, places, begins, lengths), lengths

    def _joined(self, sentences: Sequence[str], places: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Whether a piece belongs to a word of the segmenter that began before it."""
        codes = np.frombuffer("".join(sentences).encode("utf-32-le"), np.uint32)
        chinese = is_cjk(codes)
        sizes = np.array([len(sentence) for sentence in sentences], np.int64)
        starts = np.cumsum(sizes) - sizes
        words: list[int] = []
        for sentence, start, size in zip(sentences, starts.tolist(), sizes.tolist()):
            found = self._segment(sentence) if chinese[start : start + size].any() else [1] * size
            words += found if sum(found) == size else [1] * size  # it dropped something: its places mean nothing
        joined = np.zeros(len(begins), bool)
        if not len(begins) or not words:
            return joined
        word_of = np.repeat(np.arange(len(words)), words)  # of each character
        usable = np.bincount(word_of[chinese], minlength=len(words)) > 0
        base = np.repeat(starts, lengths)
        first, last = word_of[places[:, 0] + base], word_of[np.maximum(places[:, 1] - 1, places[:, 0]) + base]
        # A word of the tokenizer that lies in two of the segmenter's: neither has its ends between the tokenizer's words.
        follows = ~begins
        follows[0] = False
        torn = np.flatnonzero(follows & (first != np.roll(last, 1)))
        across = np.flatnonzero(first != last)
        for ends in ((last[torn - 1], first[torn]), (first[across], last[across])):
            for one in ends:
                usable[one] = False
        joined[1:] = (first[1:] == last[:-1]) & usable[first[1:]]
        return joined
