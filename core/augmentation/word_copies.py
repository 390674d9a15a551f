"""Masking, replacement by part of speech and n-gram sampling (Tang et al. 2019, section 3.3).

Differences from the code published with the paper, all of them faults there: a sentence shorter than its n-gram ends only
that n-gram and not all copies that were still to come, and a copy is dropped when none of its *remaining* words is the
original's, so that no n-gram of masks alone gets a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .copies import Copy, Report, new_copies
from .tagging import Tagger, Words, split_words

MASK = "[MASK]"
_LONGEST = 5  # words of an n-gram


class WordSettings(BaseModel):
    """The probabilities, as in the paper, and how many copies are drawn of each example."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    copies: int = Field(20, ge=1)
    mask: float = Field(0.1, ge=0, le=1)
    """That a word becomes [MASK]."""
    replace: float = Field(0.1, ge=0, le=1)
    """That a word becomes another one of its part of speech."""
    ngram: float = Field(0.25, ge=0, le=1)
    """That only 1 to 5 words in a row are kept of the copy."""


@dataclass(frozen=True)
class _Sentence:
    split: Words
    tags: list[str | None]


class WordAugmentation:
    """Draws changed copies; the words that it puts in come from the texts themselves, as often as they stand there."""

    def __init__(self, texts: Sequence[str], pairs: Sequence[str] | None, tagger: Tagger, settings: WordSettings):
        self._texts, self._pairs, self._settings = texts, pairs, settings
        self._sentences: dict[str, _Sentence] = {}
        counts: dict[str, Counter] = {}
        for text in [*texts, *(pairs or ())]:
            if text not in self._sentences:
                split = split_words(text)
                self._sentences[text] = _Sentence(split, tagger.tags(split.words) if split.words else [])
            sentence = self._sentences[text]
            for word, tag in zip(sentence.split.words, sentence.tags):
                if tag is not None:
                    counts.setdefault(tag, Counter())[word] += 1
        self._choices = {tag: (list(found), np.cumsum(list(found.values()))) for tag, found in counts.items()}

    def copies(self, seed: int, report: Report = lambda done, total: None) -> Iterator[Copy]:
        """Up to `settings.copies` new copies of each example. An example's draws depend on the seed and its row only."""
        return new_copies(self._texts, self._pairs, self._draws(seed, report))

    def _draws(self, seed: int, report: Report) -> Iterator[Copy]:
        for row, text in enumerate(self._texts):
            generator = np.random.default_rng([seed, row])
            pair = None if self._pairs is None else self._pairs[row]
            for _ in range(self._settings.copies):
                # Of a pair one text is changed in two of three copies, either as often, and both in the third.
                kind = 0 if pair is None else generator.integers(3)
                changed = text if kind == 1 else self._changed(text, generator)
                other = pair if kind == 0 else self._changed(pair, generator)
                if changed is not None and (pair is None or other is not None):
                    yield Copy(row, changed, other)
            report(row + 1, len(self._texts))

    def _changed(self, text: str, generator: np.random.Generator) -> str | None:
        """A changed copy of a text, or None where nothing of the original is left."""
        settings, sentence = self._settings, self._sentences[text]
        words = list(sentence.split.words)
        if not words:
            return None
        draws = generator.random(len(words))
        kept = np.ones(len(words), bool)
        for place in np.flatnonzero(draws < settings.mask + settings.replace):
            tag = sentence.tags[place]
            if draws[place] < settings.mask:
                words[place], kept[place] = MASK, False
            elif tag is not None:
                words[place], kept[place] = self._drawn(tag, generator), False
        start, end = 0, len(words)
        if generator.random() < settings.ngram:
            size = min(int(generator.integers(1, _LONGEST + 1)), len(words))
            start = int(generator.integers(len(words) - size + 1))
            end = start + size
        return sentence.split.joined(words, start, end) if kept[start:end].any() else None

    def _drawn(self, tag: str, generator: np.random.Generator) -> str:
        words, cumulative = self._choices[tag]
        return words[int(np.searchsorted(cumulative, generator.integers(cumulative[-1]), side="right"))]
