"""From what a model said of the words of a text to numbers of the task's classes: spans, by their places or by their words,
labels a word in any scheme, and distributions a word, which are those of `class_answers`.

A span takes every word that it touches. One that is told by its words alone stands where they stand as words; told once, it is
meant wherever they stand, told k times, at the first k places. Longer ones come first, and no word has two labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.labels import cell_text, label_key, listed
from ..data.tag_schemes import OUTSIDE, NoScheme, Span, as_bio, is_bio, parts_of, scheme_of, tags_of
from ..data.tagged_files import word_places
from ..data.task_specs import TaskSpec
from ..data.unspaced_words import has_unspaced
from ..errors import DataError, did_you_mean
from ..file_section import FileSection
from ..shown import shown
from .class_answers import Classes, UnknownLabel
from .said import BadRecord, PartsRead, Said
from .word_records import OF_WORDS, SpanSaid

_AS_BIO = {**dict.fromkeys("BSUW", "B"), **dict.fromkeys("IMEL", "I")}
"""The letters of all schemes."""
_NOTES = {
    "cut": "a span begins or ends within a word, and the whole words are taken",
    "everywhere": "a span that is told once, by its words, stands several times in its text, and is taken each time",
    "begins": "a tag that goes on with nothing begins a span",
    "left out": "a span is not in its text, or is part of another one, and is left out (stray_spans: leave_out)",
    "shared": "an answer that is told by its words alone stands several times in its context, and is shared by the places",
    "letters": "an answer is in its context in other letters alone, and taken there",
    "nearest": "an answer is not where the file says, and taken at the nearest place (task.answers.misplaced: nearest)",
    "no answer": "an answer is not in its context, or not at its place, and is left out (stray_spans: leave_out)",
}


@dataclass
class WordsRead(PartsRead):
    """What a row says of words."""

    spans: list[tuple[SpanSaid, str | None]] | None = None
    """With the type of each; None: no answer."""
    tags: list[str | None] | None = None
    """Of each word, in the file's scheme; None: no answer."""
    values: np.ndarray | None = None
    """(words, outputs): `Classes.values` of each word."""
    answered: np.ndarray | None = None
    """(words,) booleans: where those are an answer."""
    are_logits: bool = False

    @property
    def says(self) -> bool:
        """Whether there is an answer."""
        return self.spans is not None or self.tags is not None or self.values is not None

    def same(self, other: WordsRead) -> bool:
        """Whether another row says the same."""
        if self.values is None or other.values is None:
            return (self.spans, self.tags, self.values is None) == (other.spans, other.tags, other.values is None)
        return self.values.shape == other.values.shape and np.allclose(self.values, other.values, rtol=0, atol=1e-6)


@dataclass
class Notes:
    """What a person should know of a file's spans, tags and answers."""

    lines: dict[str, list[int]] = field(default_factory=dict)

    def add(self, what: str, line: int) -> None:
        self.lines.setdefault(what, []).append(line)

    def told(self, name: str) -> list[str]:
        """A line of each kind."""
        return [
            f"{name}:{lines[0]}: {_NOTES[what]}" + (f" ({len(lines):,} times in the file)" if len(lines) > 1 else "")
            for what, lines in self.lines.items()
        ]


class WordClasses(Classes):
    """The labels of a task's words by the names that a file may have for them."""

    def __init__(self, spec: TaskSpec, section: FileSection, key: str):
        super().__init__(spec, section.model_copy(update={"labels": {}}), key)
        self.bio, self.scheme, self.key = is_bio(self.labels), "BIO", key
        names = sorted({parts_of(label)[1] for label in self.labels if label != OUTSIDE}) if self.bio else self.labels
        self._types = {label_key(name): name for name in names}
        for name, meant in section.labels.items():
            if label_key(meant) not in self._types:
                hint = did_you_mean(meant, names) or f"; expected one of {listed(names)}"
                what = "type of the task's spans" if self.bio else "label of the task"
                raise DataError(f"{key}.labels.{name}: {shown(meant)} is no {what}{hint}")
        self._types |= {label_key(name): self._types[label_key(meant)] for name, meant in section.labels.items()}
        self._none -= set(self._types)
        self.told = (OUTSIDE, *names) if self.bio else tuple(names)
        self.spec, self.reading = spec, OF_WORDS

    def type_of(self, label: Any) -> str | None:
        """The type of a span, `O` for one that is none, None for no answer. Raises UnknownLabel."""
        tag = self.tag_of(label)
        return tag if tag in (None, OUTSIDE) or not self.bio else parts_of(tag)[1]

    def tag_of(self, label: Any) -> str | None:
        """A label of a word with the task's type, in the file's scheme; of a type alone, as one that goes on. None: no answer.
        Raises UnknownLabel."""
        text = "" if label is None else cell_text(label)
        key = label_key(text)
        if self.bio and key != label_key(OUTSIDE) and key not in self._types:
            letter, kind = parts_of(text)
            letter = letter.upper()
            if letter in _AS_BIO and label_key(kind) in self._types:
                return f"{letter}-{self._types[label_key(kind)]}" if kind else letter
        elif key in self._types:
            return f"I-{self._types[key]}" if self.bio else self._types[key]
        elif self.bio:
            return OUTSIDE
        if key in self._none:
            return None
        raise UnknownLabel(text)

    def place(self, label):
        if label_key(text := cell_text(label)) in self._types and self.bio:
            expected = f"expected a distribution over {listed(self.labels)}"
            raise BadRecord(f"got {shown(text)} among the labels of a word, {expected}")
        tag = self.tag_of(label)
        if tag is None:
            return None
        letter, kind = parts_of(tag)
        if self.bio and tag != OUTSIDE:
            tag = f"{_AS_BIO[letter]}-{kind}" if kind else _AS_BIO[letter]
        return self._places[label_key(tag)]

    def read(self, said: Said, line: int, base: str | None, others: list[str]) -> WordsRead:
        """An answer with the task's labels. What is none of them is added to `others` where the recipe takes it for no answer.
        Raises UnknownLabel and BadRecord."""
        found = WordsRead(line, base, confidence=said.confidence)

        def known(read, label):
            try:
                return read(label)
            except UnknownLabel as error:
                if self.section.other_labels == "error":
                    raise
                others.append(error.label)
                return None

        if said.form == "spans":
            found.spans = [(span, known(self.type_of, span.label)) for span in said.label]
        elif said.form == "labels":
            found.tags = [known(self.tag_of, label) for label in said.label]
        elif said.form:
            found.are_logits = said.form == "logits"
            of_words = [None if each is None else self.values(Said(None, each, said.form)) for each in said.numbers]
            found.answered = np.array([each is not None for each in of_words], bool)
            nothing = np.zeros(len(self.labels))
            found.values = np.array([nothing if each is None else each for each in of_words]).reshape(-1, len(self.labels))
        else:  # a text that is no JSON
            known(self._no_answer, said.label)
        return found

    def _no_answer(self, label: Any) -> None:
        if label_key(text := cell_text(label)) not in self._none:
            raise UnknownLabel(text)

    def find_scheme(self, rows: Sequence[WordsRead], where: str) -> None:
        """The scheme of all labels of words. Raises DataError, which names the line in `where`."""
        tagged = [row for row in rows if row.tags is not None]
        if not self.bio or not tagged:
            return
        try:
            self.scheme = scheme_of([[tag or OUTSIDE for tag in row.tags] for row in tagged])
        except NoScheme as error:
            raise DataError(f"{where}:{tagged[error.row].line}: word {error.word + 1}: {error}") from None

    def of_words(self, read: WordsRead, text: str, by_spaces: bool, notes: Notes) -> tuple[np.ndarray, np.ndarray]:
        """What an answer comes to for each word of a text: `Classes.values` (words, outputs), and which words have one (words,).
        Raises BadRecord."""
        places = word_places(text, by_spaces)
        if read.spans is not None:
            tags = self._of_spans(read, text, places, by_spaces, notes)
        else:
            count = len(read.tags if read.values is None else read.values)
            if count != len(places):
                words = listed([text[start:end] for start, end in places])
                raise BadRecord(f"has labels of {count} words, expected {len(places)}, those of the text: {words}")
            if read.values is not None:
                return read.values, read.answered
            tags = self._in_bio(read, notes)
        values = np.zeros((len(places), len(self.labels)))
        answered = np.array([tag is not None for tag in tags], bool)
        for word, tag in enumerate(tags):
            if tag is not None:
                values[word, self._places[label_key(tag)]] = 1.0
        return values, answered

    def _in_bio(self, read: WordsRead, notes: Notes) -> list[str | None]:
        if not self.bio:
            return read.tags
        stray: list[int] = []
        tags = as_bio([tag or OUTSIDE for tag in read.tags], self.scheme, 0, stray)
        for _ in stray:
            notes.add("begins", read.line)
        return [None if own is None else tag for own, tag in zip(read.tags, tags)]

    def _of_spans(
        self, read: WordsRead, text: str, places: list[tuple[int, int]], by_spaces: bool, notes: Notes
    ) -> list[str | None]:
        if read.base is None and by_spaces and has_unspaced(text) and any(span.start is not None for span, _ in read.spans):
            told = "has places of spans and no text, which people write without spaces between its words, or with them"
            raise BadRecord(f"{told}; the text beside the spans, or the words of each in place of its place, tells what is meant")
        base = text if read.base is None else read.base
        own = places if base == text else places_in(base, text, places) or word_places(base, by_spaces)
        if len(own) != len(places):
            raise BadRecord(f"its text has {len(own)} words, and that of the task, with the same characters, {len(places)}")
        taken = np.full(len(places), -1)
        kept: list[tuple[Span, str | None]] = []
        for span, kind, where in self._located(read, base, own, notes):
            words = [word for word, (start, end) in enumerate(own) if start < where[1] and end > where[0]]
            if not words or (taken[words] >= 0).any():
                self._stray(read, notes, f"the span {span} {'overlaps another one' if words else 'is of no word'}")
                continue
            if own[words[0]][0] != where[0] or own[words[-1]][1] != where[1]:
                notes.add("cut", read.line)
            taken[words] = len(kept)
            kept.append((Span(words[0], words[-1] + 1, kind or ""), kind))
        if self.bio:
            tags: list[str | None] = list(tags_of([span for span, kind in kept if kind not in (None, OUTSIDE)], len(places)))
        else:
            tags = [None] * len(places)
            for span, kind in kept:
                tags[span.first : span.end] = [kind] * (span.end - span.first)
        for span, kind in kept:
            if kind is None:
                tags[span.first : span.end] = [None] * (span.end - span.first)
        return tags

    def _located(self, read: WordsRead, base: str, places: list[tuple[int, int]], notes: Notes):
        """Each span with its type and from where to where it is; those that the file has placed first."""
        by_words: dict[str, list[tuple[SpanSaid, str | None]]] = {}
        for span, kind in read.spans:
            if span.start is None:
                by_words.setdefault(span.words, []).append((span, kind))
            elif 0 <= span.start < span.end <= len(base):
                yield span, kind, (span.start, span.end)
            else:
                expected = f"expected 0 <= start < end <= {len(base)}, the text's characters"
                self._stray(read, notes, f"got a span from {span.start} to {span.end}, {expected}")
        taken = np.zeros(len(base) + 1, bool)
        for words, told in sorted(by_words.items(), key=lambda each: -len(each[0])):
            found = [place for place in places_of(words, base, places) if not taken[place[0] : place[1]].any()]
            if not found:
                self._stray(read, notes, f"the span {told[0][0]} is not in the text {shown(base, 60)}")
                continue
            if len(told) == 1 and len(found) > 1:
                notes.add("everywhere", read.line)
                told = told * len(found)
            if len(told) > len(found) and len({kind for _, kind in told}) > 1:
                self._stray(read, notes, f"the span {told[0][0]} is told {len(told)} times, and {len(found)} times in the text")
            for (span, kind), place in zip(told, found):
                taken[place[0] : place[1]] = True
                yield span, kind, place

    def _stray(self, read: WordsRead, notes: Notes, told: str) -> None:
        if self.section.stray_spans == "error":
            raise BadRecord(f"{told}; {self.key}.stray_spans: leave_out goes on without such spans")
        notes.add("left out", read.line)


def places_in(base: str, text: str, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Where words that stand at `places` of a text stand in another writing of it, with other white space; none where it is not
    that."""
    there = [place for place, letter in enumerate(base) if not letter.isspace()]
    before = np.cumsum([0, *(not letter.isspace() for letter in text)])
    if len(there) != before[-1]:
        return []
    return [(there[before[start]], there[before[end] - 1] + 1) for start, end in places]


def places_of(words: str, text: str, places: list[tuple[int, int]], flags: int = 0) -> list[tuple[int, int]]:
    """From where to where some words stand in a text whose own words are at `places`: as whole words, or, where they do not, as
    parts of them; `flags` are those of the module `re`."""
    starts, ends = {place[0] for place in places}, {place[1] for place in places}
    between, parts = (r"\s*", "".join(words.split())) if has_unspaced(words) else (r"\s+", words.split())
    found = [each.span() for each in re.finditer(between.join(map(re.escape, parts)), text, flags)]
    whole = [(start, end) for start, end in found if start in starts and end in ends]
    return whole or found
