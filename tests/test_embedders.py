"""Models of sentence embeddings: how each family embeds, and the folders of sentence-transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from crossdistil.converters.convert import ConvertOptions, convert
from crossdistil.core.app.inspection import inspect
from crossdistil.core.app.models import model_folder
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError, CrossdistilError
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.answer_heads import EMBEDDINGS
from crossdistil.core.models.pooling import MODES, Pooling
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.teacher_identity import model_digest
from crossdistil.tests.drawn_models import write_drawn
from crossdistil.tests.tiny_sentences import TEXTS, change, vectors_of, write_embedder


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("normalised", [False, True])
def test_sentence_transformers_gives_the_same_vectors(mode, normalised, tmp_path):
    """Of a folder that was written here, and, read here, of one that it wrote itself."""
    from sentence_transformers import SentenceTransformer

    write_embedder(tmp_path / "own", Pooling(mode, normalised))
    theirs = SentenceTransformer(str(tmp_path / "own"), device="cpu")
    expected = theirs.encode(TEXTS)
    np.testing.assert_allclose(vectors_of(tmp_path / "own", TEXTS), expected, atol=1e-5)
    theirs.save(str(tmp_path / "theirs"))
    assert load_model(tmp_path / "theirs", classifier=EMBEDDINGS).config.pooling == Pooling(mode, normalised)
    np.testing.assert_allclose(vectors_of(tmp_path / "theirs", TEXTS), expected, atol=1e-5)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(
    "family", ["bert", "distilbert", "albert", "electra", "roberta", "mpnet", "deberta-v2", "modernbert"]
)
def test_every_family_embeds_as_transformers_does(family, tmp_path):
    import torch
    from transformers import AutoModel

    folder, ids, mask = write_drawn(tmp_path, family, lambda config: config.embedding(Pooling("mean", True)), None)
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder).eval()
        states = theirs(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    means = (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    own = load_model(folder, classifier=EMBEDDINGS)
    batch = {"input_ids": ids.astype(np.int32), "attention_mask": mask, "token_type_ids": np.zeros((2, 9), np.int32)}
    found = logits_function(own.config)(ReferenceOps(), own.parameters, batch)[0]
    np.testing.assert_allclose(found, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-5)


def two_modes(folder):
    change(folder / "1_Pooling" / "config.json", pooling_mode_max_tokens=True)


def dense(folder):
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))


PACKAGE = "sentence_transformers."
FOLDERS = {
    "two modes": (two_modes, r"1_Pooling/config.json: pools by mean, max; computed here is one of mean or cls or lasttoken"),
    "a module": (dense, r"modules.json: its modules are Transformer, Pooling, Normalize, Dense; computed here"),
    "no list": (lambda folder: (folder / "modules.json").write_text("3"), r"modules.json: expected a list of modules, got 3"),
    "no pooling": (lambda folder: shutil.rmtree(folder / "1_Pooling"), r"1_Pooling/config.json: no such file, though modules"),
    "lower case": (
        lambda folder: change(folder / "sentence_bert_config.json", do_lower_case=True),
        r"sentence_bert_config.json: do_lower_case is true",
    ),
    "no mode": (
        lambda folder: change(folder / "1_Pooling" / "config.json", pooling_mode=[["mean"]]),
        r"1_Pooling/config.json: pools by \['mean'\]; computed here",
    ),
    "a word for a switch": (
        lambda folder: change(folder / "1_Pooling" / "config.json", pooling_mode_cls_token="false"),
        r"1_Pooling/config.json: pooling_mode_cls_token: got 'false', expected true or false",
    ),
    "code of its own": (
        lambda folder: (folder / "modules.json").write_text((folder / "modules.json").read_text().replace(PACKAGE, "own.")),
        r"modules.json: its modules are 'own.models.Transformer', 'own.models.Pooling', 'own.models.Normalize'; computed here",
    ),
    "length": (
        lambda folder: change(folder / "sentence_bert_config.json", max_seq_length="16"),
        r"sentence_bert_config.json: max_seq_length: got '16', expected a number of tokens",
    ),
    "prompt": (
        lambda folder: change(folder / "config_sentence_transformers.json", prompts={"q": "query: "}, default_prompt_name="q"),
        r"default_prompt_name is 'q': each text gets 'query: ' before it, which is not done here",
    ),
}


def test_a_conversion_keeps_how_texts_are_embedded(tmp_path):
    """Through the code of each framework and back, and of an old folder of sentence-transformers, whose weights are pickled."""
    source = tmp_path / "source"
    write_embedder(source, Pooling("last", True))
    expected = vectors_of(source, TEXTS)
    for to in ("tf", "mindspore", "oneflow"):
        made = convert(source, tmp_path / to, ConvertOptions(to))
        assert [line for line in made.notes if line.startswith("it embeds texts: modules.json says how")], made.notes
        assert inspect(tmp_path / to)["classifier"] == "embeds texts: last of the tokens' states, scaled to length 1"
        assert convert(tmp_path / to, tmp_path / f"{to}-back", ConvertOptions("pytorch")).notes == ()
        np.testing.assert_array_equal(vectors_of(tmp_path / f"{to}-back", TEXTS), expected)
    convert(source, tmp_path / "old", ConvertOptions("pytorch", "bin"))
    np.testing.assert_array_equal(vectors_of(model_folder(tmp_path / "old"), TEXTS), expected)
    (source / "modules.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"modules\.json: "):
        convert(source, tmp_path / "wrong", ConvertOptions("tf"))


@pytest.mark.parametrize("case", FOLDERS)
def test_what_is_not_computed_is_refused(case, tmp_path):
    write_embedder(tmp_path / "model", Pooling("mean", True))
    (tmp_path / "model" / "checksums.json").unlink(missing_ok=True)
    damage, message = FOLDERS[case]
    damage(tmp_path / "model")
    with pytest.raises(CrossdistilError, match=message):
        load_model(tmp_path / "model", classifier=EMBEDDINGS)


def test_prompts_are_told(tmp_path):
    write_embedder(tmp_path / "model")
    change(tmp_path / "model" / "config_sentence_transformers.json", prompts={"query": "query: ", "document": ""})
    [note] = load_model(tmp_path / "model", classifier=EMBEDDINGS).notes
    assert note.endswith("its prompts ('query') are for who calls the model; no text gets one here")


def test_pooling_is_part_of_what_a_cache_is_of(tmp_path):
    models = [write_embedder(tmp_path / mode, Pooling(mode)) for mode in MODES]
    assert len({model_digest(model) for model in models}) == len(MODES)
