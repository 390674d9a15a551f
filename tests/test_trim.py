"""`crossdistil trim`: smaller vocabularies of every kind, the same pieces and the same outputs, or nothing at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from crossdistil.core.app import trimming
from crossdistil.core.app.trimming import trim
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.smaller_vocabulary import kept_tokens, trimmed_tokenizer, used_tokens
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CheckpointError, CrossdistilError
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.tests.tiny_tokenizers import KINDS, LINES, TEXTS, write_tokenizer

USED = [LINES[1], LINES[3], "don't -- stop, play </s> again"]


def tokenizer_of(folder, kind):
    return load_tokenizer(write_tokenizer(folder, kind))


@pytest.mark.environment_of("torch", "mindspore")  # whose environment has transformers
@pytest.mark.parametrize("kind", KINDS)
def test_texts_give_the_same_pieces_and_any_text_no_more_unknown_ones(tmp_path, kind):
    from transformers import PreTrainedTokenizerFast

    whole = tokenizer_of(tmp_path / "whole", kind)
    used, count, pieces = used_tokens(whole, [USED[:1], USED[1:]])
    assert (count, pieces) == (3, len(whole.encode_pieces(USED)[0]))
    kept = kept_tokens(whole, used)
    small = trimmed_tokenizer(whole, kept)
    assert len(kept) == small.vocab_size < whole.vocab_size
    assert set(np.flatnonzero(used)) | whole.special_ids <= set(kept)
    for texts, pairs in ((USED, None), (USED, USED[::-1])):
        before, after = whole.encode_pairs(texts, pairs, 60), small.encode_pairs(texts, pairs, 60)
        assert np.array_equal(before.ids, kept[after.ids]) and np.array_equal(before.offsets, after.offsets)
        assert before.types == after.types and np.array_equal(before.first_lengths, after.first_lengths)
    if whole.unknown_id is not None:
        counts = [np.bincount(each.encode_pieces(TEXTS)[0], minlength=400)[each.unknown_id] for each in (whole, small)]
        assert counts[1] == counts[0] or kind == "mpnet"  # of WordPiece a whole word is unknown
    small.save(tmp_path / "small")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path / "small")
    rows = PreTrainedTokenizerFast.from_pretrained(tmp_path / "whole")(USED)["input_ids"]
    assert theirs(USED)["input_ids"] == [np.searchsorted(kept, row).tolist() for row in rows]


@pytest.fixture
def model(tmp_path):
    """A small model with the Unigram tokenizer, two classes, a table of words with five rows too many, and their texts."""
    tokenizer = tokenizer_of(tmp_path / "tokenizer", "unigram")
    config = BertConfig(
        vocab_size=tokenizer.vocab_size + 5, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, pad_token_id=tokenizer.pad_id,
    )  # fmt: skip
    parameters = {name: config.new_tensor(name, shape, 3) for name, shape in tensor_shapes(config, 2).items()}
    save_model(Model(config, parameters, 2, ("no", "yes")), tmp_path / "model", tokenizer)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in USED))
    return tmp_path / "model"


def test_the_command_tells_what_it_did(said, model, tmp_path):
    (tmp_path / "table.tsv").write_text("label\ttext\n1\tФильм был длинный\n0\tplay\n")
    tokenizer = load_tokenizer(model)
    used, _, _ = used_tokens(tokenizer, [USED])
    (wanted, *_) = [token for token, index in tokenizer.library.get_vocab().items() if len(token) > 2 and not used[index]]
    (tmp_path / "keep.txt").write_text(f"{wanted}\nno such piece\n")
    out = tmp_path / "out"
    data = ["--data", tmp_path / "texts.txt", "--data", tmp_path / "table.tsv", "--keep", tmp_path / "keep.txt"]
    code, output, errors = said("trim", model, out, *data)
    assert (code, errors) == (0, "")
    output = " ".join(output.split())
    assert "texts: 7, " in output and "note: 1 line of" in output and "written to " in output
    assert "note: table.tsv: the cells of all columns are taken as texts (label, text); --column NAME takes only some" in output
    assert "3 hidden states, pooled, logits of 7 texts are bit for bit the same" in output
    before, after = load_model(model), load_model(out)
    whole, small = load_tokenizer(model), load_tokenizer(out)
    assert small.library.token_to_id(wanted) is not None
    assert after.config.vocab_size == small.vocab_size < whole.vocab_size
    assert after.labels == ("no", "yes") and after.config.pad_token_id == small.pad_id
    table = "bert.embeddings.word_embeddings.weight"
    for token, index in small.library.get_vocab().items():
        assert np.array_equal(after.parameters[table][index], before.parameters[table][whole.library.token_to_id(token)])
    code, told, _ = said("trim", model, tmp_path / "column", *data[2:4], "--column", "text")
    assert code == 0 and "texts: 2, " in told and "note" not in told
    code, again, _ = said("trim", model, tmp_path / "again", "--data", tmp_path / "texts.txt", "--json")
    assert code == 0 and json.loads(again)["notes"] == []
    assert json.loads(again)["rows"] == load_tokenizer(tmp_path / "again").vocab_size


@pytest.mark.only_backend("torch")
def test_transformers_gives_the_same_logits(model, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    trim(model, tmp_path / "out", [tmp_path / "texts.txt"], None, False)
    found = []
    for folder in (model, tmp_path / "out"):
        tokens = AutoTokenizer.from_pretrained(folder)(USED, padding=True, return_tensors="pt")
        with torch.no_grad():
            found.append(AutoModelForSequenceClassification.from_pretrained(folder)(**tokens).logits)
    assert torch.equal(*found)


def test_a_head_over_words_is_cut_too(model, tmp_path):
    whole = load_tokenizer(model)
    config = load_model(model).config
    parameters = {name: config.new_tensor(name, shape, 3) for name, shape in tensor_shapes(config, None, True).items()}
    save_model(Model(config, parameters, None, words=True), tmp_path / "words", whole)
    trim(tmp_path / "words", tmp_path / "out", [tmp_path / "texts.txt"], None, False)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    kept = [whole.library.token_to_id(token) for token in _in_order(load_tokenizer(tmp_path / "out"))]
    assert np.array_equal(tensors["cls.predictions.bias"], parameters["cls.predictions.bias"][kept])
    assert load_model(tmp_path / "out", words=True).missing_words == ()


def _in_order(tokenizer):
    vocabulary = tokenizer.library.get_vocab()
    return sorted(vocabulary, key=vocabulary.get)


@pytest.mark.parametrize("what", ["pieces", "outputs", "weights"])
def test_nothing_is_left_where_the_proof_fails(said, model, tmp_path, monkeypatch, what):
    if what == "pieces":  # one that the texts use is lost
        used = trimming.used_tokens

        def without_one(tokenizer, texts):
            found, *counts = used(tokenizer, texts)
            longer = [index for index in np.flatnonzero(found) if len(tokenizer.library.id_to_token(int(index))) > 2]
            found[next(index for index in longer if index not in tokenizer.special_ids)] = False
            return found, *counts

        monkeypatch.setattr(trimming, "used_tokens", without_one)
    elif what == "outputs":
        ours = trimming._outputs

        def other(checkpoint, *rest):
            size = checkpoint.config.vocab_size
            return [{name: value + size for name, value in batch.items()} for batch in ours(checkpoint, *rest)]

        monkeypatch.setattr(trimming, "_outputs", other)
    else:
        monkeypatch.setattr(trimming, "KeptWords", lambda rows, files: _Shifted(rows, files))
    code, output, errors = said("trim", model, tmp_path / "out", "--data", tmp_path / "texts.txt")
    assert (code, output) == (1, ""), errors
    assert errors.startswith(f"crossdistil: {tmp_path / 'out'}: is not written: ")
    assert not (tmp_path / "out").exists() and sorted(p.name for p in tmp_path.iterdir()) == ["model", "texts.txt", "tokenizer"]


class _Shifted:
    """Takes the rows of the words beside those that are kept."""

    def __init__(self, rows, files):
        self.rows, self.tokenizer = np.append(rows[1:], rows[0]), files


def test_wrong_input(model, tmp_path):
    def refused(message, data, keep=None, columns=()):
        with pytest.raises(CrossdistilError, match=message):
            trim(model, tmp_path / "out", [tmp_path / data], keep, False, columns)
        assert not (tmp_path / "out").exists()

    refused("--data .*nowhere: no such file or folder", "nowhere")
    (tmp_path / "empty").mkdir()
    refused("holds no file that ends in .txt, .tsv", "empty")
    (tmp_path / "blank.txt").write_text("\n\n")
    refused("blank.txt: holds no text", "blank.txt")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    refused("table.csv.*no column", "table.csv", columns=["c"])
    refused("keep.txt", "texts.txt", keep=tmp_path / "keep.txt")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    refused("model: has no tokenizer", "texts.txt")


def test_words_that_cannot_be_numbered_anew(tmp_path):
    whole = tokenizer_of(tmp_path, "unigram")
    with pytest.raises(CheckpointError, match="cannot be numbered anew"):
        trimmed_tokenizer(whole, np.append(np.arange(whole.vocab_size), whole.vocab_size + 4))

