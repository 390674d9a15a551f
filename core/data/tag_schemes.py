"""Tags of words and the spans that they stand for: BIO, IOB1, BIOES (with L and U for E and S: BILOU) and BMES are read, and all
are made BIO, whose labels a model has: `O`, and `B-TYPE` and `I-TYPE` of each type (`B` and `I` of tags without types).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OUTSIDE = "O"
PLAIN = "plain"
_BEGINS, _GOES_ON, _ALONE = frozenset("B"), frozenset("IMEL"), frozenset("SUW")
_SCHEMES = {"BIO": "BIO", "BIOES": "BIOES", "BILOU": "BILUO", "BMES": "BMESWO"}
"""Name -> the letters that its tags begin with."""


class NoScheme(ValueError):
    """A tag that cannot stand where it does: `row`, `word` are where, the text says what was got and expected."""

    def __init__(self, row: int, word: int, problem: str):
        super().__init__(problem)
        self.row, self.word = row, word


@dataclass(frozen=True)
class Span:
    """Words from `first` on, before `end`, that are together something of a type."""

    first: int
    end: int
    type: str


def parts_of(tag: str) -> tuple[str, str]:
    """(letter, type) of a tag; `B-PER` and `B_PER` are the same, of `B` the type is empty."""
    if len(tag) > 2 and tag[1] in "-_":
        return tag[0], tag[2:]
    return tag, ""


def scheme_of(rows: Sequence[Sequence[str]]) -> str:
    """The scheme that all tags are of: `BIO`, `IOB1`, `BIOES`, `BILOU` or `BMES`. Raises NoScheme for the first tag that is of
    none."""
    letters: set[str] = set()
    for number, row in enumerate(rows):
        for word, tag in enumerate(row):
            letter = parts_of(tag)[0]
            if letter not in "BIOESLUMW" or len(letter) != 1 or (letter == OUTSIDE and tag != OUTSIDE):
                expected = "expected O, or B- or I- and a type (or E-, S-, M-, L-, U-)"
                raise NoScheme(number, word, f"got tag '{tag}', {expected}; labels that are no spans, as parts of speech: "
                                             "task.tokens.scheme: plain")  # fmt: skip
            letters.add(letter)
    found = next((name for name, own in _SCHEMES.items() if letters <= set(own)), None)
    if found is None:
        for number, row in enumerate(rows):
            for word, tag in enumerate(row):
                if parts_of(tag)[0] in "MW" and letters & set("LU"):
                    expected = "expected one of BIO, BIOES, BILOU or BMES"
                    raise NoScheme(number, word, f"got tag '{tag}' among tags of another scheme, {expected}")
        found = "BMES"
    return "IOB1" if found == "BIO" and _is_iob1(rows) else found


def _is_iob1(rows: Sequence[Sequence[str]]) -> bool:
    """Whether spans begin with I, and B only parts two of the same type."""
    loose_i = loose_b = False
    for row in rows:
        before = ("", "")
        for tag in row:
            letter, kind = parts_of(tag)
            goes_on = before[0] in ("B", "I") and before[1] == kind
            loose_i |= letter == "I" and not goes_on
            loose_b |= letter == "B" and not goes_on
            before = letter, kind
    return loose_i and not loose_b


def as_bio(row: Sequence[str], scheme: str, number: int = 0, stray: list[int] | None = None) -> list[str]:
    """The tags of a row of words in BIO. Raises NoScheme for one that goes on with nothing or, where there is a list of `stray`
    ones, begins a span with it and adds its word there."""
    found: list[str] = []
    before = ("", "")
    for word, tag in enumerate(row):
        letter, kind = parts_of(tag)
        goes_on = before[0] in ("B", "I", "M") and before[1] == kind
        if letter == OUTSIDE:
            found.append(OUTSIDE)
        elif letter in _BEGINS or letter in _ALONE or (scheme == "IOB1" and not goes_on):
            found.append(_tag("B", kind))
        elif goes_on:
            found.append(_tag("I", kind))
        elif stray is not None:
            found.append(_tag("B", kind))
            stray.append(word)
        else:
            behind = f"behind '{row[word - 1]}'" if word else "at the beginning"
            raise NoScheme(number, word, f"got tag '{tag}' {behind}, expected '{_tag('B', kind)}', since its scheme is {scheme}; "
                                         "task.tokens.stray: begin makes such tags begin a span")  # fmt: skip
        before = letter, kind
    return found


def _tag(letter: str, kind: str) -> str:
    return f"{letter}-{kind}" if kind else letter


def bio_labels(types: Iterable[str]) -> tuple[str, ...]:
    """The labels of a model that finds spans of these types."""
    return (OUTSIDE, *(_tag(letter, kind) for kind in sorted(set(types)) for letter in "BI"))


def is_bio(labels: Sequence[str]) -> bool:
    """Whether labels are of spans, and not plain ones."""
    return all(parts_of(label)[0] in ("B", "I", "O") for label in labels) and any(parts_of(label)[0] == "B" for label in labels)


def spans_of(tags: Sequence[str]) -> list[Span]:
    """The spans of BIO tags. An I that goes on with nothing begins a span, as conlleval and seqeval count it."""
    found: list[Span] = []
    first, kind = -1, ""
    for word, tag in enumerate([*tags, OUTSIDE]):
        letter, own = parts_of(tag)
        if first >= 0 and not (letter == "I" and own == kind):
            found.append(Span(first, word, kind))
            first = -1
        if letter in ("B", "I") and first < 0:
            first, kind = word, own
    return found


def may_follow(before: str | None, tag: str) -> bool:
    """Whether a tag may stand behind another one, or at the beginning."""
    letter, kind = parts_of(tag)
    return letter != "I" or (before is not None and parts_of(before)[0] in ("B", "I") and parts_of(before)[1] == kind)


def tags_of(spans: Iterable[Span], words: int) -> list[str]:
    """The BIO tags of so many words; of spans that overlap, the earlier one counts."""
    tags = [OUTSIDE] * words
    for span in sorted(spans, key=lambda each: (each.first, -each.end)):
        if any(tag != OUTSIDE for tag in tags[span.first : span.end]):
            continue
        for word in range(span.first, span.end):
            tags[word] = _tag("B" if word == span.first else "I", span.type)
    return tags
