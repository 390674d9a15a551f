"""Where words begin in what a tokenizer makes of a text, for masks of whole words.

A word is what the pre-tokenizer cuts a text into, so that no vocabulary's marks of words need be known. Where a script is written
without spaces that would be a whole sentence, which never fits what may be masked. There each piece is a word, but the pieces of
one character (byte-level tokenizers cut them) stay together.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
import tokenizers

_MARK = "\u2581"
# Thai, Lao, Myanmar, Khmer; kana, bopomofo, CJK signs and ideographs with their extensions; no Hangul, which has spaces.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3040-\u312f\u31a0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")


def encoded_words(library: tokenizers.Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pieces of texts without special tokens around them: ids (pieces,) int32, the number of each text (texts,), and which
    pieces begin a word (pieces,) bool."""
    encodings = library.encode_batch(list(texts), add_special_tokens=False)
    ids = np.fromiter(itertools.chain.from_iterable(each.ids for each in encodings), np.int32)
    lengths = np.array([len(each.ids) for each in encodings], np.int64)
    starts = [word_starts(text, each) for text, each in zip(texts, encodings)]
    return ids, lengths, np.concatenate([np.zeros(0, bool), *starts])


def word_starts(text: str, encoding: tokenizers.Encoding) -> np.ndarray:
    """Which pieces of an encoding of `text`, without special tokens, begin a word: (pieces,) bool."""
    words = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
    starts = np.ones(len(words), bool)
    starts[1:] = words[1:] != words[:-1]
    starts |= np.fromiter((token.startswith(_MARK) for token in encoding.tokens), bool, len(words))
    if len(words) and _IS_UNSPACED.search(text):
        is_unspaced = np.zeros(len(text) + 1, np.int64)
        is_unspaced[[found.start() + 1 for found in _IS_UNSPACED.finditer(text)]] = 1
        counts = np.cumsum(is_unspaced)
        firsts, ends = np.array(encoding.offsets, np.int64).T
        alone = counts[ends] > counts[firsts]
        starts[1:] |= (alone[1:] | alone[:-1]) & (firsts[1:] >= ends[:-1])
    return starts
