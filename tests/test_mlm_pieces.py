"""The table of words gives what the tokenizer gives, for any text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from crossdistil.core.data.mlm import piece_worker, pieces
from crossdistil.core.data.mlm.piece_worker import encode_batches
from crossdistil.core.data.mlm.pieces import CJK, PieceTable
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import DataError
from crossdistil.tests.mlm_cases import CHINESE, ENGLISH, write_vocabulary

CONFIGS = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accents": {"do_lower_case": True, "strip_accents": False},
    "chinese words": {"tokenize_chinese_chars": False},
}
WORDS = ["[MASK]", "[SEP]", "film", "Film", "ab", "OK", "É", "e\u0301", "\u0301", "我们", "中", "ΑΣ", "İ", "ß", "\u200b"]
WORDS += ["\x1f", "\x00", "\ufffd", "\xa0", "\u2028", "\x85", "ﬁ", "豈", "한국", "กำ", "👍🏽", "x" * 101, "“", "...", "¿"]
WORDS += ["，", "。", "\u3000", "  ", "\t", "\r\n", "\n"]
TEXTS = st.lists(st.one_of(st.text(), st.lists(st.sampled_from([*WORDS, " "])).map("".join)), min_size=1, max_size=6)


@pytest.fixture(scope="module", params=CONFIGS)
def library(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pieces")
    write_vocabulary(folder, [*ENGLISH, *CHINESE, "é", "e", "##e", "É", "F", "##ilm"], **CONFIGS[request.param])
    return load_tokenizer(folder).library


@pytest.fixture(scope="module")
def tables(library):
    return {special: PieceTable(library) for special in (False, True)}


def compare(table, library, texts):
    found = table.encode(texts)
    rows = library.encode_batch(texts, add_special_tokens=False)
    assert found.lengths.tolist() == [len(row.ids) for row in rows]
    assert found.ids.tolist() == [piece for row in rows for piece in row.ids] and found.ids.dtype == np.int32
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    places = [(start + first, start + end) for start, row in zip(starts, rows) for first, end in row.offsets]
    assert list(zip(found.firsts.tolist(), found.ends.tolist())) == places
    assert len(found.text) == starts[-1] - 1


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS, as_text=st.booleans())
@example(texts=[""], as_text=True)
@example(texts=["a film\n, in two lines", "", "[MASK]"], as_text=True)
@example(texts=["[MASK]film [SEP]"], as_text=False)
def test_pieces_and_places_are_the_tokenizer_s(library, tables, texts, as_text):
    library.encode_special_tokens = as_text
    compare(tables[as_text], library, texts)


def test_every_character_between_two_others(library, tables):
    """The library's ranges of Chinese characters are not quite those of BERT's code."""
    library.encode_special_tokens = False
    codes = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(codes), 1 << 16):
        some = codes[start : start + (1 << 16) : 7 if start else 1]
        compare(tables[False], library, [" ".join(f"a{chr(code)}b" for code in some)])
    for edge in (0x2B920, *(edge for ends in CJK for edge in ends)):
        compare(tables[False], library, [f"a{chr(code)}b0{chr(code)}" for code in (edge - 1, edge, edge + 1)])


def test_a_word_is_asked_about_once_and_forgotten_in_time(library, monkeypatch):
    library.encode_special_tokens = True
    asked = []
    table = PieceTable(library)
    ask = table._ask
    monkeypatch.setattr(table, "_ask", lambda words: (asked.append(list(words)), ask(words)))
    monkeypatch.setattr(pieces, "_WORDS", 4)
    for text in ("ab cd", "cd ab", "ab ef", "ab", "gh ij ef"):
        compare(table, library, [text])
    if table._by_words:
        assert asked == [["ab ", "cd"], ["cd ", "ab"], ["ab ", "ef"], ["ab"], ["gh ", "ij "]]


def test_words_that_are_added_leave_it_to_the_tokenizer(tmp_path):
    library = load_tokenizer(write_vocabulary(tmp_path, [*ENGLISH, "f", "##i"]).parent).library
    library.add_tokens([AddedToken("i l", normalized=True)])
    compare(PieceTable(library), library, ["a fi lm"])


def test_two_processes_give_the_pieces_of_one(library):
    library.encode_special_tokens = False
    generator = np.random.default_rng(0)
    batches = [["".join(generator.choice([*WORDS, " "], 20)) for _ in range(5)] for _ in range(7)]
    for count in (1, 2, 3, 4, 7):
        found = list(encode_batches(batches[:count], library))
        assert len(found) == count
        for texts, (ids, lengths) in zip(batches, found):
            rows = library.encode_batch(texts, add_special_tokens=False)
            assert ids.tolist() == [piece for row in rows for piece in row.ids] and lengths.tolist() == list(map(len, rows))


def test_a_process_that_ends_is_told(library, monkeypatch):
    monkeypatch.setattr(piece_worker, "__name__", "crossdistil.no_such_module")
    with pytest.raises(DataError, match="was ended with exit code 1"):
        list(encode_batches([["ab"]] * 4, library))
