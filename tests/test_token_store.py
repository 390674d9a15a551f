"""Token stores: what a loop over the texts gives, from texts and from the pickles of DistilBERT's scripts, which run nothing."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from crossdistil.core.data.legacy_pickles import read_token_counts
from crossdistil.core.data.records.tfrecord import make_example, write_records
from crossdistil.core.data.token_store import check_counts, store_of_pickle, token_store
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import DataError
from crossdistil.tests import tiny

CLS, SEP = tiny.VOCABULARY.index("[CLS]"), tiny.VOCABULARY.index("[SEP]")


@pytest.fixture
def tokenizer(tmp_path):
    return load_tokenizer(tiny.write_vocabulary(tmp_path / "vocabulary"))


def pieces(texts, tokenizer):
    return [tokenizer.library.encode(text, add_special_tokens=False).ids for text in texts]


def assert_holds(store, rows, tokenizer):
    rows = [list(row) for row in rows if len(row)]
    assert [store.text(index).tolist() for index in range(len(store))] == rows
    flat = [token for row in rows for token in row]
    starts = [not tokenizer.library.id_to_token(token).startswith("##") for token in flat]
    assert np.unpackbits(store.word_bits, count=len(flat)).astype(bool).tolist() == starts
    assert store.counts.tolist() == np.bincount(flat, minlength=tokenizer.vocab_size).tolist()


TEXTS = ["the film was very goodish", "a", "plots, scenes and actors", "unbelievable!"]


def test_a_store_is_what_a_loop_gives(tokenizer, tmp_path):
    lines = TEXTS + [" ".join(tiny.sentences(40, 3)[0])] * 30
    (tmp_path / "a.txt").write_text("\n\n".join(lines), encoding="utf-8")
    for _ in range(2):  # the second time from the cache
        store = token_store(tmp_path / "a.txt", tokenizer, tmp_path / "cache")
        assert_holds(store, pieces(lines, tokenizer), tokenizer)
        assert isinstance(store.ids, np.memmap) and store.ids.dtype == np.uint16


def test_records_of_texts_too_but_not_of_tokens(tokenizer, tmp_path):
    write_records(tmp_path / "a.tfrecord", [make_example({"text": [text.encode()]}) for text in TEXTS])
    assert_holds(token_store(tmp_path / "a.tfrecord", tokenizer, tmp_path / "cache"), pieces(TEXTS, tokenizer), tokenizer)
    write_records(tmp_path / "b.tfrecord", [make_example({"input_ids": [CLS, 9, SEP], "input_mask": [1, 1, 1]})])
    with pytest.raises(DataError, match=r"b\.tfrecord: has records of tokens, expected texts"):
        token_store(tmp_path / "b.tfrecord", tokenizer, tmp_path / "cache")


def test_a_damaged_store_is_made_again(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    token_store(tmp_path / "a.txt", tokenizer, tmp_path / "cache")
    (path,) = (tmp_path / "cache").rglob("word_bits.npy")
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(content)
    assert_holds(token_store(tmp_path / "a.txt", tokenizer, tmp_path / "cache"), pieces(TEXTS, tokenizer), tokenizer)


def test_memory_does_not_grow_with_the_corpus(tokenizer, tmp_path):
    line = " ".join(tiny.WORDS * 20) + "\n"

    def peak(count):
        path = tmp_path / f"{count}.txt"
        path.write_text(line * count)
        tracemalloc.start()
        try:
            token_store(path, tokenizer, tmp_path / f"cache{count}")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(8000) < 1.3 * peak(4000)  # 6 and 3 batches of text


# ---------------------------------------------------------------------------------------------- the scripts' pickles

def rows_with_ends(tokenizer):
    return [[CLS, *row, SEP] for row in pieces(TEXTS, tokenizer)]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("dtype", ["uint16", "int32", ">u2"])
def test_binarized_texts_of_any_version(tokenizer, tmp_path, protocol, module, dtype):
    rows = rows_with_ends(tokenizer)
    arrays = [np.array(row, dtype) for row in rows]
    data = pickle.dumps(arrays, protocol)
    own = b"numpy._core" if b"numpy._core" in data else b"numpy.core"
    path = tmp_path / "binarized_text.bert.pickle"
    path.write_bytes(renamed(data, own, module))
    store = store_of_pickle(path, tokenizer, tmp_path / "cache")
    assert_holds(store, [row[1:-1] for row in rows], tokenizer)
    counts = np.bincount([token for row in rows for token in row], minlength=tokenizer.vocab_size).tolist()
    path = tmp_path / "token_counts.bert.pickle"
    for value in (counts, Counter(dict(enumerate(counts))), Counter(arrays[0].tolist()), Counter(list(arrays[0]))):
        path.write_bytes(pickle.dumps(value, protocol))
        found = read_token_counts(path, tokenizer.vocab_size)
        expected = np.zeros(tokenizer.vocab_size, np.int64)
        for token, count in enumerate(value) if isinstance(value, list) else value.items():
            expected[token] = count
        assert found.tolist() == expected.tolist()


def renamed(data, own, module):
    """The same pickle as another version of NumPy writes it: names have a length before them, or an end of line behind them."""
    if own == module:
        return data
    for part in (b".multiarray", b".numeric"):
        old, new = own + part, module + part
        data = data.replace(b"\x8c" + bytes([len(old)]) + old, b"\x8c" + bytes([len(new)]) + new).replace(b"c" + old, b"c" + new)
    position = data.find(b"\x95")  # the length of the first frame, which nothing here needs
    if data[:2] in (b"\x80\x04", b"\x80\x05") and position == 2:
        data = data[:2] + data[11:]
    return data


def test_counts_of_other_texts_are_told(tokenizer, tmp_path):
    rows = rows_with_ends(tokenizer)
    path, counted = tmp_path / "a.pickle", tmp_path / "counts.pickle"
    path.write_bytes(pickle.dumps([np.array(row, np.uint16) for row in rows]))
    store = store_of_pickle(path, tokenizer, tmp_path / "cache")
    counts = np.bincount([token for row in rows for token in row], minlength=tokenizer.vocab_size)
    counted.write_bytes(pickle.dumps(counts.tolist()))
    assert check_counts(counted, store, tokenizer).tolist() == counts.tolist()
    counts[rows[0][1]] += 1
    counted.write_bytes(pickle.dumps(counts.tolist()))
    with pytest.raises(DataError, match=rf"counts\.pickle: counts \d+ of the token {rows[0][1]}, but the texts have"):
        check_counts(counted, store, tokenizer)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_what_is_no_such_file_is_refused_and_runs_nothing(tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = pickle.dumps([np.array(row, np.uint16) for row in rows_with_ends(tokenizer)])
    bad = {
        "refused: the pickle would run posix.mkdir": pickle.dumps([Evil()]),
        "holds a dict, expected a list of arrays": pickle.dumps({}),
        "holds a list, expected a list of arrays": pickle.dumps([[1, 2]]),
        "is no pickle of what it should hold, or damaged": whole[:-20],
        "3 bytes follow the end of the pickle": whole + b"abc",
        r"text 2 is not between \[CLS\]": pickle.dumps([np.array([CLS, 9, SEP], np.uint16), np.array([9, SEP], np.uint16)]),
        r"text 1 has the token 900, but the tokenizer's are 0 to": pickle.dumps([np.array([CLS, 900, SEP], np.uint16)]),
        r"text 1 has the token -5, but": pickle.dumps([np.array([CLS, -5, SEP], np.int32)]),
        "holds no text": pickle.dumps([]),
        r"damaged \(ValueError: an array whose shape": pickle.dumps([np.array([[CLS, SEP]], np.uint16)]),
        r"damaged \(KeyError": pickle.dumps([np.array([0.5, 1.0])]),
        "is no pickle of": b"",
    }
    for message, content in bad.items():
        (tmp_path / "a.pickle").write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.pickle: .*{message}"):
            store_of_pickle(tmp_path / "a.pickle", tokenizer, tmp_path / "cache")
    assert not (tmp_path / "ran").exists()
    size = tokenizer.vocab_size
    for message, value in {
        f"counts 3 tokens, but the tokenizer has {size}": [1, 2, 3],
        "counts the token 1000, but": Counter({1000: 1}),
        "expected a list of counts": [-1] * size,
        "expected a list of counts, or": "text",
    }.items():
        (tmp_path / "c.pickle").write_bytes(pickle.dumps(value))
        with pytest.raises(DataError, match=rf"c\.pickle: {message}"):
            read_token_counts(tmp_path / "c.pickle", size)


def test_one_array_many_times_is_refused(tokenizer, tmp_path):
    array = np.zeros(20000, np.uint16)
    (tmp_path / "a.pickle").write_bytes(pickle.dumps([array] * 1000))
    with pytest.raises(DataError, match=r"a\.pickle: damaged: its arrays are larger than the file"):
        store_of_pickle(tmp_path / "a.pickle", tokenizer, tmp_path / "cache")


def test_damaged_pickles_give_one_error(tokenizer, tmp_path):
    whole, generator = pickle.dumps([np.array(row, np.uint16) for row in rows_with_ends(tokenizer)]), np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(whole)
        changed[generator.integers(len(whole))] = generator.integers(256)
        (tmp_path / "a.pickle").write_bytes(changed)
        try:
            store_of_pickle(tmp_path / "a.pickle", tokenizer, tmp_path / "cache")
        except DataError as error:
            assert str(error).startswith(str(tmp_path / "a.pickle"))
