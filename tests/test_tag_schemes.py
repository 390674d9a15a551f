"""Tags of words: every scheme is found and made BIO, and tags that cannot be are told."""

from __future__ import annotations

import re

import pytest

from crossdistil.core.data.tag_schemes import NoScheme, as_bio, scheme_of, spans_of

SAME = ["B-PER", "I-PER", "O", "B-LOC", "B-PER", "B-PER", "I-PER", "I-PER"]
SCHEMES = {
    "BIO": SAME,
    "IOB1": ["I-PER", "I-PER", "O", "I-LOC", "I-PER", "B-PER", "I-PER", "I-PER"],
    "BIOES": ["B-PER", "E-PER", "O", "S-LOC", "S-PER", "B-PER", "I-PER", "E-PER"],
    "BILOU": ["B-PER", "L-PER", "O", "U-LOC", "U-PER", "B-PER", "I-PER", "L-PER"],
    "BMES": ["B-PER", "E-PER", "O", "S-LOC", "S-PER", "B-PER", "M-PER", "E-PER"],
}


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_is_found_and_made_bio(name):
    row = SCHEMES[name]
    assert scheme_of([row]) == name
    assert as_bio(row, name) == SAME
    assert [(span.first, span.end, span.type) for span in spans_of(SAME)] == [
        (0, 2, "PER"), (3, 4, "LOC"), (4, 5, "PER"), (5, 8, "PER"),
    ]  # fmt: skip


def test_tags_without_types_are_word_boundaries():
    row = list("BMESBE")
    assert scheme_of([row]) == "BMES" and as_bio(row, "BMES") == list("BIIBBI")


@pytest.mark.parametrize(
    ("row", "word", "message"),
    [
        (["O", "X-PER"], 1, "got tag 'X-PER', expected O, or B- or I-"),
        (["O", "noun"], 1, "task.tokens.scheme: plain"),
        (["B-PER", "E-PER", "O", "I-PER"], 3, "got tag 'I-PER' behind 'O', expected 'B-PER', since its scheme is BIOES"),
        (["B-PER", "I-LOC"], 1, "got tag 'I-LOC' behind 'B-PER', expected 'B-LOC', since its scheme is BIO"),
    ],
)
def test_tags_that_cannot_be_are_told_with_their_word(row, word, message):
    with pytest.raises(NoScheme, match=re.escape(message)) as raised:
        as_bio(row, scheme_of([row]))
    assert raised.value.word == word


def test_stray_tags_may_begin_spans():
    stray = []
    assert as_bio(["O", "M-PER", "E-PER"], "BMES", 0, stray) == ["O", "B-PER", "I-PER"] and stray == [1]
