"""Files on which the tokenizers library panics are one line, like every other wrong file."""

import json

import pytest

from crossdistil.core.data import panics
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CheckpointError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
DEFINITION = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None,
    "model": {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": {word: number for number, word in enumerate(WORDS)},
    },
}  # fmt: skip
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
BROKEN = {
    "characters": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "regular expression": {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": "(?<"}}},
    "replacement": {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}},
    "kind": {"model": {"type": "Nothing"}},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_definition_that_panics(tmp_path, capfd, name):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({**DEFINITION, **BROKEN[name]}))
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_regular_expression_without_end(tmp_path):
    pattern = {"pre_tokenizer": {**SPLIT, "pattern": {"Regex": "^(((a|a)+)+)+$"}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({**DEFINITION, **pattern}))
    tokenizer = load_tokenizer(tmp_path)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the tokenizers library cannot work with it"):
        tokenizer.encode_pairs(["a" * 40 + "b"], None, 512)


def test_others_pass(tmp_path):
    with pytest.raises(KeyboardInterrupt), panics.panics_told(tmp_path):
        raise KeyboardInterrupt
