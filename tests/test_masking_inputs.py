"""What masking is given: settings, a vocabulary, and texts in every form, whose rows are those of a corpus."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from crossdistil.core.data.batches import evaluation_batches
from crossdistil.core.data.corpus import read_corpus
from crossdistil.core.data.masked_texts import read_masked, store_rows
from crossdistil.core.data.masking import DynamicMasks, MaskingSettings
from crossdistil.core.data.token_store import token_store
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.errors import DataError
from crossdistil.tests import tiny
from crossdistil.tests.masks_drawn import SIZE, WORDS, drawn, epoch_masks


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(tiny.write_vocabulary(tmp_path_factory.mktemp("masking") / "vocabulary"))


def test_settings_that_are_none():
    assert MaskingSettings(mask=0.7 + 0.2, random=0.1).probability == 0.15  # 0.9999999999999999 or 1 together
    assert MaskingSettings(mask=0.8, random=0.2 + 1e-17)
    for wrong, message in (
        ({"mask": 0.8, "random": 0.3}, "mask 0.8 and random 0.3 are more than 1 together"),
        ({"probability": 0}, "greater than 0"),
        ({"probability": 1}, "less than 1"),
        ({"smoothing": -1}, "greater than or equal to 0"),
        ({"budget": "row"}, "'text' or 'batch'"),
        ({"counts": "counts.pickle"}, "counts are only used with a smoothing above 0"),
        ({"whole_word": True}, "Extra inputs are not permitted"),
    ):
        with pytest.raises(ValidationError, match=message):
            MaskingSettings(**wrong)


def test_a_vocabulary_without_mask(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(token for token in tiny.VOCABULARY if token != "[MASK]"))
    with pytest.raises(DataError, match=r"vocabulary has no \[MASK\]"):
        DynamicMasks(MaskingSettings(), load_tokenizer(tmp_path), 0)


# ---------------------------------------------------------------------------------------------- texts


def write_texts(path, count=200, seed=0):
    generator = np.random.default_rng(seed)
    words = [*tiny.WORDS, "goodish", "unbelievable", "漢"]
    lines = [" ".join(generator.choice(words, generator.integers(1, 40))) for _ in range(count)]
    path.write_text("\n".join([*lines, "a", "good"]), encoding="utf-8")
    return lines


def plain_batches(table, length):
    return [batch for _, batch in evaluation_batches(table, None, 16, (length,))]


@pytest.mark.parametrize("max_length", [4, 5, 16, 64])
def test_rows_of_a_store_are_those_of_a_corpus(tokenizer, tmp_path, max_length):
    """The tokens stay where they are: there is no other copy."""
    write_texts(tmp_path / "a.txt")
    store = token_store(tmp_path / "a.txt", tokenizer, tmp_path / "cache")
    table = store_rows(store, tokenizer, max_length)
    assert table.ids is store.ids
    corpus = read_corpus(tmp_path / "a.txt", tokenizer, max_length, tmp_path / "cache")
    np.testing.assert_array_equal(table.lengths, corpus.lengths)
    for ours, expected in zip(plain_batches(table, max_length), plain_batches(corpus, max_length)):
        for name, values in expected.items():
            np.testing.assert_array_equal(ours[name], values)
            assert ours[name].dtype == values.dtype


def test_texts_with_a_dev_file(tokenizer, tmp_path):
    write_texts(tmp_path / "train.txt")
    write_texts(tmp_path / "dev.txt", 30, 1)
    masking = MaskingSettings(smoothing=0.7, whole_words=True)
    found = read_masked(tmp_path, masking, tokenizer, 16, 3, tmp_path / "dev.txt", tmp_path / "cache")
    alone = read_masked(tmp_path / "train.txt", masking, tokenizer, 16, 3, cache_folder=tmp_path / "cache")
    assert alone.dev is None and alone.dev_masks is None
    np.testing.assert_array_equal(alone.train.ids, found.train.ids)
    counts = token_store(tmp_path / "train.txt", tokenizer, tmp_path / "cache").counts
    masks = DynamicMasks(masking, tokenizer, 3, counts)
    assert epoch_masks(found.train, found.train_masks, 2) == epoch_masks(found.train, masks, 2)
    # Every model is scored on masks as BERT draws them.
    assert drawn(found.dev, found.dev_masks) == drawn(found.dev, DynamicMasks(MaskingSettings(), tokenizer, 3))
    default = read_masked(tmp_path, None, tokenizer, 16, 3, cache_folder=tmp_path / "cache")
    masks = DynamicMasks(MaskingSettings(), tokenizer, 3)
    assert epoch_masks(default.train, default.train_masks, 0) == epoch_masks(default.train, masks, 0)


def test_the_files_of_distilberts_scripts(tokenizer, tmp_path):
    lines = write_texts(tmp_path / "a.txt") + ["a", "good"]
    rows = [tokenizer.library.encode(line).ids for line in lines]
    (tmp_path / "b.pickle").write_bytes(pickle.dumps([np.array(row, np.uint16) for row in rows]))
    counts = np.bincount(np.concatenate(rows), minlength=SIZE)
    (tmp_path / "counts.pickle").write_bytes(pickle.dumps(counts.tolist()))
    masking = MaskingSettings(smoothing=0.7, budget="batch", counts=tmp_path / "counts.pickle")
    for data in ("a.txt", "b.pickle"):
        found = read_masked(tmp_path / data, masking, tokenizer, 32, 3, cache_folder=tmp_path / "cache")
        masks = DynamicMasks(MaskingSettings(smoothing=0.7, budget="batch"), tokenizer, 3, counts)
        assert epoch_masks(found.train, found.train_masks, 0) == epoch_masks(found.train, masks, 0)
    counts[WORDS[0]] += 1
    (tmp_path / "counts.pickle").write_bytes(pickle.dumps(counts.tolist()))
    with pytest.raises(DataError, match=rf"counts\.pickle: counts \d+ of the token {WORDS[0]}, but the texts have"):
        read_masked(tmp_path / "b.pickle", masking, tokenizer, 32, 3, cache_folder=tmp_path / "cache")


def test_wrong_texts(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("a\nb\n")
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=r"a\.txt: no text has 2 tokens or more"):
        read_masked(tmp_path / "a.txt", None, tokenizer, 16, 0, cache_folder=cache)
    with pytest.raises(DataError, match="max_length 3 leaves no room"):
        read_masked(tmp_path / "a.txt", None, tokenizer, 3, 0, cache_folder=cache)
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        read_masked(tmp_path / "nowhere", None, tokenizer, 16, 0, cache_folder=cache)
    with pytest.raises(DataError, match=r"nowhere\.pickle: cannot be read"):
        read_masked(tmp_path / "nowhere.pickle", None, tokenizer, 16, 0, cache_folder=cache)
    with pytest.raises(DataError, match="guessing words needs a tokenizer of word pieces"):
        read_masked(tmp_path / "a.txt", None, build_words(["good film"], 10), 16, 0)
