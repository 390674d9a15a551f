"""Folders without a tokenizer.json: vocab.json with merges.txt against transformers' classes, sentencepiece models against
sentencepiece itself, and MPNet's vocab.txt, which looks like BERT's."""

from __future__ import annotations

import io
import json

import pytest

from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.tiny_tokenizers import LINES, TEXTS, byte_level, mpnet

pytestmark = pytest.mark.environment_of("torch", "mindspore")  # whose environment has transformers and sentencepiece

PLAIN = [text for text in TEXTS if not any(token in text for token in ("<s>", "[MASK]"))]


def ids(tokenizer, texts, pairs=None):
    table = tokenizer.encode_pairs(texts, pairs, 1000)
    return [table.ids[start:end].tolist() for start, end in zip(table.offsets, table.offsets[1:])]


def write_bpe(folder, special, **config):
    folder.mkdir(exist_ok=True)
    library, _ = byte_level(special)
    library.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


BPE_CLASSES = {
    "RobertaTokenizer": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "DebertaTokenizer": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"],
    "GPT2Tokenizer": ["<|endoftext|>"],
}


@pytest.mark.parametrize("name", BPE_CLASSES)
@pytest.mark.parametrize("prefix", [False, True])
def test_vocabulary_and_merges_as_in_transformers(tmp_path, name, prefix):
    import transformers

    folder = write_bpe(tmp_path / "a", dict(enumerate(BPE_CLASSES[name])), tokenizer_class=name, add_prefix_space=prefix)
    ours, theirs = load_tokenizer(folder), getattr(transformers, name).from_pretrained(folder)
    # Without a written <mask>: transformers 5 no longer takes the space before it, as RoBERTa's own tokenizer.json says.
    assert ids(ours, PLAIN) == theirs(PLAIN)["input_ids"]
    if name != "DebertaTokenizer":  # transformers 5 doubles [SEP] before the pair, which DeBERTa's own code does not
        assert ids(ours, PLAIN, PLAIN[::-1]) == theirs(PLAIN, PLAIN[::-1])["input_ids"]
    ours.save(tmp_path / "b")
    assert load_tokenizer(tmp_path / "b").fingerprint == ours.fingerprint


def test_added_tokens_keep_their_numbers(tmp_path):
    folder = write_bpe(tmp_path / "a", dict(enumerate(BPE_CLASSES["RobertaTokenizer"])), tokenizer_class="RobertaTokenizer")
    size = load_tokenizer(folder).vocab_size
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": size}))
    assert load_tokenizer(folder).library.token_to_id("<new>") == size
    (folder / "added_tokens.json").write_text(json.dumps({"<new>": size + 3}))
    with pytest.raises(CheckpointError, match=f"'<new>' is token {size} of vocab.json, but {size + 3} here"):
        load_tokenizer(folder)


def test_unknown_classes_are_refused(tmp_path):
    folder = write_bpe(tmp_path / "a", dict(enumerate(BPE_CLASSES["RobertaTokenizer"])), tokenizer_class="CodeGenTokenizer")
    with pytest.raises(CheckpointError, match="vocab.json: of 'codegen'; without a tokenizer.json only those of bart, deberta"):
        load_tokenizer(folder)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="of a class that tokenizer_config.json .* does not tell"):
        load_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "roberta"}')
    assert load_tokenizer(folder).mask_id == 4
    (folder / "merges.txt").write_text("#version: 0.2\na\n")
    with pytest.raises(CheckpointError, match="merges.txt: not a tokenizer file"):
        load_tokenizer(folder)


@pytest.fixture(scope="module")
def sentencepiece():
    import sentencepiece

    return sentencepiece


def trained(sentencepiece, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 3), model_writer=model, vocab_size=220, hard_vocab_limit=False, minloglevel=2, **options
    )
    return model.getvalue()


def pieces(sentencepiece, model, text):
    return sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)


NUMBERED = {  # class: file, options of the trainer, and what the number of a piece becomes (unknown: 0 in sentencepiece)
    "XLMRobertaTokenizer": ("sentencepiece.bpe.model", {}, lambda index: 3 if index == 0 else index + 1),
    "CamembertTokenizer": ("sentencepiece.bpe.model", {}, lambda index: 3 if index == 0 else index + 4),
    "DebertaV2Tokenizer": (
        "spm.model",
        {"pad_id": 0, "unk_id": 3, "bos_id": 1, "eos_id": 2, "unk_piece": "[UNK]", "pad_piece": "[PAD]", "bos_piece": "[CLS]",
         "eos_piece": "[SEP]"},
        lambda index: index,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NUMBERED)
def test_sentencepiece_models_give_its_pieces(tmp_path, sentencepiece, name):
    file, options, number = NUMBERED[name]
    model = trained(sentencepiece, **options)
    (tmp_path / file).write_bytes(model)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    ours = load_tokenizer(tmp_path)
    before, behind = ours.places.single
    for text, found in zip(PLAIN, ids(ours, PLAIN)):
        expected = [number(index) for index in pieces(sentencepiece, model, text)]
        assert found == [*before, *expected, *behind], text
    assert ours.places.types == (name == "DebertaV2Tokenizer")
    assert ours.mask_id == ours.vocab_size - 1
    ours.save(tmp_path / "b")
    assert ids(load_tokenizer(tmp_path / "b"), TEXTS, TEXTS[::-1]) == ids(ours, TEXTS, TEXTS[::-1])


def test_alberts_sentencepiece_model(tmp_path, sentencepiece):
    special = {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "pad_piece": "<pad>"}
    model = trained(sentencepiece, **special, control_symbols=["[CLS]", "[SEP]", "[MASK]"])
    (tmp_path / "spiece.model").write_bytes(model)
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    ours = load_tokenizer(tmp_path)
    assert (ours.places.single, ours.places.types, ours.pad_id, ours.mask_id) == (((2,), (3,)), True, 0, 4)
    for text in ("the film was playing, and nobody", "love and of losing it again"):
        assert ids(ours, [text]) == ids(ours, [text.upper()]) == [[2, *pieces(sentencepiece, model, text), 3]]


def test_damaged_models_are_refused(tmp_path, sentencepiece):
    path, config = tmp_path / "spiece.model", tmp_path / "config.json"
    config.write_text('{"model_type": "albert"}')
    for content in (b"", b"\x0a\xff\x01", b"no model at all"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="spiece.model: not a sentencepiece model"):
            load_tokenizer(tmp_path)
    path.write_bytes(trained(sentencepiece, model_type="bpe"))
    with pytest.raises(CheckpointError, match="a sentencepiece model of type 2, expected Unigram"):
        load_tokenizer(tmp_path)


def test_mpnets_vocabulary_file_is_not_taken_for_berts(tmp_path):
    import transformers

    library, special = mpnet()
    vocabulary = library.get_vocab()
    assert {"[CLS]", "[SEP]", "<s>", "</s>"} <= set(vocabulary)
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
    ours = load_tokenizer(tmp_path)  # nothing beside it: its first token tells
    begin, end = vocabulary["<s>"], vocabulary["</s>"]
    assert ours.places.pair == ((begin,), (end, end), (end,)) and ours.mask_id == vocabulary["<mask>"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MPNetTokenizer"}))
    theirs = transformers.MPNetTokenizer(vocab=vocabulary, **{f"{role}_token": token for role, token in special.items()})
    assert ids(load_tokenizer(tmp_path), TEXTS) == theirs(TEXTS)["input_ids"]
