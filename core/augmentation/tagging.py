"""Words of a text and their parts of speech, for augmentation that replaces a word by another of its kind.

English is tagged by TextBlob's rule-based tagger (Brill 1992, from the Pattern library): a lexicon of 94,000 words, suffix
rules for others and rules of context. It is the maintained tagger on PyPI whose data comes inside its package, so it works
offline; NLTK's and spaCy's are more accurate, but their models are downloads of their own. For the random choice of a word
that fits the place roughly, Penn Treebank tags of this quality do. For other languages the user gives a lexicon.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from ..data.tables import read_columns
from ..errors import DataError

# "don't", "x-ray" and "3.5" are one word; "'s" and "n't", as the Penn Treebank and SST-2 cut them off, as well. Chinese
# characters are words of their own, as BERT's tokenizer has them. A run of punctuation is a word too.
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W{_HAN}]"
_SUFFIX = r"'(?=(?i:s|d|m|re|ve|ll)\b)"
_WORD = re.compile(rf"\[MASK\]|[{_HAN}]|(?:{_SUFFIX})?{_LETTER}+(?:['’.-]{_LETTER}+)*|[^\w\s]+")
_HAN_CHARACTER = re.compile(rf"[{_HAN}]")


@dataclass(frozen=True)
class Words:
    """A text cut into words; `gaps[i]` is the white space, or nothing, between word i and the next."""

    words: tuple[str, ...]
    gaps: tuple[str, ...]

    def joined(self, words: Sequence[str], start: int = 0, end: int | None = None) -> str:
        """The text with other `words` in the same places, or the part of it from word `start` to before `end`."""
        end = len(words) if end is None else end
        parts = [word + gap for word, gap in zip(words[start : end - 1], self.gaps[start : end - 1])]
        return "".join([*parts, words[end - 1]]) if end > start else ""


def split_words(text: str) -> Words:
    """The words of a text, punctuation included."""
    found = list(_WORD.finditer(text))
    gaps = (text[first.end() : second.start()] for first, second in zip(found, found[1:]))
    # A table's cell may span lines, but a copy need not.
    return Words(tuple(match.group() for match in found), tuple(" " if gap else "" for gap in gaps))


class Tagger(Protocol):
    """Gives words their part of speech."""

    name: str

    def tags(self, words: Sequence[str]) -> list[str | None]:
        """The tag of each word of a sentence; None for one that is not to be replaced."""


class EnglishTagger:
    """TextBlob's tagger: Penn Treebank tags by lexicon, suffix and context."""

    def __init__(self) -> None:
        # Here, since it loads NLTK, which only this needs.
        from textblob import en

        self._parser, self._context = en.parser, en.lexicon.context
        self.name = f"textblob {version('textblob')}"

    def tags(self, words):
        tagged = self._context.apply([list(pair) for pair in self._parser.find_tags(list(words))])
        # What is not English would be a noun, as every unknown word, and [MASK] is no word at all.
        return [None if word == "[MASK]" or _HAN_CHARACTER.match(word) else tag for word, tag in tagged]


class LexiconTagger:
    """Tags from a .tsv file of lines `word<TAB>tag`, in the file's case or else in lower case; other words have none."""

    def __init__(self, path: Path):
        columns = read_columns(path, ["word", "tag"], header=["word", "tag"])
        rows = zip(columns.cells["word"], columns.cells["tag"], columns.line_numbers)
        self._tags: dict[str, str] = {}
        for word, tag, line in rows:
            if not word or not tag:
                raise DataError(f"{path}:{line}: expected word<TAB>tag, got an empty {'tag' if word else 'word'}")
            self._tags[word] = tag
        self.name = f"lexicon {path.name}, {len(self._tags)} words"

    def tags(self, words):
        return [self._tags.get(word) or self._tags.get(word.lower()) for word in words]
