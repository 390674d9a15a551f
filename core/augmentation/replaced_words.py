"""Words replaced by what a language model or word vectors find fitting (TinyBERT: Jiao et al. 2020, algorithm 1).

A word that BERT's vocabulary has whole is masked, and may become any of the most probable words in its place, with the
original text as second segment; a word of several pieces may become any of those nearest to it in word vectors. Without
vectors the language model finds the words for both: one of several pieces is masked by a single [MASK], since the original
in the second segment still says what stood there, and rare words would otherwise never change.

Differences from the published code: what is not replaced stays as it was written, white space and capitals included; the
word itself is no candidate for its own place, so that the probability is one of a change; copies are drawn until there
are enough (or the text has no more), not as often as there should be; and of a pair the other text stays the *original*,
where the published code pairs it with the last copy of the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .copies import Copy, Report, new_copies
from .language_model import Gap, GapFiller, LanguageModel
from .stop_words import STOP_WORDS
from .vectors import WordVectors

_CHUNK = 1024  # examples whose gaps are filled together: enough to sort by length, few enough for memory
_TRIES = 10  # draws for each copy: a text with few candidates has fewer different copies than asked for

# The published code's numbers of copies; what it does not name has its default.
_COPIES = {"sst-2": 20, "qnli": 20, "mnli": 10, "qqp": 10}
DEFAULT_COPIES = 30


def published_copies(task: str) -> int:
    """How many copies of each text TinyBERT's code makes for a GLUE task."""
    return _COPIES.get(task, DEFAULT_COPIES)


class MaskedSettings(BaseModel):
    """The published values; `copies` are of each text, so that a pair gets up to twice as many."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    copies: int = Field(DEFAULT_COPIES, ge=1)
    replace: float = Field(0.4, gt=0, le=1)
    """That a word which can be replaced is replaced."""
    candidates: int = Field(15, ge=1)
    """How many are asked for each word, before pieces of words and the word itself are left out."""


@dataclass(frozen=True)
class Place:
    """Characters `start` to before `end` of a text, and the words that may stand there instead."""

    start: int
    end: int
    candidates: tuple[str, ...]


@dataclass(frozen=True)
class _Word:
    start: int
    end: int
    first_piece: int
    end_piece: int
    text: str
    is_known: bool


def augment_by_masked_lm(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    finder: CandidateFinder,
    settings: MaskedSettings,
    seed: int,
    report: Report = lambda done, total: None,
) -> Iterator[Copy]:
    """Up to `settings.copies` new copies of each text. An example's draws depend on the seed and its row only."""

    def draws() -> Iterator[Copy]:
        for start in range(0, len(texts), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(texts)))
            sides = [texts[row] for row in rows] + ([] if pairs is None else [pairs[row] for row in rows])
            places = finder.places(list(dict.fromkeys(sides)))
            for row in rows:
                generator = np.random.default_rng([seed, row])
                pair = None if pairs is None else pairs[row]
                for text in variants(texts[row], places[texts[row]], settings, generator):
                    yield Copy(row, text, pair)
                if pair is not None:
                    for text in variants(pair, places[pair], settings, generator):
                        yield Copy(row, texts[row], text)
            report(rows.stop, len(texts))

    return new_copies(texts, pairs, draws())


def variants(
    text: str, places: Sequence[Place], settings: MaskedSettings, generator: np.random.Generator
) -> list[str]:
    """Up to `settings.copies` different texts, none of them the original."""
    found: dict[str, None] = {}
    # With few places the different copies can be counted, and are soon all found.
    possible = min(settings.copies, _count(places, settings.copies))
    for _ in range(_TRIES * settings.copies):
        if len(found) == possible:
            break
        parts, end = [], 0
        for place, draw in zip(places, generator.random(len(places))):
            if draw < settings.replace:
                chosen = place.candidates[int(generator.integers(len(place.candidates)))]
                parts += [text[end : place.start], chosen]
                end = place.end
        if parts:
            found.setdefault("".join([*parts, text[end:]]))
    return list(found)


def _count(places: Sequence[Place], enough: int) -> int:
    """How many different copies there are, counted as far as `enough`."""
    count = 1
    for place in places:
        count = min(count * (len(place.candidates) + 1), enough + 1)
    return count - 1


class CandidateFinder:
    """Finds what can stand in the place of each word of a text, once on the original text."""

    def __init__(
        self, model: LanguageModel, filler: GapFiller, candidates: int, vectors: WordVectors | None = None
    ):
        self._library = model.tokenizer.library
        self._unknown = self._library.token_to_id("[UNK]")
        self._filler, self._candidates, self._vectors = filler, candidates, vectors

    def places(self, texts: Sequence[str]) -> dict[str, list[Place]]:
        """For each text its words that have candidates: alphabetic ones that are no stop words."""
        encodings = self._library.encode_batch(list(texts), add_special_tokens=False)
        words = [self._words(text, encoding) for text, encoding in zip(texts, encodings)]
        gaps, owners = [], []
        for index, found in enumerate(words):
            for word in found:
                is_filled = word.is_known or self._vectors is None
                if is_filled and word.end_piece <= self._filler.room:
                    gaps.append(Gap(index, word.first_piece, word.end_piece))
                    owners.append((index, word))
        filled = self._filler.fill([encoding.ids for encoding in encodings], gaps, self._candidates)
        candidates = dict(zip(owners, filled))
        if self._vectors is not None:
            rare = [(index, word) for index, found in enumerate(words) for word in found if not word.is_known]
            near = self._vectors.nearest([word.text.lower() for _, word in rare], self._candidates)
            candidates |= {owner: near[owner[1].text.lower()] for owner in rare if owner[1].text.lower() in near}
        places: dict[str, list[Place]] = {}
        for index, (text, found) in enumerate(zip(texts, words)):
            pairs = ((word, _replacements(word.text, candidates.get((index, word), ()))) for word in found)
            places[text] = [Place(word.start, word.end, chosen) for word, chosen in pairs if chosen]
        return places

    def _words(self, text: str, encoding) -> list[_Word]:
        """The words of a text that may be replaced."""
        pieces: dict[int, list[int]] = {}
        for piece, word in enumerate(encoding.word_ids):
            pieces.setdefault(word, []).append(piece)
        found = []
        for places in pieces.values():
            start, end = encoding.offsets[places[0]][0], encoding.offsets[places[-1]][1]
            word = text[start:end]
            is_unknown = encoding.ids[places[0]] == self._unknown
            if word.isalpha() and word.lower() not in STOP_WORDS and not is_unknown:
                found.append(_Word(start, end, places[0], places[-1] + 1, word, len(places) == 1))
        return found


def _replacements(word: str, candidates: Sequence[str]) -> tuple[str, ...]:
    """Candidates other than the word itself, with a capital where it has one."""
    others = [candidate for candidate in candidates if candidate.lower() != word.lower()]
    if word[0].isupper():
        others = [candidate[:1].upper() + candidate[1:] for candidate in others]
    return tuple(dict.fromkeys(others))
