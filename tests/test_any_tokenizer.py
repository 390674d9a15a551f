"""Tokenizers of every kind against transformers': ids, types, offsets, singles and pairs, cut or not; what is read off them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, processors, trainers

from crossdistil.core.data.row_batches import RowBatches
from crossdistil.core.data.tasks import Examples
from crossdistil.core.data.token_table import unknown_share
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.errors import CheckpointError, DataError
from crossdistil.tests.tiny_tokenizers import KINDS, TEXTS, write_tokenizer

pytestmark = pytest.mark.environment_of("torch", "mindspore")  # whose environment has transformers


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def both(folder):
    """Our tokenizer and transformers' of the same folder."""
    from transformers import PreTrainedTokenizerFast

    return load_tokenizer(folder), PreTrainedTokenizerFast.from_pretrained(folder)


def assert_same(both, texts, pairs, max_length):
    ours, theirs = both
    expected = theirs(texts, pairs, truncation="longest_first", max_length=max_length)
    table = ours.encode_pairs(texts, pairs, max_length)
    rows = [table.ids[start:end].tolist() for start, end in zip(table.offsets, table.offsets[1:])]
    assert rows == expected["input_ids"]
    batch = RowBatches(table, None, [max_length]).batch(np.arange(len(texts)))
    for row, ids in enumerate(expected["input_ids"]):
        assert batch["input_ids"][row, : len(ids)].tolist() == ids
        assert batch["attention_mask"][row].sum() == len(ids)
        assert batch["token_type_ids"][row, : len(ids)].tolist() == expected.encodings[row].type_ids
        assert table.first_lengths[row] >= expected.encodings[row].sequence_ids.count(0)


@pytest.mark.parametrize("max_length", [6, 9, 32, 400])
def test_ids_and_types_as_in_transformers(both, max_length):
    assert_same(both, TEXTS, None, max_length)
    assert_same(both, TEXTS, TEXTS[::-1], max_length)
    assert_same(both, TEXTS, ["the film is long " * 20] * len(TEXTS), max_length)


def test_offsets_as_in_transformers(both):
    ours, theirs = both
    expected = theirs(TEXTS, return_offsets_mapping=True)["offset_mapping"]
    assert [encoding.offsets for encoding in ours.library.encode_batch(TEXTS)] == expected


def test_left_truncation_as_in_transformers(folder, tmp_path):
    from transformers import PreTrainedTokenizerFast

    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"truncation_side": "left"}
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(tmp_path)
    assert_same((ours, PreTrainedTokenizerFast.from_pretrained(tmp_path)), TEXTS, TEXTS[::-1], 9)
    assert ours.fingerprint != load_tokenizer(folder).fingerprint


def test_saved_folder_gives_the_same_here_and_in_transformers(both, tmp_path):
    from transformers import AutoTokenizer

    ours, theirs = both
    ours.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint and again.named == ours.named and again.pad_id == ours.pad_id
    found = AutoTokenizer.from_pretrained(tmp_path)
    assert found(TEXTS)["input_ids"] == theirs(TEXTS)["input_ids"]
    assert ("token_type_ids" in found("a", "b")) == ours.places.types
    assert found.mask_token_id == ours.mask_id


def test_special_tokens(both):
    ours, theirs = both
    assert ours.vocab_size == len(theirs)
    assert ours.mask_id == theirs.mask_token_id or "mask" not in ours.named
    assert ours.pad_id == (theirs.eos_token_id if theirs.pad_token_id is None else theirs.pad_token_id)
    assert set(theirs.all_special_ids) <= ours.special_ids
    table = ours.encode_pairs(["☃ a"], None, 30)
    assert (unknown_share(table, ours) > 0) == (ours.unknown_id is not None)


def test_the_table_of_a_cache_has_the_same_types(both, tmp_path):
    ours, _ = both
    examples = Examples(TEXTS, TEXTS[::-1], None, None, np.arange(len(TEXTS)))
    for _ in range(2):
        table = tokenized(examples, ours, 32, tmp_path)
        assert table.types == ours.places.types and np.array_equal(table.ids, ours.encode_pairs(TEXTS, TEXTS[::-1], 32).ids)


def changed(folder, tmp_path, change):
    library = Library.from_file(str(folder / "tokenizer.json"))
    change(library)
    library.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_bad_folders(tmp_path):
    folder = write_tokenizer(tmp_path / "a", "byte_level")
    config = folder / "tokenizer_config.json"
    config.write_text('{"mask_token": "<gap>"}')
    with pytest.raises(CheckpointError, match="tokenizer.json: the vocabulary lacks <gap>, which is the mask_token"):
        load_tokenizer(folder)
    config.write_text('{"mask_token": 3}')
    with pytest.raises(CheckpointError, match="tokenizer_config.json: mask_token: got 3, expected a token"):
        load_tokenizer(folder)
    config.unlink()
    assert load_tokenizer(folder).mask_id == 4
    (tmp_path / "b").mkdir()

    def wild_types(library):
        library.post_processor = processors.TemplateProcessing(
            single="<s>:2 $A:0", pair="$A:0 $B:1 <s>:2", special_tokens=[("<s>", 0), ("</s>", 2)]
        )

    with pytest.raises(CheckpointError, match="its post_processor makes .* of a pair; expected the text, then the pair"):
        load_tokenizer(changed(folder, tmp_path / "b", wild_types))
    with pytest.raises(DataError, match="max_length 5 leaves no room for the text, expected 6 or more"):
        load_tokenizer(folder).encode_pairs(["a"], ["b"], 5)


def test_raw_text_needs_one_special_token_at_each_end(tmp_path):
    """GPT-2 puts none there; the tokens that begin and end a text in its training stand there then."""
    ours = load_tokenizer(write_tokenizer(tmp_path / "gpt2", "gpt2"))
    end = ours.library.token_to_id("<|endoftext|>")
    assert ours.ends == (end, end)
    library = Library(models.BPE())
    library.train_from_iterator(["some words"], trainers.BpeTrainer(special_tokens=["<s>"], show_progress=False))
    library.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match="puts 1 special tokens before a text and 0 behind it"):
        load_tokenizer(tmp_path).ends  # noqa: B018


def test_no_case_problem(both):
    assert both[0].case_problem() is None  # byte-level ones write a space as a capital letter


def test_case_is_told_where_texts_are_lower_cased(tmp_path):
    library = Library(models.BPE({"[UNK]": 0, "A": 1, "B": 2, "a": 3}, [], unk_token="[UNK]"))
    library.normalizer = normalizers.Lowercase()
    library.save(str(tmp_path / "tokenizer.json"))
    assert "(67% of its tokens have capital letters)" in load_tokenizer(tmp_path).case_problem()
