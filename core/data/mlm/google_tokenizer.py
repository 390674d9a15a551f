"""Google's FullTokenizer (tokenization.py of google-research/bert, 2018), as ids.

It differs from the `tokenizers` library in what it takes for a word and for [UNK]: words of more than 200 characters instead of
100 are unknown, accents go exactly where letters are lowered, special tokens written in a text are punctuation and letters, white
space is Python's, and the Unicode tables are those of this Python.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

from .vocabulary import is_cjk

LONGEST_WORD = 200
_REMEMBERED = 1 << 20  # words whose pieces are kept


class _Cleaning(dict):
    """Code point -> what `str.translate` puts in its place: nothing for control characters, a blank for white space, blanks
    around Chinese characters."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in " \t\n\r" or category == "Zs":
            result = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf"):
            result = ""
        else:
            result = f" {character} " if is_cjk(code) else character
        self[code] = result
        return result


class GoogleTokenizer:
    """Texts to the ids of their pieces. `tokens` by id are the vocabulary, which has an [UNK]."""

    def __init__(self, tokens: Sequence[str], lower_case: bool):
        self._ids = {token: number for number, token in enumerate(tokens)}
        self._lower_case = lower_case
        self._unknown = self._ids["[UNK]"]
        self._cleaning = _Cleaning()
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """The ids of a text's pieces."""
        ids: list[int] = []
        for word in text.translate(self._cleaning).split():
            found = self._known.get(word)
            if found is None:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                found = self._known[word] = [piece for part in self._parts(word) for piece in self._pieces(part)]
            ids += found
        return ids

    def _parts(self, word: str) -> list[str]:
        """A word without blanks, lowered if texts are, and split at punctuation."""
        if self._lower_case:
            decomposed = unicodedata.normalize("NFD", word.lower())
            word = "".join(character for character in decomposed if unicodedata.category(character) != "Mn")
        return "".join(f" {character} " if _is_punctuation(character) else character for character in word).split()

    def _pieces(self, word: str) -> Iterator[int]:
        """The longest piece that the vocabulary has, again and again; one [UNK] if that does not lead to the word's end."""
        found, start = [], 0
        if len(word) > LONGEST_WORD:
            return iter([self._unknown])
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                piece = self._ids.get(prefix + word[start:end])
                if piece is not None:
                    break
            else:
                return iter([self._unknown])
            found.append(piece)
            start = end
        return iter(found)


def _is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and all of ASCII that is no letter, digit, blank or control."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")
