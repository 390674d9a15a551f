"""Model folders: what is written is read back, what transformers writes beside a classifier is understood, and what is
damaged is never loaded. How each error reads is in test_wrong_files."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CheckpointError
from crossdistil.core.kinds.known_kinds import ONE_CLASS, ONE_NUMBER
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.tests import tiny


@pytest.fixture
def folder(tmp_path, tiny_model):
    """A copy of the tiny model's folder, to be spoilt."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def change_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder, **keys):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | keys))


def assert_same_weights(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("labels", [("no", "yes", "vielleicht ü"), None])
def test_what_is_saved_is_loaded(tmp_path, labels):
    config = BertConfig(**tiny.CONFIG.model_dump() | {"hidden_act": "gelu_new", "classifier_dropout": 0.3})
    about = {"task": {"name": "sst-2"}, "dev": {"accuracy": 0.5}}
    model = Model(config, tiny.random_parameters(config, 3 if labels else 1), 3 if labels else 1, labels, about=about)
    tokenizer = load_tokenizer(tiny.write_vocabulary(tmp_path / "vocabulary"))
    save_model(model, tmp_path / "model", tokenizer)
    loaded = load_model(tmp_path / "model")
    assert (loaded.config, loaded.outputs, loaded.labels, loaded.about) == (config, model.outputs, labels, about)
    assert loaded.kind == (ONE_NUMBER if labels is None else ONE_CLASS)
    assert loaded.new == () and loaded.source == tmp_path / "model"
    assert loaded.parameter_count == sum(array.size for array in model.parameters.values())
    assert_same_weights(loaded.parameters, model.parameters)
    assert load_tokenizer(tmp_path / "model").fingerprint == tokenizer.fingerprint
    with safe_open(tmp_path / "model" / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}  # without it transformers 4 does not load the file


def test_an_encoder_with_and_without_its_prefix(folder):
    whole = load_model(folder).parameters
    encoder = {name: array for name, array in whole.items() if not name.startswith("classifier.")}
    for prefix in ("bert.", ""):
        # transformers' BertModel writes names without `bert.`; older ones hold position numbers too.
        bare = {prefix + name.removeprefix("bert."): array for name, array in encoder.items()}
        bare[prefix + "embeddings.position_ids"] = np.arange(40)[None]
        save_file(bare, folder / "model.safetensors")
        model = load_model(folder)
        assert model.outputs is None and model.labels is None
        assert model.new == ("classifier.weight", "classifier.bias")
        assert_same_weights(model.parameters, encoder)


def test_pretraining_heads_are_left_aside(folder):
    whole = load_model(folder).parameters

    def add_heads(tensors):
        tensors["cls.predictions.bias"] = np.zeros(5, np.float32)
        tensors["cls.seq_relationship.weight"] = np.zeros((2, 32), np.float32)

    change_weights(folder, add_heads)
    assert_same_weights(load_model(folder).parameters, whole)


def test_half_precision_is_read_as_float32(folder):
    half = {name: array.astype(np.float16) for name, array in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors")
    assert_same_weights(load_model(folder).parameters, {name: array.astype(np.float32) for name, array in half.items()})


@settings(max_examples=40, deadline=None, database=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_never_loaded(tmp_path_factory, tiny_model, share):
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("truncated") / "model")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match="model.safetensors"):
        load_model(folder)


def missing(tensors):
    del tensors["bert.encoder.layer.1.output.LayerNorm.bias"]


def unexpected(tensors):
    tensors["bert.encoder.layer.1.output.LayerNorm.gamma"] = tensors["bert.encoder.layer.1.output.LayerNorm.weight"]


def transposed(tensors):
    name = "bert.encoder.layer.0.intermediate.dense.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def infinite(tensors):
    tensors["classifier.weight"][0, 3] = np.inf


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (missing, r"missing tensor bert\.encoder\.layer\.1\.output\.LayerNorm\.bias$"),
        (unexpected, r"unexpected tensor bert\.encoder\.layer\.1\.output\.LayerNorm\.gamma; did you mean '.*LayerNorm"),
        (transposed, r"intermediate\.dense\.weight has shape \(32, 48\), config\.json says \(48, 32\)"),
        (infinite, r"classifier\.weight holds values that are not finite"),
    ],
)
def test_wrong_tensors_are_refused(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "t5"}, "model_type is 't5', expected 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"hidden_act": "mish"}, "hidden_act"),
        ({"hidden_size": "32 wide"}, "hidden_size"),
        ({"embedding_size": 16}, "embedding_size is 16: a bert's embeddings are as wide as hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers: got true, expected a number"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "id2label names 3 classes, but classifier.weight has 2 rows"),
    ],
)
def test_what_this_bert_does_not_compute_is_refused(folder, keys, message):
    change_config(folder, **keys)
    with pytest.raises(CheckpointError, match=f"^student.init.from: .*config.json: .*{message}"):
        load_model(folder, "student.init.from")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"problem_type": "regression"}, "problem_type is regression, but classifier.weight has 2 rows"),
        (
            {"problem_type": "single_label"},
            "problem_type is 'single_label', expected one of regression, single_label_classification",
        ),
        (
            {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 1, "yes": 0}},
            "id2label: class '0' is 'no', and 'yes' in label2id; one of them is wrong",
        ),
    ],
)
def test_a_classifier_whose_answers_would_be_others_is_refused(folder, keys, message):
    change_config(folder, **{"id2label": None, "label2id": None, **keys})
    with pytest.raises(CheckpointError) as caught:
        load_model(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "labels"),
    [
        ({"label2id": {"yes": 1, "no": 0}}, ("no", "yes")),
        ({"id2label": {"0": "no", "1": "yes"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}, ("no", "yes")),
        ({}, ("LABEL_0", "LABEL_1")),
    ],
)
def test_the_names_of_the_classes(folder, keys, labels):
    change_config(folder, **{"id2label": None, "label2id": None, **keys})
    assert load_model(folder).labels == labels


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: no such file"):
        load_model(folder)


class FullDisk:
    """A tokenizer whose files do not fit any more."""

    def save(self, folder, types):
        (folder / "tokenizer.json").write_text("{")
        raise OSError(28, "No space left on device")


def test_a_failed_save_leaves_the_old_folder_as_it_was(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = load_model(folder)
    model.parameters = {**model.parameters, "classifier.bias": model.parameters["classifier.bias"] + 1.0}
    with pytest.raises(Exception, match="No space left on device"):
        save_model(model, folder, FullDisk())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(Exception, match="No space left on device"):
        save_model(model, folder.parent / "new", FullDisk())
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_saving_over_a_model_replaces_it_whole(folder):
    (folder / "pytorch_model.bin").write_text("of the model before")
    model = load_model(folder)
    model.parameters = {**model.parameters, "classifier.bias": model.parameters["classifier.bias"] + 1.0}
    save_model(model, folder, load_tokenizer(folder))
    assert_same_weights(load_model(folder).parameters, model.parameters)
    assert not (folder / "pytorch_model.bin").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.only_backend("torch")
def test_bfloat16_is_read_as_float32(folder):
    import torch
    from safetensors.torch import save_file as save_torch_file

    tensors = {name: torch.from_numpy(array).bfloat16() for name, array in load_file(folder / "model.safetensors").items()}
    save_torch_file(tensors, folder / "model.safetensors")
    assert_same_weights(load_model(folder).parameters, {name: t.float().numpy() for name, t in tensors.items()})
