"""Tokens against transformers' BertTokenizerFast, tokenizer files in and out, and a cache that must never lie."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdistil.core.data import text_heads
from crossdistil.core.data.tasks import Examples
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.errors import CheckpointError, DataError
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éüß"
WORDS = "the play play ##ing ##ed film unaffable un ##aff ##able cafe café Café naive".split()
VOCABULARY = list(
    dict.fromkeys([*SPECIAL, *WORDS, *PIECES, *(f"##{each}" for each in PIECES), *"中国很好吃.,!?'\"-[]|\u2028", "##中"])
)
TRICKY = [
    "",
    " ",
    "The film, playing unaffably!",
    "Café naïve CAFÉ cafe\u0301 Zürich groß İstanbul ǅ",
    "中国很好吃 and中国mixed",
    "日本語のテキスト",
    "a" * 100,
    "a" * 101,
    "emoji 😀 family 👨‍👩‍👧 flag 🇨🇭",
    "control\x00char\x07 zero\u200bwidth\ufffd line\u2028end\u00a0nbsp\ttab",
    "written [SEP] and [MASK] and [CLS] and [sep]",
    "don't--stop... |x|",
]


def write_vocabulary(folder, tokens=VOCABULARY, **config):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_bytes("".join(f"{token}\n" for token in tokens).encode("utf-8"))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


SETTINGS = [{}, {"do_lower_case": False}, {"strip_accents": False, "tokenize_chinese_chars": False}]


@pytest.fixture(scope="module", params=SETTINGS, ids=["uncased", "cased", "accents"])
def both(request, tmp_path_factory):
    """Our tokenizer and transformers', from the same vocabulary and settings."""
    from transformers import BertTokenizerFast  # here: the environment of OneFlow has no transformers

    folder = write_vocabulary(tmp_path_factory.mktemp("vocabulary"), **request.param)
    vocabulary = {token: index for index, token in enumerate(VOCABULARY)}
    return load_tokenizer(folder), BertTokenizerFast(vocab=vocabulary, **request.param)


def assert_same(both, texts, pairs, max_length):
    ours, theirs = both
    table = ours.encode_pairs(texts, pairs, max_length)
    expected = theirs(texts, pairs, truncation="longest_first", max_length=max_length)
    for row, ids in enumerate(expected["input_ids"]):
        assert table.ids[table.offsets[row] : table.offsets[row + 1]].tolist() == ids
        assert table.first_lengths[row] == expected["token_type_ids"][row].count(0)
        assert table.lengths[row] == len(ids) <= max_length


@pytest.mark.parametrize("max_length", [5, 8, 16, 512])
def test_tricky_texts_as_in_transformers(both, max_length):
    assert_same(both, TRICKY, None, max_length)
    assert_same(both, TRICKY, TRICKY[::-1], max_length)
    assert_same(both, TRICKY, ["the film " * 20] * len(TRICKY), max_length)


@settings(max_examples=60, deadline=None, database=None)
@given(text=st.text(max_size=60), pair=st.text(max_size=60), max_length=st.integers(5, 40))
def test_any_text_as_in_transformers(both, text, pair, max_length):
    assert_same(both, [text], None, max_length)
    assert_same(both, [text], [pair], max_length)


def test_many_texts_are_encoded_in_chunks(both, monkeypatch):
    monkeypatch.setattr(text_heads, "CHUNK_TEXTS", 5)
    assert_same(both, TRICKY, TRICKY[::-1], 16)


def test_saved_folder_loads_the_same_here_and_in_transformers(both, tmp_path):
    from transformers import AutoTokenizer, BertTokenizerFast

    ours, theirs = both
    ours.save(tmp_path)
    assert (tmp_path / "vocab.txt").read_bytes().decode("utf-8").split("\n")[:-1] == VOCABULARY
    assert load_tokenizer(tmp_path).fingerprint == ours.fingerprint
    expected = theirs(TRICKY)["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path)(TRICKY)["input_ids"] == expected
    (tmp_path / "tokenizer.json").unlink()  # the two other files must say the same
    assert load_tokenizer(tmp_path).fingerprint == ours.fingerprint
    assert BertTokenizerFast.from_pretrained(tmp_path)(TRICKY)["input_ids"] == expected


def test_truncation_and_padding_of_tokenizer_json_are_overridden(both, tmp_path):
    ours, theirs = both
    definition = json.loads(ours.library.to_str())
    definition["truncation"] = {"max_length": 4, "strategy": "OnlyFirst", "stride": 0, "direction": "Right"}
    definition["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    definition["post_processor"] = None
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    assert_same((load_tokenizer(tmp_path), theirs), TRICKY, TRICKY[::-1], 20)


def test_attributes(tmp_path):
    tokens = [*VOCABULARY[1:], "[PAD]"]
    tokenizer = load_tokenizer(write_vocabulary(tmp_path / "a", tokens))
    assert (tokenizer.vocab_size, tokenizer.pad_id) == (len(tokens), len(tokens) - 1)
    assert tokenizer.encode_pairs(["a"], None, 8).pad_id == len(tokens) - 1
    cased = load_tokenizer(write_vocabulary(tmp_path / "b", tokens, do_lower_case=False))
    assert cased.fingerprint != tokenizer.fingerprint


def test_a_cased_vocabulary_whose_texts_are_lower_cased(tmp_path, tiny_task):
    plain = [token for token in VOCABULARY if token == token.lower() or token.startswith("[")]
    cased = [*plain, *(f"Word{letter}" for letter in "abcdefghij")]
    assert load_tokenizer(write_vocabulary(tmp_path / "a", plain)).case_problem() is None
    assert load_tokenizer(write_vocabulary(tmp_path / "b", cased, do_lower_case=False)).case_problem() is None
    problem = load_tokenizer(write_vocabulary(tmp_path / "c", cased)).case_problem()
    assert "vocab.txt: is a cased vocabulary (" in problem and '{"do_lower_case": false}' in problem
    task = {"name": "sst-2", "data": str(tiny_task)}
    student = {"tokenizer": str(tmp_path / "c"), "architecture": {"vocab_size": len(cased)}}
    stage = {"name": "a", "objective": [{"loss": "hard_label"}], "train": {"steps": 1}}
    recipe = parse_recipe({"method": "x", "task": task, "student": student, "stages": [stage]}, "recipe")
    with pytest.raises(CheckpointError, match="student.tokenizer: .*is a cased vocabulary"):
        prepare(recipe, "recipe", 1)


def test_bad_folders(tmp_path):
    def refused(message):
        with pytest.raises(CheckpointError, match=message):
            load_tokenizer(tmp_path)

    refused(r"no tokenizer\.json and no vocab\.txt; the folder is empty")
    write_vocabulary(tmp_path, ["[PAD]", "[UNK]", "a"])
    refused(r"vocab\.txt: the vocabulary lacks \[CLS\], \[SEP\]")
    write_vocabulary(tmp_path, [*SPECIAL, "a", "b", "a"])
    refused(r"vocab\.txt:8: the token 'a' is also on line 6")
    write_vocabulary(tmp_path, [*SPECIAL, "", "a"])
    refused(r"vocab\.txt:6: a blank line")
    (tmp_path / "tokenizer_config.json").write_text("{")
    refused(r"tokenizer_config\.json: is no JSON")
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    refused(r"tokenizer\.json: not a tokenizer file")


def test_max_length_must_hold_the_special_tokens(both):
    with pytest.raises(DataError, match="max_length 2 leaves no room for the text, expected 3 or more"):
        both[0].encode_pairs(["a"], None, 2)
    with pytest.raises(DataError, match="expected 5 or more"):
        both[0].encode_pairs(["a"], ["b"], 4)


class Counting:
    """Counts how often a tokenizer really encodes."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0
        self.fingerprint, self.pad_id = tokenizer.fingerprint, tokenizer.pad_id

    def encode_rows(self, *arguments):
        self.calls += 1
        return self.tokenizer.encode_rows(*arguments)


def make_examples(texts, pairs=None):
    return Examples(texts, pairs, None, None, np.arange(len(texts)))


@pytest.fixture
def counting(tmp_path):
    return Counting(load_tokenizer(write_vocabulary(tmp_path / "vocabulary")))


def assert_equal_tables(a, b):
    for name in ("ids", "offsets", "first_lengths"):
        first, second = getattr(a, name), getattr(b, name)
        assert first.dtype == second.dtype and np.array_equal(first, second)
    assert a.pad_id == b.pad_id


def test_cache_is_used_and_memory_mapped(counting, tmp_path):
    examples = make_examples(TRICKY, TRICKY[::-1])
    first = tokenized(examples, counting, 16, tmp_path / "cache")
    second = tokenized(examples, counting, 16, tmp_path / "cache")
    assert counting.calls == 1
    assert isinstance(second.ids, np.memmap) and not second.ids.flags.writeable
    for table in (first, second):
        assert_equal_tables(table, counting.tokenizer.encode_pairs(TRICKY, TRICKY[::-1], 16))
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    assert {path.name for path in entry.iterdir()} >= {"ids.npy", "offsets.npy", "first_lengths.npy"}


def test_cache_key_covers_all_that_changes_the_tokens(counting, tmp_path):
    cased = Counting(load_tokenizer(write_vocabulary(tmp_path / "cased", do_lower_case=False)))
    cases = [
        (make_examples(["ab", "c"]), counting, 16),
        (make_examples(["a", "bc"]), counting, 16),
        (make_examples(["ab", "c"]), counting, 17),
        (make_examples(["ab", "c"], ["", ""]), counting, 16),
        (make_examples(["ab", "c"], ["a", ""]), counting, 16),
        (make_examples(["ab", "c", "", ""]), counting, 16),
        (make_examples(["ab", "c"]), cased, 16),
    ]
    for examples, tokenizer, max_length in cases:
        tokenized(examples, tokenizer, max_length, tmp_path / "cache")
    assert counting.calls + cased.calls == len(cases)


@pytest.mark.parametrize("name", ["ids.npy", "offsets.npy", "first_lengths.npy", "sha256"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_damaged_cache_is_made_again(counting, tmp_path, name, damage):
    examples = make_examples(TRICKY)
    intact = counting.tokenizer.encode_pairs(TRICKY, None, 16)
    tokenized(examples, counting, 16, tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    content = (entry / name).read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    changed = {"flip": flipped, "truncate": content[:-8], "empty": b""}
    if damage == "remove":
        (entry / name).unlink()
    else:
        (entry / name).write_bytes(changed[damage])
    assert_equal_tables(tokenized(examples, counting, 16, tmp_path / "cache"), intact)
    assert counting.calls == 2
    assert_equal_tables(tokenized(examples, counting, 16, tmp_path / "cache"), intact)
    assert counting.calls == 2
    assert [path.name for path in (tmp_path / "cache" / "tokens").iterdir()] == [entry.name]


def test_concurrent_writers_all_get_the_tokens(tmp_path):
    folder = write_vocabulary(tmp_path / "vocabulary")
    examples, tables = make_examples(TRICKY * 20), []
    expected = load_tokenizer(folder).encode_pairs(examples.texts, None, 16)
    tokenizers = [load_tokenizer(folder) for _ in range(8)]
    threads = [
        threading.Thread(target=lambda each=each: tables.append(tokenized(examples, each, 16, tmp_path / "cache")))
        for each in tokenizers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tables) == 8
    for table in tables:
        assert_equal_tables(table, expected)
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_done_without(counting, tmp_path, caplog):
    (tmp_path / "file").write_text("a file where the cache folder should be")
    table = tokenized(make_examples(TRICKY), counting, 16, tmp_path / "file")
    assert_equal_tables(table, counting.tokenizer.encode_pairs(TRICKY, None, 16))
    assert "could not be cached" in caplog.text


def test_default_cache_folder_follows_the_environment(counting, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "elsewhere"))
    tokenized(make_examples(["a"]), counting, 8)
    assert (tmp_path / "elsewhere" / "tokens").is_dir()
