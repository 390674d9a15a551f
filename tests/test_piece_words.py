"""Whole words of tokenizers whose pieces do not tell them, and what is refused for such tokenizers."""

from __future__ import annotations

import re

import numpy as np
import pytest

from crossdistil.core.data.masked_texts import read_masked
from crossdistil.core.data.masking import DynamicMasks, MaskingSettings
from crossdistil.core.data.mlm.vocabulary import Vocabulary
from crossdistil.core.data.piece_words import encoded_words
from crossdistil.core.data.row_batches import RowBatches
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import DataError
from crossdistil.tests.tiny_tokenizers import LINES, TEXTS, write_tokenizer

HAN = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module", params=["byte_level", "unigram"])
def tokenizer(request, tmp_path_factory):
    return load_tokenizer(write_tokenizer(tmp_path_factory.mktemp(request.param), request.param))


def test_words_begin_where_the_text_is_cut_and_at_each_han_piece(tokenizer):
    for text in TEXTS:
        encoding = tokenizer.library.encode(text, add_special_tokens=False)
        ids, lengths, starts = encoded_words(tokenizer.library, [text])
        assert ids.tolist() == encoding.ids and lengths.tolist() == [len(ids)]
        for place in range(1, len(ids)):
            (first, end), (before, last) = encoding.offsets[place], encoding.offsets[place - 1]
            other_word = encoding.word_ids[place] != encoding.word_ids[place - 1]
            if HAN.search(text[before:end]) and not other_word and not encoding.tokens[place].startswith("\u2581"):
                # A character that is cut into bytes is one word; of two pieces with other characters each is one.
                assert starts[place] == (first >= last)
            elif other_word:
                assert starts[place]
    first = encoded_words(tokenizer.library, ["played again"])[2]
    assert first[0] and first.sum() == 2


def test_masks_cover_whole_words(tokenizer, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{line}\n" for line in LINES * 4), encoding="utf-8")
    settings = MaskingSettings(whole_words=True, probability=0.3, mask=1, random=0, smoothing=0.7)
    found = read_masked(path, settings, tokenizer, 24, 5, cache_folder=tmp_path / "cache")
    table, rows = found.train, np.arange(len(found.train.lengths))
    whole = RowBatches(table, None, [24]).batch(rows)
    batch = found.train_masks(dict(whole), rows, 0)
    masked = batch["input_ids"] != whole["input_ids"]
    bits = np.unpackbits(table.word_bits)
    assert masked.any() and (batch["input_ids"][masked] == tokenizer.mask_id).all()
    words = partial = 0
    for row in rows:
        size = table.lengths[row] - 2
        begins = bits[table.offsets[row] : table.offsets[row] + size].astype(bool)
        begins[0] = True
        for part in np.split(masked[row, 1 : 1 + size], np.flatnonzero(begins)[1:]):
            words += part.any()
            partial += part.any() and not part.all()
    assert words > 10 and partial == 0
    assert not masked[:, 0].any()


def test_what_needs_the_texts_or_berts_pieces_is_refused(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="need a table that tells where they begin"):
        DynamicMasks(MaskingSettings(whole_words=True), tokenizer, 0)
    with pytest.raises(DataError, match="tokenizer with special tokens that are not BERT's"):
        Vocabulary(tokenizer.source.parent)
