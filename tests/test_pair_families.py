"""Pairs of texts as each family reads them: scores of cross-encoders that transformers made, with its own tokenizers, and of
folders that are written here; who has token types."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from crossdistil.core.app.api import predict
from crossdistil.core.checkpoint import load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import RANKING
from crossdistil.core.model_inputs import trained_length
from crossdistil.core.models.answer_heads import EMBEDDINGS
from crossdistil.core.models.pooling import Pooling
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.vocabulary_fit import vocabulary_notes
from crossdistil.tests import tiny
from crossdistil.tests.tiny_rankings import ranking_recipe, write_rankings
from crossdistil.tests.tiny_rerankers import KINDS, LENGTH, tokenizer_of, write_reranker
from crossdistil.tests.tiny_sentences import change

pytestmark = [pytest.mark.environment_of("torch", "mindspore"), pytest.mark.only_backend("torch")]

PAIRS = [
    ("good film", "the plot was quite bad"), ("x", "fine"), ("a very long query " * 5, "and a long text " * 9), ("", "warm"),
    ("not a good story", ""), ("the actor", "a lovely scene"),
]  # fmt: skip
TEXTS, OTHERS = ([pair[side] for pair in PAIRS] for side in (0, 1))


def ours(folder):
    return np.array([each.score for each in predict(folder, TEXTS, OTHERS)])


def theirs(folder):
    """In two batches, so that there is padding."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder)).predict(PAIRS, batch_size=4)


def transformers_scores(folder):
    """One pair at a time, so that there is none."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        rows = (tokenizer([a], [b], truncation=True, max_length=LENGTH, return_tensors="pt") for a, b in PAIRS)
        return np.array([model(**row).logits.item() for row in rows])


@pytest.fixture(scope="module", params=KINDS)
def family(request, tmp_path_factory):
    return request.param, write_reranker(tmp_path_factory.mktemp(request.param) / "theirs", request.param)


def test_scores_are_those_of_transformers_and_of_sentence_transformers(family, tmp_path):
    """Of a folder of theirs and of the same model in a folder of ours."""
    kind, folder = family
    scores = ours(folder)
    assert scores.std() > 0.05
    np.testing.assert_allclose(scores, theirs(folder), atol=1e-5)
    np.testing.assert_allclose(scores, transformers_scores(folder), atol=1e-5)
    model = load_model(folder)
    assert model.kind == RANKING and trained_length(model) == LENGTH
    save_model(model, tmp_path / "ours", load_tokenizer(folder))
    np.testing.assert_allclose(ours(tmp_path / "ours"), scores, atol=1e-6)
    np.testing.assert_allclose(theirs(tmp_path / "ours"), scores, atol=1e-5)
    np.testing.assert_allclose(transformers_scores(tmp_path / "ours"), scores, atol=1e-5)
    named = json.loads((tmp_path / "ours" / "tokenizer_config.json").read_text()).get("model_input_names", ["token_type_ids"])
    assert "token_type_ids" not in named or getattr(model.config, "type_vocab_size", 0) > 1


@pytest.mark.parametrize("kind", ["gpt2", "mpnet"])
def test_vectors_of_single_texts_are_those_of_sentence_transformers(kind, tmp_path):
    """A GPT-2 of transformers that is given token types adds the words of their numbers to every token."""
    from sentence_transformers import SentenceTransformer

    folder, tokenizer = write_reranker(tmp_path / "encoder", kind, ending="Model"), tokenizer_of(kind)
    model = load_model(folder, classifier=EMBEDDINGS)
    model = replace(model, config=model.config.embedding(Pooling("mean", False)))
    save_model(model, tmp_path / "ours", load_tokenizer(folder))
    assert len(tokenizer) == model.config.vocab_size
    found = [each.embedding for each in predict(tmp_path / "ours", TEXTS[:3])]
    np.testing.assert_allclose(found, SentenceTransformer(str(tmp_path / "ours")).encode(TEXTS[:3]), atol=1e-5)


def without_types(folder):
    change(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    return folder


@pytest.mark.parametrize("form", ["template", "processing", "vocabulary"])
def test_a_folder_that_gives_a_model_no_token_types_is_read_so(form, tmp_path):
    """As transformers reads `model_input_names`, however its tokenizer is written, which is told; written here, it stays so."""
    from tokenizers import Tokenizer, processors

    folder = without_types(write_reranker(tmp_path / "theirs", "bert"))
    if form == "processing":
        library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        library.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        library.save(str(folder / "tokenizer.json"))
    elif form == "vocabulary":
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tiny.VOCABULARY))
    scores, tokenizer, model = ours(folder), load_tokenizer(folder), load_model(folder)
    np.testing.assert_allclose(scores, transformers_scores(folder), atol=1e-5)
    [note] = vocabulary_notes("model", model.config, tokenizer)
    assert note == "model: the second text of a pair has token type 0 as the first: model_input_names of " \
        "tokenizer_config.json has no token_type_ids"  # fmt: skip
    save_model(model, tmp_path / "ours", tokenizer)
    again = load_tokenizer(tmp_path / "ours")
    assert again.fingerprint == tokenizer.fingerprint and again.places == tokenizer.places and again.named == tokenizer.named
    np.testing.assert_allclose(theirs(tmp_path / "ours"), scores, atol=1e-5)


def test_a_class_of_tokenizers_without_token_types_is_known(tmp_path):
    """Beside a model that has types; a DistilBERT reads the same tokens either way."""
    folder = write_reranker(tmp_path / "theirs", "bert")
    change(folder / "tokenizer_config.json", tokenizer_class="DistilBertTokenizer")
    np.testing.assert_allclose(ours(folder), transformers_scores(folder), atol=1e-5)
    assert load_tokenizer(folder).untyped == "tokenizer_class of tokenizer_config.json is DistilBertTokenizer"
    change(folder / "config.json", type_vocab_size=0)
    assert load_tokenizer(folder).places.types


@pytest.mark.parametrize("said", ["PreTrainedTokenizerFast", "AlbertTokenizer", None])
def test_token_types_that_differ_with_the_version_of_transformers_are_told_of_pairs(said, tmp_path):
    folder = write_reranker(tmp_path / "theirs", "albert")
    path = folder / "tokenizer_config.json"
    change(path, tokenizer_class=said)
    model = load_model(folder)

    def notes(pairs=True):
        return vocabulary_notes("model", model.config, load_tokenizer(folder), pairs)

    assert not notes()  # which names what a model gets
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "model_input_names"}))
    [note] = notes()
    assert f"type 1; transformers 5 gives it none with {said or 'AlbertTokenizer'}, unless model_input_names" in note
    assert not notes(pairs=False)


@pytest.mark.parametrize("kind", ["gpt2", "mpnet"])
def test_a_trimmed_reranker_scores_the_same(kind, tmp_path, said):
    """Here and in sentence-transformers; a table of 38 places is no multiple of eight."""
    folder = write_reranker(tmp_path / "theirs", kind)
    write_rankings(tmp_path / "data", 4, 4)
    (tmp_path / "data" / "texts.txt").write_text("".join(f"{text}\n" for pair in PAIRS for text in pair if text))
    code, _, errors = said("trim", folder, tmp_path / "trimmed", "--data", tmp_path / "data")
    assert code == 0, errors
    scores = ours(tmp_path / "trimmed")
    np.testing.assert_allclose(scores, ours(folder), atol=1e-6)
    np.testing.assert_allclose(scores, theirs(tmp_path / "trimmed"), atol=1e-5)


def test_a_model_of_one_token_type_reads_pairs_without_types(tmp_path):
    """transformers fails where its tokenizer gives a pair type 1, as BERT's beside a RoBERTa; its users leave the types out."""
    folder = write_reranker(tmp_path / "theirs", "roberta", tokenizer_of("bert"), type_vocab_size=1)
    with pytest.raises(IndexError):
        transformers_scores(folder)
    [note] = vocabulary_notes("model", load_model(folder).config, load_tokenizer(folder))
    assert note.endswith("type 0 as the first: type_vocab_size of config.json is 1")
    scores = ours(folder)
    np.testing.assert_allclose(scores, transformers_scores(without_types(folder)), atol=1e-5)


def test_a_student_of_one_token_type_cannot_read_its_teachers_pairs(tmp_path):
    write_rankings(tmp_path / "data", 4, 4)
    tiny.write_model(tmp_path / "teacher", labels=None)
    recipe = ranking_recipe(tmp_path / "data", tmp_path / "teacher", [{"loss": "ranking_margin_mse"}])
    recipe["student"] = {"architecture": {"type_vocab_size": 1}, "init": {"from": "random"}}
    told = r"student: type_vocab_size is 1, but the tokenizer gives the second text of a pair token type 1; expected 2, or \{"
    with pytest.raises(CrossdistilError, match=told):
        prepare(parse_recipe(recipe, "test"), "test", 1)


@pytest.mark.parametrize("names", [["input_ids", "token_type_ids", "attention_mask"], None])
def test_token_types_that_a_gpt2_takes_for_words_are_told(tmp_path, names):
    """As folders of earlier versions gave it, and BERT's class does; without them transformers answers as we do."""
    folder = write_reranker(tmp_path / "theirs", "gpt2", None if names else tokenizer_of("bert"))
    if names:
        change(folder / "tokenizer_config.json", model_input_names=names)
    [note] = vocabulary_notes("model", load_model(folder).config, load_tokenizer(folder))
    assert note.startswith("model: transformers gives it token types, looks them up as words, and answers otherwise; ")
    scores = ours(folder)
    assert abs(scores - transformers_scores(folder)).max() > 1e-3
    np.testing.assert_allclose(scores, transformers_scores(without_types(folder)), atol=1e-5)
    assert not vocabulary_notes("model", load_model(folder).config, load_tokenizer(folder))


def test_a_reranker_of_others_says_that_it_gets_single_texts(tmp_path, said):
    code, _, errors = said("predict", write_reranker(tmp_path / "theirs", "bert"), "the film")
    assert code == 0 and "was trained on pairs of texts, but gets single ones" in errors
