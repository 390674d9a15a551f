"""What the published code of a target would compute otherwise is refused or told, and never verified."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import crossdistil
from crossdistil.converters.canonical import read_canonical
from crossdistil.converters.formats import open_checkpoint
from crossdistil.core.app.models import model_folder
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.answer_heads import TOKENS
from crossdistil.tests import tiny
from crossdistil.tests.conversion_sources import BERT, FAMILIES, assert_same, random_tensors, tensors_of, write_config
from crossdistil.tests.tiny_families import DISTILBERT, ELECTRA

pytestmark = pytest.mark.only_backend("torch")

RELU = {"classifier_relu": True}
GOOGLES_BERT = re.compile(r"(bert/|cls/(predictions|seq_relationship|squad)/|output_(weights|bias)$)")


def write(folder: Path, config=BERT, outputs=3, heads=(), without=(), **keys) -> Path:
    """A model with these heads, without the tensors whose names start so, and with these keys in its config.json."""
    tensors = random_tensors(config, outputs)
    starts = {"mlm": "cls.predictions.", "nsp": "cls.seq", "generator": "generator_", "discriminator": "discriminator_"}
    starts["words"] = ("vocab_", "predictions.")
    for head, start in starts.items():
        if head not in heads:
            tensors = {name: array for name, array in tensors.items() if not name.startswith(start)}
    write_config(folder, config, outputs)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({key: value for key, value in (raw | keys).items() if value is not None}))
    kept = {name: array for name, array in tensors.items() if not name.startswith(tuple(without))}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder


def of_class(name: str) -> dict[str, list[str]]:
    return {"architectures": [name]}


REFUSED = {
    "DistilBERT's hidden layer": ("tf", {"config": DISTILBERT}, "pre_classifier: Google's classifier has no hidden layer"),
    "ELECTRA's hidden layer": ("tf", {"config": ELECTRA}, "the classifier: Google's ELECTRA has none of this kind"),
    "a ReLU, to Google": ("tf", RELU, "classifier_relu: Google's graph has no ReLU"),
    "a ReLU, to transformers": ("pytorch", RELU, "classifier_relu: transformers has no ReLU"),
    "choices, to Google": (
        "tf",
        {"outputs": 1, "id2label": None, **of_class("BertForMultipleChoice")},
        "a multiple-choice model has no home",
    ),
    "choices, to the zoo": (
        "mindspore",
        {"outputs": 1, "id2label": None, **of_class("BertForMultipleChoice")},
        "a multiple-choice model has no home",
    ),
    "two heads of ELECTRA": (
        "tf",
        {"config": ELECTRA, "outputs": None, "heads": ("generator", "discriminator")},
        "discriminator and generator: in Google's ELECTRA each has an encoder of its own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_target_cannot_express_is_refused_and_its_encoder_is_not(tmp_path, name):
    to, model, message = REFUSED[name]
    source = write(tmp_path / "source", **model)
    with pytest.raises(CheckpointError, match=f"^--to {to}: {message}.*--encoder-only leaves the heads out"):
        crossdistil.convert(source, tmp_path / "new", to=to, verify=True)
    assert not (tmp_path / "new").exists()
    told = crossdistil.convert(source, tmp_path / "new", to=to, encoder_only=True)
    kept = tensors_of(tmp_path / "new")
    assert_same(kept, {name: array for name, array in tensors_of(source).items() if name in kept})
    assert told["dropped"]["head that is left out"] == len(tensors_of(source)) - len(kept) > 0
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["architectures"][0].endswith("Model") and "classifier_relu" not in config


def test_without_a_proof_the_encoder_of_a_distilbert_is_converted_and_its_classifier_is_told(tmp_path):
    source = write(tmp_path / "source", config=DISTILBERT)
    told = crossdistil.convert(source, tmp_path / "new", to="tf")
    assert (
        "pre_classifier: Google's classifier has no hidden layer of this kind: it and the classifier are left out"
        in told["notes"]
    )
    crossdistil.convert(source, tmp_path / "encoder", to="tf", encoder_only=True)
    assert_same(tensors_of(tmp_path / "new"), tensors_of(tmp_path / "encoder"))
    assert not any("output_weights" in name or "classifier" in name for name in tensors_of(tmp_path / "new"))


def test_our_own_models_have_the_relu(tmp_path):
    """What no other code computes, this package does: such a checkpoint can be converted for it, in the cache, and is told to
    those who write the program that loads it elsewhere."""
    source = write(tmp_path / "source", **RELU)
    assert any("TinyBERT has this ReLU" in note for note in crossdistil.convert(source, tmp_path / "ms", to="mindspore")["notes"])
    assert any("ReLU" in note for note in crossdistil.convert(source, tmp_path / "flow", to="oneflow")["notes"])
    assert load_model(model_folder(tmp_path / "ms")).config.classifier_relu


CAUSAL = {
    "by its class": of_class("BertLMHeadModel"),
    "by a flag": {"is_decoder": True},
    "by both": {"is_decoder": True, **of_class("BertLMHeadModel")},
    "of another family": {"config": ELECTRA, "outputs": None, "heads": ("generator",), **of_class("ElectraForCausalLM")},
}


@pytest.mark.parametrize("to", ["pytorch", "tf", "mindspore", "oneflow"])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_decoder_is_no_encoder(tmp_path, name, to):
    model = {"outputs": None, "heads": ("mlm",), **CAUSAL[name]}
    with pytest.raises(CheckpointError, match="is_decoder|causal"):
        crossdistil.convert(write(tmp_path / "source", **model), tmp_path / "new", to=to)
    assert not (tmp_path / "new").exists()


NOTES = {
    "no pooler, to Google": ("tf", {"outputs": None, "heads": ("mlm",), "without": ["bert.pooler"]}, "no pooler: Google's graph"),
    "no pooler, to the zoo": (
        "mindspore",
        {"outputs": None, "heads": ("mlm",), "without": ["bert.pooler"]},
        "no pooler: the zoo",
    ),
    "no nsp, to Google": ("tf", {"outputs": None, "heads": ("mlm",)}, "no nsp head: Google's run_pretraining"),
    "no mlm, to Google": ("tf", {"outputs": None, "heads": ("nsp",)}, "only the nsp head"),
    "tokens, to Google": ("tf", of_class("BertForTokenClassification"), "the classifier is one of tokens"),
    "epsilon, to Google": ("tf", {"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05: Google's graph normalises with 1e-12"),
    "epsilon, to the zoo": ("mindspore", {"layer_norm_eps": 1e-5}, "layer_norm_eps is 1e-05: the zoo's LayerNorm"),
    "gelu, to the zoo": ("mindspore", {}, "MindSpore's model zoo computes gelu by the tanh"),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_a_target_computes_otherwise_is_told(tmp_path, name):
    to, model, note = NOTES[name]
    told = crossdistil.convert(write(tmp_path / "source", **model), tmp_path / "new", to=to)
    assert any(note in line for line in told["notes"])
    silent = {"outputs": 3, "hidden_act": "gelu_new"}
    assert not crossdistil.convert(write(tmp_path / "plain", **silent), tmp_path / "other", to=to)["notes"]


def test_what_the_zoo_computes_otherwise_is_told_when_its_files_are_read(tmp_path):
    """Its NER model has the names of its classifier: only the configuration tells them apart."""
    crossdistil.convert(write(tmp_path / "source"), tmp_path / "ms", to="mindspore")
    config = json.loads((tmp_path / "ms" / "config.json").read_text())
    del config["architectures"], config["id2label"], config["label2id"]
    (tmp_path / "ms" / "config.json").write_text(json.dumps(config))
    notes = crossdistil.convert(tmp_path / "ms", tmp_path / "1", to="pytorch")["notes"]
    assert any("read as Hugging Face's (by erf)" in note for note in notes)
    assert any("its NER model have the same names" in note for note in notes)
    (tmp_path / "ms" / "config.json").write_text(json.dumps(config | of_class("BertForTokenClassification")))
    crossdistil.convert(tmp_path / "ms", tmp_path / "2", to="pytorch")
    assert json.loads((tmp_path / "2" / "config.json").read_text())["architectures"] == ["BertForTokenClassification"]
    assert read_canonical(tmp_path / "2").task == TOKENS


def test_a_conditional_random_field_is_one_of_tokens(tmp_path):
    source = write(tmp_path / "source", architectures=None, id2label=None)
    tensors = load_file(source / "model.safetensors") | {"loss.transitions": np.ones((3, 3), np.float32)}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="unknown tensor loss.transitions"):
        crossdistil.convert(source, tmp_path / "new", to="pytorch")
    crossdistil.convert(source, tmp_path / "new", to="pytorch", allow_extra=["loss.*"])
    assert read_canonical(tmp_path / "new").task == TOKENS


def test_a_classifier_without_a_pooler_is_not_guessed(tmp_path):
    model = {"without": ["bert.pooler"], "architectures": None}
    with pytest.raises(CheckpointError, match=r'"architectures": \["BertForTokenClassification"\] in the configuration says'):
        crossdistil.convert(write(tmp_path / "source", **model), tmp_path / "new", to="pytorch")


def test_a_token_classifier_stays_one_through_every_framework(tmp_path):
    model = {"without": ["bert.pooler"], **of_class("BertForTokenClassification")}
    source = write(tmp_path / "source", **model)
    for to in ("tf", "mindspore", "oneflow", "pytorch"):
        crossdistil.convert(source, tmp_path / to, to=to)
        source = tmp_path / to
    assert_same(tensors_of(source), tensors_of(tmp_path / "source"))
    assert json.loads((source / "config.json").read_text())["architectures"] == ["BertForTokenClassification"]


@pytest.mark.parametrize("family", ["bert", "distilbert", "albert"])
def test_googles_names_are_all_there_is(tmp_path, family):
    outputs = None if family == "distilbert" else 3
    source = write(tmp_path / "source", FAMILIES[family], outputs, ("mlm", "nsp", "words"))
    crossdistil.convert(source, tmp_path / "tf", to="tf")
    assert all(GOOGLES_BERT.match(name) for name in open_checkpoint(tmp_path / "tf").tensors)


def test_transformers_4_finds_every_tensor_of_a_generator(tmp_path):
    """As its `load_tf_weights_in_electra` walks from a variable's name to a module."""
    import torch
    import transformers

    tiny.write_vocabulary(tmp_path / "source")
    write(tmp_path / "source", ELECTRA, None, ("generator",), **of_class("ElectraForMaskedLM"))
    told = crossdistil.convert(tmp_path / "source", tmp_path / "tf", to="tf")
    model = transformers.ElectraForMaskedLM.from_pretrained(tmp_path / "source")
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    filled = set()
    for name, variable in open_checkpoint(tmp_path / "tf").tensors.items():
        assert name.startswith(("electra/embeddings/", "generator/", "generator_predictions/")), name
        path = name.replace("electra/embeddings/", "generator/embeddings/")
        path = path.replace("electra/", "discriminator/").replace("generator/", "electra/")
        path = path.replace("dense_1", "dense_prediction").replace("generator_predictions/output_bias", "generator_lm_head/bias")
        place = model
        for part in path.split("/"):
            stem, _, number = part.rpartition("_")
            stem, number = (stem, number) if number.isdigit() and stem else (part, "")
            kinds = {"kernel": "weight", "gamma": "weight", "output_weights": "weight", "output_bias": "bias", "beta": "bias"}
            place = getattr(place, kinds.get(stem, stem))
            place = place[int(number)] if number else place
        place = place.weight if part.endswith("_embeddings") else place
        array = variable.load().T if part == "kernel" else variable.load()
        own = next(own for own, parameter in model.named_parameters() if parameter is place)
        np.testing.assert_array_equal(expected[own].numpy(), array)
        filled.add(own)
    assert filled == {name for name, _ in model.named_parameters()} and told["tensors"] == len(filled)
    assert isinstance(place, torch.nn.Parameter)
    # Read back without a word in the configuration about its class.
    (tmp_path / "tf" / "config.json").unlink()
    crossdistil.convert(tmp_path / "tf", tmp_path / "back", to="pytorch")
    assert_same(tensors_of(tmp_path / "back"), tensors_of(tmp_path / "source"))
