"""The beginning of a text that its first tokens come from: a text of 50 MB, of which 128 tokens are kept, is not tokenized.

The tokens of a beginning are the first tokens of the whole only where it ends between two words. That is known of tokenizers
that clean and split texts as BERT does, for which a text may end before white space, before a Chinese character that becomes a
word of its own, before punctuation that begins no special token's inside, and within a word that is longer than any that the
vocabulary is asked for. Texts of any other tokenizer are left whole.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Sequence

import tokenizers

CHUNK_TEXTS = 4096
CHUNK_CHARACTERS = 1 << 20
"""What is encoded at once: enough for the library's threads, small enough for memory, of which a character takes 150 bytes."""

GROWTH = 8
_PIECE = 1 << 16  # characters that are counted at once
_SPACE = " \t\n\r\u3000"
_PUNCTUATION = "，。、；：！？"
_CHINESE = "\u4e00-\u9fa5"
# Letters, digits and symbols of which cleaning leaves one or more characters each, none of them a word of its own.
_LETTERS = "A-Za-z0-9\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0391-\u03a1\u03a3-\u03c9\u0410-\u044f"
_LETTERS += "\u3041-\u3096\u30a1-\u30fa\uac00-\ud7a3\U0001f300-\U0001f3fa\U0001f400-\U0001f64f"
_SPECIAL = re.compile(r"\[[!-~]*\]")


def head_size(max_length: int) -> int:
    """The characters of a text with which `max_length` tokens are tried first."""
    return max(2048, 16 * max_length)


def chunks(texts: Sequence[str], pairs: Sequence[str] | None, size: int) -> Iterator[tuple[list[str], list[str] | None]]:
    """Texts and their pairs, as many at a time as are encoded at once when each is cut to about `size` characters."""
    first = second = None
    count = 0
    for row in range(len(texts)):
        if first is None:
            first, second, count = [], None if pairs is None else [], 0
        first.append(texts[row])
        count += min(size, len(first[-1]))
        if pairs is not None:
            second.append(pairs[row])
            count += min(size, len(second[-1]))
        if len(first) == CHUNK_TEXTS or count >= CHUNK_CHARACTERS:
            yield first, second
            first = None
    if first is not None:
        yield first, second


class TextHeads:
    """Cuts texts for one tokenizer; `longest_word` is the characters of the longest word that it does not take for unknown. None
    is for one whose texts cannot be cut."""

    def __init__(self, library: tokenizers.Tokenizer, longest_word: int | None):
        self._library, self._cuts = library, False
        if longest_word is None:
            return
        definition = json.loads(library.to_str())
        normalizer, splitter = definition["normalizer"], definition["pre_tokenizer"] or {}
        special = [token["content"] for token in definition["added_tokens"]]
        self._cuts = (
            (normalizer is None or normalizer["type"] == "BertNormalizer")
            and splitter.get("type") == "BertPreTokenizer"
            and all(_SPECIAL.fullmatch(token) and len(token) <= 100 for token in special)
        )
        inside = {character for token in special for character in token[1:]}
        boundary = _SPACE + "".join(each for each in string.punctuation + _PUNCTUATION if each not in inside)
        chinese = _CHINESE if normalizer is not None and normalizer.get("handle_chinese_chars") else ""
        between = f"(?=[{re.escape(boundary)}{chinese}])"
        long_word = f"[{_LETTERS}]{{{longest_word + 1}}}"
        self._between = re.compile(between)
        self._end = re.compile(f"{between}|{long_word}")
        self._long_words = re.compile(f"({long_word})[{_LETTERS}]+")
        self._spaces = re.compile(r"[ \t\n\r]{2,}")

    def head(self, text: str, size: int) -> tuple[str, bool]:
        """(a text with the same first tokens, whether the whole may have more): its first `size` characters or some more,
        without what says nothing."""
        if not self._cuts:
            return text, False
        found = self._end.search(text, size) if len(text) > size else None
        end = len(text) if found is None else found.end()
        return self._squeezed(text[:end]), end < len(text)

    def pair(self, first: str, second: str, size: int, room: int) -> tuple[str, str]:
        """Heads of a pair that are cut to the same tokens as the whole texts: what is kept of each depends on how many tokens
        the shorter one has, up to the `room` for both, and on which of them is the longer one."""
        if not self._cuts:
            return first, second
        texts, sizes, cut = (first, second), [size, size], [False, False]
        heads, counts = ["", ""], [0, 0]
        first_is_longer: bool | None = None

        def grow(side: int, factor: int = GROWTH) -> None:
            sizes[side] *= factor
            heads[side], cut[side] = self.head(texts[side], sizes[side])
            counts[side] = self.count(heads[side])

        grow(0, 1)
        grow(1, 1)
        while any(cut):
            short = next((side for side in (0, 1) if cut[side] and counts[side] < room), None)
            longer = counts[0] > counts[1]
            if short is None and all(cut) and first_is_longer is None:
                # Both are cut to half the room, and the longer one has the odd token of it.
                first_is_longer = self.first_is_longer(first, second) if room % 2 else longer
            if short is not None:
                grow(short)
            elif all(cut) and longer != first_is_longer:
                grow(0 if first_is_longer else 1)
            elif cut[0] and not cut[1] and not longer:
                grow(0)
            elif cut[1] and not cut[0] and longer:
                grow(1)
            else:
                break
        return heads[0], heads[1]

    def first_is_longer(self, first: str, second: str) -> bool:
        """Whether a text has more tokens than another, counted only as far as that takes."""
        counts, parts, is_whole = [0, 0], [self._pieces(first), self._pieces(second)], [False, False]
        while True:
            side = 0 if counts[0] <= counts[1] else 1  # the one with fewer goes on, until it has no more
            if is_whole[side]:
                return side == 1
            piece = next(parts[side], None)
            if piece is None:
                is_whole[side] = True
            else:
                counts[side] += self.count(piece)

    def count(self, text: str) -> int:
        """The tokens of a text."""
        [encoding] = self._library.encode_batch_fast([text], add_special_tokens=False)
        return len(encoding.ids)

    def _squeezed(self, text: str) -> str:
        """Without the rest of words that are unknown for their length, and with one space for many."""
        return self._spaces.sub(" ", self._long_words.sub(r"\1", text))

    def _pieces(self, text: str) -> Iterator[str]:
        start = 0
        while start < len(text):
            found = self._between.search(text, start + _PIECE) if len(text) - start > _PIECE else None
            end = len(text) if found is None else found.start()
            yield self._squeezed(text[start:end])
            start = end
