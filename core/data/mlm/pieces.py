"""Word pieces of a great deal of text: the tokenizer is asked about each word once, and what it said is looked up after that.

BERT's tokenizers split at blanks, at each sign of ASCII and around each Chinese character before anything else, so that what
stands between two of these gives the same pieces wherever it is.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
from tokenizers import normalizers, pre_tokenizers

CJK = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""Code points that BERT's tokenizers take for a word each (first and last of each range)."""
_LIBRARY_CJK = (*CJK[:5], (0x2B920, 0x2CEAF), *CJK[6:])  # what the `tokenizers` library takes for them

_WORDS, _CHARACTERS = 1 << 17, 1 << 21  # beyond which all is forgotten
_CJK = "".join(f"{chr(first)}-{chr(last)}" for first, last in _LIBRARY_CJK)
_SIGNS = r"!-/:-@\[-`{-~"
# With the blank behind it, so that the parts make the whole text and say where each lies.
_PART = re.compile(f"[{_SIGNS}] ?|[{_CJK}]|[^ \\t\\n\\r{_SIGNS}{_CJK}]+ ?|[ \\t\\r]+|\\n")
_END = "\n"  # of a text
_CHUNK = 512  # words in one text for the tokenizer, or texts


@dataclass(frozen=True)
class Pieces:
    """`ids` (pieces,) int32 and `lengths` (texts,), the pieces of each text. `text` is all texts, each but the last with a line
    end behind it, and `firsts` and `ends` (pieces,) where a piece begins and what is behind it in `text`."""

    ids: np.ndarray
    lengths: np.ndarray
    text: str
    firsts: np.ndarray
    ends: np.ndarray


class _Numbers(dict):
    """Word -> its number, a new one for a new word; those are also in `new`."""

    def __init__(self, known: dict[str, int]):
        super().__init__(known)
        self.new: list[str] = []

    def __missing__(self, word: str) -> int:
        self.new.append(word)
        self[word] = number = len(self)
        return number


class PieceTable:
    """The pieces of texts by the tokenizer `library`, without special tokens around them.

    Special tokens that are written in a text are for `library.encode_special_tokens` to decide.
    """

    def __init__(self, library: tokenizers.Tokenizer):
        self._library = library
        self._added = [token.content for token in library.get_added_tokens_decoder().values()]
        normalizer, splits = library.normalizer, isinstance(library.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        is_bert = splits and isinstance(normalizer, normalizers.BertNormalizer) and normalizer.handle_chinese_chars
        # Only of those that are found in the text as it stands can be told whether a text has them.
        added = library.get_added_tokens_decoder().values()
        self._by_words = is_bert and all(token.special and not token.normalized for token in added)
        self._forget()

    def encode(self, texts: Sequence[str]) -> Pieces:
        """The pieces of one text or more."""
        text = _END.join(texts)
        if text.count(_END) != len(texts) - 1:
            text = _END.join(one.replace(_END, " ") for one in texts)
        if not self._by_words or self._has_added(text):
            return self._whole(texts, text)
        parts = _PART.findall(text)
        if len(self._numbers) > _WORDS or self._characters > _CHARACTERS:
            self._forget()
        numbers = np.fromiter(map(self._numbers.__getitem__, parts), np.int64, len(parts))
        self._ask(self._numbers.new)
        self._numbers.new.clear()
        starts, widths = np.frombuffer(self._starts, np.int32), np.frombuffer(self._widths, np.int32)
        first = starts[numbers]
        counts = starts[numbers + 1] - first
        behind = np.cumsum(counts)
        rows = np.arange(behind[-1] if len(behind) else 0) + np.repeat(first - (behind - counts), counts)
        sizes = widths[numbers]
        places = np.repeat(np.cumsum(sizes) - sizes, counts)
        ids, firsts, ends = np.frombuffer(self._pieces, np.int32).reshape(-1, 3)[rows].T
        cuts = np.concatenate([[0], behind[numbers == 0], behind[-1:] if len(behind) else [0]])
        return Pieces(np.ascontiguousarray(ids), np.diff(cuts), text, firsts + places, ends + places)

    def _forget(self) -> None:
        self._numbers = _Numbers({_END: 0})
        self._pieces = array("i")  # of all words one after the other: id, first character, the one behind the last
        self._starts, self._widths = array("i", [0, 0]), array("i", [len(_END)])
        self._characters = 0

    def _ask(self, words: Sequence[str]) -> None:
        """Hundreds of words as one text, with line ends between them: answers for each take longer than to find the pieces."""
        chunks = [words[start : start + _CHUNK] for start in range(0, len(words), _CHUNK)]
        answers = self._library.encode_batch(list(map(_END.join, chunks)), add_special_tokens=False)
        for some, encoding in zip(chunks, answers):
            widths = np.fromiter(map(len, some), np.int32, len(some))
            firsts = np.cumsum(widths + len(_END)) - widths - len(_END)
            places = np.array(encoding.offsets, np.int64).reshape(-1, 2)
            word = np.searchsorted(firsts, places[:, 0], side="right") - 1
            rows = np.column_stack([np.array(encoding.ids, np.int64), places - firsts[word, None]])
            ends = self._starts[-1] + np.cumsum(np.bincount(word, minlength=len(some)))
            self._pieces.frombytes(rows.astype(np.int32).tobytes())
            self._starts.frombytes(ends.astype(np.int32).tobytes())
            self._widths.frombytes(widths.tobytes())
            self._characters += int(widths.sum())

    def _has_added(self, text: str) -> bool:
        return not self._library.encode_special_tokens and any(token in text for token in self._added)

    def _whole(self, texts: Sequence[str], text: str) -> Pieces:
        """As the library has it."""
        encodings = [
            each
            for start in range(0, len(texts), _CHUNK)
            for each in self._library.encode_batch(list(texts[start : start + _CHUNK]), add_special_tokens=False)
        ]
        lengths = np.array([len(each.ids) for each in encodings], np.int64)
        sizes = np.array([len(one) + len(_END) for one in texts], np.int64)
        places = np.repeat(np.cumsum(sizes) - sizes, lengths)
        ids = np.fromiter((piece for each in encodings for piece in each.ids), np.int32)
        flat = np.fromiter((place for each in encodings for pair in each.offsets for place in pair), np.int64)
        firsts, ends = flat.reshape(-1, 2).T
        return Pieces(ids, lengths, text, firsts + places, ends + places)
