"""Word vocabularies by hand, texts and pairs to tables and batches, and word-vector files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.data.batches import TrainBatches, evaluation_batches, real_tokens
from crossdistil.core.data.tasks import Examples
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.data.word_vocabulary import build_words, word_vectors
from crossdistil.core.errors import CheckpointError, DataError

TEXTS = ["The film, the Café!", "the film is bad", "a [MASK] bad bad end", "中国 film"]
# the 3, bad 3, film 3; once: ! , a cafe end is [ ] mask 中 国
ALPHABETIC = ["bad", "film", "the", "!", ",", "[", "]", "a", "cafe", "end", "is", "mask", "中", "国"]


def test_the_vocabulary_by_hand():
    words = build_words(TEXTS)
    vocabulary = words.library.get_vocab()
    order = sorted(vocabulary, key=vocabulary.get)
    assert order == ["[PAD]", "[UNK]", "[MASK]", *sorted(ALPHABETIC, key=lambda w: (w not in ("bad", "film", "the"), w))]
    assert (words.vocab_size, words.pad_id, words.is_words) == (17, 0, True)
    assert build_words(reversed(TEXTS)).fingerprint == words.fingerprint
    small = build_words(TEXTS, vocab_size=6)
    assert sorted(small.library.get_vocab()) == ["[MASK]", "[PAD]", "[UNK]", "bad", "film", "the"]
    assert "Café" in build_words(TEXTS, lowercase=False).library.get_vocab()
    assert "中国" in build_words(TEXTS, split_chinese=False).library.get_vocab()
    with pytest.raises(DataError, match="a vocabulary of 3 words has no room"):
        build_words(TEXTS, vocab_size=3)


def rows_of(table):
    return [table.ids[start:end].tolist() for start, end in zip(table.offsets, table.offsets[1:])]


def test_texts_and_pairs_are_cut_each_for_itself():
    words = build_words(TEXTS, vocab_size=6)  # 3 bad, 4 film, 5 the
    texts, pairs = ["the BAD film", "", "[MASK] oh"], ["film film film film", "bad", ""]
    single = words.encode_pairs(texts, None, 2)
    assert rows_of(single) == [[5, 3], [], [2, 1]] and not single.apart
    assert single.lengths.tolist() == single.first_lengths.tolist() == [2, 0, 2]
    both = words.encode_pairs(texts, pairs, 3)
    assert rows_of(both) == [[5, 3, 4, 4, 4, 4], [3], [2, 1]] and both.apart
    assert (both.first_lengths.tolist(), both.lengths.tolist()) == ([3, 0, 2], [3, 1, 2])
    with pytest.raises(DataError, match="max_length 0"):
        words.encode_pairs(texts, None, 0)


def test_batches_of_pairs_have_two_sides(tmp_path):
    words = build_words(TEXTS, vocab_size=6)
    texts, pairs = ["the bad film", "", "bad"], ["film film film film", "bad", ""]
    examples = Examples(texts, pairs, None, None, np.arange(3))
    for _ in range(2):  # encoded, then from the cache
        table = tokenized(examples, words, 4, tmp_path)
        assert table.apart
    [(rows, batch)] = evaluation_batches(table, np.array([1, 0, 1], np.int32), 4, (4, 8))
    assert rows.tolist() == [0, 1, 2]
    assert batch["input_ids"].tolist() == [[5, 3, 4, 0], [0] * 4, [3, 0, 0, 0], [5, 0, 0, 0]]
    assert batch["attention_mask"].sum(axis=1).tolist() == [3, 0, 1, 1]
    assert batch["second_ids"].tolist() == [[4] * 4, [3, 0, 0, 0], [0] * 4, [0] * 4]
    assert batch["second_mask"].sum(axis=1).tolist() == [4, 1, 0, 0]
    assert batch["labels"].tolist() == [1, 0, 1, 0] and batch["example_mask"].tolist() == [1, 1, 1, 0]
    assert "token_type_ids" not in batch and batch["second_ids"].dtype == np.int32
    assert real_tokens(batch) == 9
    [[micro]] = TrainBatches(table, None, 4, 1, (4, 8), seed=0).epoch(0)
    assert real_tokens(micro) == 9


def test_texts_without_any_word():
    table = build_words(TEXTS, vocab_size=6).encode_pairs(["", " "], None, 4)
    [(_, batch)] = evaluation_batches(table, None, 4, (4,))
    assert not batch["input_ids"].any() and not batch["attention_mask"].any()


def test_word_vectors(tmp_path):
    words = build_words(TEXTS, vocab_size=6)
    table = np.full((6, 2), 9.0, np.float32)
    path = tmp_path / "vectors.txt"
    for header in ("", "4 2\n"):
        path.write_text(header + "the 1 -2\n. . . 0.5 0.5\nbad 0.25 1e-1 \nbad 7 7\n", encoding="utf-8")
        filled, found = word_vectors(path, words, table)
        assert found == 2 and (table == 9).all()
        np.testing.assert_allclose(filled[[5, 3]], [[1, -2], [0.25, 0.1]])
        assert (filled[[0, 1, 2, 4]] == 9).all()
    for text, message in (
        ("3 300\nthe 1 2\n", ":1: vectors of 300 numbers, but the embeddings have 2"),
        ("the 1 2 3\n", ":1: 3 numbers, but the embeddings have 2"),
        ("film 1 2\nthe 1\n", ":2: 1 numbers"),
        ("film 1 two\n", ":1: expected numbers"),
        ("film 1 nan\n", ":1: holds numbers that are not finite"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            word_vectors(path, words, table)
    with pytest.raises(DataError, match="absent.txt: cannot be read"):
        word_vectors(tmp_path / "absent.txt", words, table)


def test_a_word_tokenizer_needs_its_special_words(tmp_path):
    build_words(TEXTS).save(tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text())
    definition["added_tokens"] = []
    vocabulary = definition["model"]["vocab"]
    vocabulary["pad"] = vocabulary.pop("[PAD]")
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the vocabulary lacks \[PAD\]"):
        load_tokenizer(tmp_path)
