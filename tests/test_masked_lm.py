"""The masked language model: transformers is the referee for its meaning, the float64 reference for each backend. And what
it proposes for the words of a text."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.augmentation.language_model import Gap, GapFiller, load_language_model
from crossdistil.core.augmentation.replaced_words import CandidateFinder, MaskedSettings, augment_by_masked_lm
from crossdistil.core.augmentation.vectors import WordVectors
from crossdistil.core.checkpoint import WEIGHTS
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.masked_lm import make_masked_lm
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.tiny_masked_lm import HEAD_CONFIG, write_masked_lm

DECODER, EMBEDDINGS = "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"


@pytest.fixture(scope="module")
def masked_lm_folder(tmp_path_factory):
    return write_masked_lm(tmp_path_factory.mktemp("mlm") / "model")


@pytest.fixture(scope="module")
def model(masked_lm_folder):
    return load_language_model(masked_lm_folder)


@pytest.fixture(scope="module")
def filler(model, engine):
    return GapFiller(model, engine, batch_size=8)


def masked_batch(seed=3, fill=1):
    batch = tiny.random_batch(fill=fill, seed=seed)
    rows, length = batch["input_ids"].shape
    positions = np.random.default_rng(seed).integers(0, batch["attention_mask"].sum(axis=1).astype(int))
    return batch | {"masked_rows": (np.arange(rows) * length + positions).astype(np.int32)}


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_the_head_is_the_reference_s(engine, model, activation):
    function = make_masked_lm(HEAD_CONFIG.model_copy(update={"hidden_act": activation}))
    batch = masked_batch()
    (expected,) = function(ReferenceOps(), model.parameters, batch)
    (found,) = engine.infer(function, model.parameters)(batch)
    assert found.shape == (5, HEAD_CONFIG.vocab_size)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


@pytest.mark.only_backend("torch")
def test_the_head_in_half_precision(make_engine, model):
    function, batch = make_masked_lm(HEAD_CONFIG), masked_batch()
    (expected,) = function(ReferenceOps(), model.parameters, batch)
    (found,) = make_engine(precision="bf16").infer(function, model.parameters)(batch)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    assert 1e-4 < difference < 3e-2  # of 8 bits, and not computed in float32


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(("tied", "activation"), [(True, "gelu"), (False, "gelu_new"), (True, "relu")])
def test_a_folder_of_transformers_means_the_same_to_us(engine, tied, activation, tmp_path):
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(1)
    keys = HEAD_CONFIG.model_dump(exclude={"classifier_dropout", "hidden_act"})
    theirs = BertForMaskedLM(BertConfig(**keys, hidden_act=activation, tie_word_embeddings=tied)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tiny.write_vocabulary(tmp_path / "model"))
    ours = load_language_model(tmp_path / "model")
    assert ours.tied == tied and (DECODER in ours.parameters) == (not tied)
    batch = masked_batch(fill=0)
    inputs = {name: torch.from_numpy(batch[name]).long() for name in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        expected = theirs(**inputs).logits.reshape(-1, HEAD_CONFIG.vocab_size)[batch["masked_rows"]].numpy()
    (found,) = engine.infer(make_masked_lm(ours.config, ours.tied), ours.parameters)(batch)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


def test_a_tied_decoder_in_the_file_is_the_embeddings(tmp_path):
    folder = write_masked_lm(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    save_file(tensors | {DECODER: tensors[EMBEDDINGS].copy()}, folder / WEIGHTS)
    assert load_language_model(folder).tied


def test_folders_that_are_no_language_model(tmp_path, tiny_model):
    with pytest.raises(CheckpointError, match="has no cls.predictions.transform.dense.weight, so it is no masked"):
        load_language_model(tiny_model)
    folder = write_masked_lm(tmp_path / "model")
    tensors = load_file(folder / WEIGHTS)
    for change, message in (
        ({"cls.predictions.bias": np.zeros(3, np.float32)}, r"cls.predictions.bias has shape \(3,\), config.json says"),
        ({"cls.predictions.bias": np.full(HEAD_CONFIG.vocab_size, np.nan, np.float32)}, "not finite"),
    ):
        save_file(tensors | change, folder / WEIGHTS)
        with pytest.raises(CheckpointError, match=message):
            load_language_model(folder)


def test_gaps_are_filled_by_the_most_probable_words(filler, model):
    """Many texts at once give what each gap gives alone, by the float64 reference."""
    texts = ["the film was good", "a", "the plot of it is so bad and dull but the actor was quite fine", "xyz was it"]
    encoded = [encoding.ids for encoding in model.tokenizer.library.encode_batch(texts, add_special_tokens=False)]
    gaps = [Gap(0, 1, 2), Gap(0, 3, 4), Gap(1, 0, 1), Gap(3, 0, 3), *(Gap(2, place, place + 1) for place in range(10))]
    found = filler.fill(encoded, gaps, 15)
    function = make_masked_lm(model.config)
    library = model.tokenizer.library
    cls, sep, mask = (library.token_to_id(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
    for gap, words in zip(gaps, found, strict=True):
        whole = encoded[gap.text][: filler.room]
        first = [cls, *whole[: gap.start], mask, *whole[gap.end :], sep]
        ids = np.array([[*first, *whole, sep]], np.int32)
        batch = {
            "input_ids": ids,
            "token_type_ids": (np.arange(ids.shape[1]) >= len(first))[None].astype(np.int32),
            "attention_mask": np.ones(ids.shape, np.float32),
            "masked_rows": np.array([1 + gap.start], np.int32),
        }
        (logits,) = function(ReferenceOps(), model.parameters, batch)
        tokens = [library.id_to_token(int(place)) for place in np.argsort(-logits[0])[:15]]
        assert words == [token for token in tokens if not token.startswith("##") and token not in tiny.SPECIAL]
    assert filler.fill(encoded, [], 15) == []


def test_which_words_have_candidates(filler, model):
    finder = CandidateFinder(model, filler, 15)
    text = "The film , it was xyz 4 and GREAT"
    places = finder.places([text])[text]
    # Neither stop words nor what is not alphabetic; "xyz" has three pieces and is masked by one [MASK].
    assert [text[place.start : place.end] for place in places] == ["film", "xyz", "GREAT"]
    for place in places:
        word = text[place.start : place.end]
        assert word.lower() not in [candidate.lower() for candidate in place.candidates]
        assert all(candidate[0].isupper() == word[0].isupper() or not candidate[0].isalpha() for candidate in place.candidates)
    vectors = WordVectors(["xyz", "Near", "far"], np.array([[1, 0], [1, 0.1], [0, 1]], np.float32))
    with_vectors = CandidateFinder(model, filler, 15, vectors).places([text, "xyzz"])
    assert with_vectors[text][0] == places[0] and with_vectors[text][2] == places[2]
    assert with_vectors[text][1].candidates == ("Near", "far")
    assert with_vectors["xyzz"] == []  # several pieces and no vector: left alone


def test_a_text_that_is_too_long_is_changed_where_it_fits(filler, model):
    text = " ".join(["film"] * 30)
    places = CandidateFinder(model, filler, 15).places([text])[text]
    assert len(places) == filler.room == (model.config.max_position_embeddings - 3) // 2


def test_of_a_pair_the_other_text_stays_the_original(filler, model):
    finder = CandidateFinder(model, filler, 15)
    texts, pairs = ["the film was good", "bad actor"], ["a dull plot", "the"]
    settings = MaskedSettings(copies=6)
    copies = list(augment_by_masked_lm(texts, pairs, finder, settings, seed=1))
    assert Counter((copy.row, copy.text != texts[copy.row], copy.pair != pairs[copy.row]) for copy in copies) == {
        (0, True, False): 6, (0, False, True): 6, (1, True, False): 6,
    }
    assert copies == list(augment_by_masked_lm(texts, pairs, finder, settings, seed=1))
    assert copies != list(augment_by_masked_lm(texts, pairs, finder, settings, seed=2))
