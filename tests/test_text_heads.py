"""Texts that are cut before they are tokenized give the tokens of the whole: compared with the library's own truncation of whole
texts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdistil.core.data import text_heads, tokenize, word_vocabulary
from crossdistil.core.data.tokenize import Tokenizer, load_tokenizer
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.tests.test_tokenize import SETTINGS, write_vocabulary

PARTS = [
    *"ab é ü 中 国 ， . [ ] - # 0 \t \n \r 　".split(" "), " ", "\t", "\n", "\r\n", "\u3000", "\u2028", "\x85", "\xa0", "\0",
    "\x07", "\ufffd", "\u0301", "\u3099", "カ\u3099", "ガ", "한국", "\u1112\u1161", "İ", "ß", "😀", "👨‍👩‍👧",
    "\u200b", "\ufeff", "\U00020000", "龥",
    "[SEP]", "[CLS]", "[MASK]", "[SE", "EP]", "[sep]", "the", "playing", "unaffable ", "a" * 99, "b" * 100, "a" * 101, "é" * 120,
    "ab" * 200, "  " * 40, "z.y", "日本語の",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=25).map("".join).filter(
    lambda text: not any("\ud800" <= character <= "\udfff" for character in text)
)


@pytest.fixture(scope="module", params=SETTINGS, ids=["uncased", "cased", "accents"])
def tokenizer(request, tmp_path_factory):
    return load_tokenizer(write_vocabulary(tmp_path_factory.mktemp("vocabulary"), **request.param))


@pytest.fixture
def small(monkeypatch):
    """Texts are cut from this many characters on, and counted so many at a time."""

    def make(size, piece=7):
        for module in (tokenize, word_vocabulary):
            monkeypatch.setattr(module, "head_size", lambda max_length: size)
        monkeypatch.setattr(text_heads, "_PIECE", piece)

    return make


def whole(library, inputs, max_length):
    """As the library encodes and truncates whole texts: (ids, segments) of each."""
    library.enable_truncation(max_length, strategy="longest_first")
    rows = [(row.ids, row.type_ids) for row in library.encode_batch(inputs)]
    library.no_truncation()
    return rows


def assert_whole(tokenizer, texts, pairs, max_length):
    table = tokenizer.encode_pairs(texts, pairs, max_length)
    inputs = texts if pairs is None else list(zip(texts, pairs))
    for row, (ids, segments) in enumerate(whole(tokenizer.library, inputs, max_length)):
        assert table.ids[table.offsets[row] : table.offsets[row + 1]].tolist() == ids
        assert table.first_lengths[row] == segments.count(0)


@settings(max_examples=60, deadline=None, database=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), size=st.integers(1, 30), max_length=st.integers(3, 24))
def test_single_texts(tokenizer, texts, size, max_length):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenize, "head_size", lambda length: size)
        assert_whole(tokenizer, texts, None, max_length)


@settings(max_examples=60, deadline=None, database=None)
@given(pair=st.tuples(TEXTS, TEXTS), size=st.integers(1, 30), max_length=st.integers(5, 24), piece=st.integers(1, 9))
def test_pairs(tokenizer, pair, size, max_length, piece):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenize, "head_size", lambda length: size)
        patch.setattr(text_heads, "_PIECE", piece)
        assert_whole(tokenizer, [pair[0]], [pair[1]], max_length)
        assert_whole(tokenizer, [pair[0]], [pair[0]], max_length)


@pytest.mark.parametrize("max_length", [8, 9])
@pytest.mark.parametrize("counts", [(40, 41), (41, 40), (40, 40), (3, 60), (60, 3), (4, 60), (5, 6), (60, 59)])
def test_which_of_a_pair_is_longer_decides_who_is_cut(tokenizer, small, counts, max_length):
    small(6)
    assert_whole(tokenizer, ["the " * counts[0]], ["film " * counts[1]], max_length)


@settings(max_examples=60, deadline=None, database=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), size=st.integers(1, 20), max_length=st.integers(1, 12))
def test_whole_words(texts, size, max_length):
    tokenizer = build_words(["the film a b 中", "playing " + "a" * 101], 60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_vocabulary, "head_size", lambda length: size)
        table = tokenizer.encode_pairs(texts, None, max_length)
    for row, text in enumerate(texts):
        expected = tokenizer.library.encode(text, add_special_tokens=False).ids[:max_length]
        assert table.ids[table.offsets[row] : table.offsets[row + 1]].tolist() == expected


def test_heads_are_short_and_others_are_left_whole(tmp_path):
    tokenizer = load_tokenizer(write_vocabulary(tmp_path / "a"))
    heads = tokenizer._heads
    for text in ("the film " * 10_000, "中" * 50_000, "a,b;" * 20_000, "カ" * 90_000, "x" * 90_000, " " * 90_000):
        head, is_cut = heads.head(text, 100)
        assert is_cut and len(head) < 400
        head, is_cut = heads.head(text, 80_000)
        assert len(head) < 85_000
    tokenizer.library.add_tokens(["two words"])
    other = Tokenizer(tokenizer.library, tmp_path)
    assert other._heads.head("the " * 100, 10) == ("the " * 100, False)


LARGE = """
import resource, sys
from crossdistil.core.data.tokenize import load_tokenizer
from pathlib import Path
tokenizer = load_tokenizer(Path(sys.argv[1]))
texts = ["the film is playing " * 250_000, "x" * 5_000_000, "the " * 1_000_000, "中 国" * 500_000]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert tokenizer.encode_pairs(texts, None, 128).lengths.tolist() == [128, 3, 128, 128]
assert tokenizer.encode_pairs(texts[:1], texts[1:2], 128).lengths.tolist() == [128]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_text_of_many_megabytes_takes_little_memory(tmp_path):
    """Tokenized whole, these 15 MB take two gigabytes."""
    done = subprocess.run([sys.executable, "-c", LARGE, write_vocabulary(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 100
