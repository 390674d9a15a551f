"""Conversions from and to TensorFlow with both frameworks as referees: Google's graphs restore what was converted, transformers
loads what they saved, and the outputs are the same layer by layer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import crossdistil
from crossdistil.converters.tensorflow_ops import load_ops
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.google_cases import (
    CASES,
    LABELS,
    SIZES,
    Case,
    batch,
    loaded_model,
    model_outputs,
    new_model,
    write_google_files,
)
from crossdistil.tests.tiny_families import assert_close, each_variant, everything

pytestmark = pytest.mark.only_backend("torch")

TOLERANCE = 1e-5
GOOGLES = [name for name, case in CASES.items() if not case.distilled]
ADDED = [
    "bert/embeddings/token_type_embeddings",
    "bert/pooler/dense/bias",
    "bert/pooler/dense/kernel",
]
POOLER = ADDED[1:]
WORDS = "bert/embeddings/word_embeddings"


@pytest.fixture(scope="module")
def google():
    from crossdistil.tests import google_graphs

    return google_graphs


@dataclass(frozen=True)
class Ported:
    """A model of transformers, converted."""

    case: Case
    source: Path
    folder: Path
    told: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    """Of transformers."""


def port(case: Case, folder: Path, **sizes: Any) -> Ported:
    source, destination = folder / "pytorch", folder / "tf"
    model, inputs = new_model(case, **sizes), batch(case.config | sizes, case.distilled)
    model.save_pretrained(source)
    tiny.write_vocabulary(source)
    told = crossdistil.convert(source, destination, to="tf")
    return Ported(case, source, destination, told, inputs, model_outputs(model, case, inputs))


@pytest.fixture(scope="module", params=CASES)
def ported(request, tmp_path_factory) -> Ported:
    return port(CASES[request.param], tmp_path_factory.mktemp(request.param))


def graph(google, case: Case):
    return partial(getattr(google, case.graph), **case.options)


def google_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bert_config.json").read_text(encoding="utf-8"))


def assert_same_outputs(found, expected, inputs) -> None:
    """On real tokens."""
    real = inputs["attention_mask"] > 0
    for name, values in expected.items():
        difference = np.abs(found[name] - values)
        worst = difference[real].max() if difference.shape[:2] == real.shape else difference.max()
        assert worst <= TOLERANCE, f"{name} differs by {worst:.1e}"


def assert_same_tensors(found, expected) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def assert_same_files(found: Path, expected: Path) -> None:
    """transformers saves an encoder without the root of its names, and loads it with it too."""
    tensors = load_file(expected / "model.safetensors")
    root = "bert." if any(name.startswith("embeddings.") for name in tensors) else ""
    assert_same_tensors(load_file(found / "model.safetensors"), {root + name: array for name, array in tensors.items()})


def assert_google_computes_the_same(google, ported: Ported) -> None:
    config = google_config(ported.folder) | {"hidden_act": ported.case.config["hidden_act"]}
    prefix = ported.folder / "bert_model.ckpt"
    names, drawn, outputs = google.restore(graph(google, ported.case), config, ported.inputs, prefix)
    assert names == set(google.read(prefix))
    # What Google's graph draws at random was told, and no output of the model depends on it.
    has_no_pooler = any("there is no pooler" in note for note in ported.told["notes"])
    assert drawn == (set(POOLER) if has_no_pooler else set())
    assert_same_outputs(outputs, ported.outputs, ported.inputs)


def assert_transformers_computes_the_same(case: Case, folder: Path, outputs, inputs) -> None:
    found = model_outputs(loaded_model(case, folder), case, inputs)
    assert_same_outputs(found, {name: outputs[name] for name in found}, inputs)


def test_googles_graph_finds_every_variable_and_computes_the_same(google, ported):
    assert_google_computes_the_same(google, ported)
    assert sorted(ported.told["added"]) == (ADDED if ported.case.distilled else []) and not ported.told["repairs"]
    assert google.tf.train.latest_checkpoint(str(ported.folder)) == str(ported.folder / "bert_model.ckpt")


def test_configuration_and_vocabulary_go_with_the_weights(ported):
    expected = dict(ported.case.config)
    if ported.case.distilled:
        expected["type_vocab_size"] = 2
    if expected["hidden_act"] == "gelu_new":
        expected["hidden_act"] = "gelu"  # as Google's code has it
    config = google_config(ported.folder)
    assert {key: config.get(key) for key in expected} == expected
    assert (ported.folder / "vocab.txt").read_bytes() == (ported.source / "vocab.txt").read_bytes()


def test_from_pytorch_and_back_every_bit_is_the_same(ported, tmp_path):
    crossdistil.convert(ported.folder, tmp_path / "back", to="pytorch")
    assert_same_files(tmp_path / "back", ported.source)
    assert_transformers_computes_the_same(ported.case, tmp_path / "back", ported.outputs, ported.inputs)
    if ported.case.classifies:
        config = loaded_model(ported.case, tmp_path / "back").config
        assert config.id2label == LABELS and config.num_labels == len(LABELS)


@pytest.mark.parametrize(("name", "training", "shards"), [("BertModel", False, 1), *((name, True, 2) for name in GOOGLES)])
def test_transformers_loads_what_google_saved_and_computes_the_same(google, tmp_path, name, training, shards):
    case = CASES[name]
    said = {"architectures": [name]} if "tokens" in case.options else {}  # names alone are those of a classifier of whole texts
    inputs, prefix = batch(case.config), write_google_files(tmp_path, case.config | said)
    weights, outputs = google.save(graph(google, case), case.config, inputs, prefix, training, shards)
    assert len(list(tmp_path.glob("*.data-*"))) == shards
    told = crossdistil.convert(prefix if training else tmp_path, tmp_path / "pytorch", to="pytorch")
    assert sum(told["dropped"].values()) == (2 * len(weights) + 1 if training else 0)
    assert_transformers_computes_the_same(case, tmp_path / "pytorch", outputs, inputs)
    crossdistil.convert(tmp_path / "pytorch", tmp_path / "tf", to="tf")
    assert_same_tensors(google.read(tmp_path / "tf" / "bert_model.ckpt"), weights)


@pytest.mark.parametrize("wanted", ["ElectraForPreTraining", "ElectraForMaskedLM"])
def test_either_encoder_of_electra_s_pre_training(google, tmp_path, wanted):
    discriminator = SIZES | {"embedding_size": 16}
    generator = discriminator | {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2}
    case, inputs = CASES[wanted], batch(discriminator)

    def both(_, inputs):
        encoders = {"ElectraForPreTraining": google.build_electra(discriminator, inputs)}
        encoders["ElectraForMaskedLM"] = google.build_electra(generator, inputs, ("generator",), "generator")
        return encoders[wanted]

    config = generator if wanted == "ElectraForMaskedLM" else discriminator
    prefix = write_google_files(tmp_path, config | {"architectures": [wanted]})
    outputs = google.save(both, config, inputs, prefix, training=True)[1]
    crossdistil.convert(tmp_path, tmp_path / "pytorch", to="pytorch")
    assert_transformers_computes_the_same(case, tmp_path / "pytorch", outputs, inputs)


TRAPS = {
    "as wide as positions": {"hidden_size": 512, "max_position_embeddings": 512},
    "as wide as the vocabulary": {"hidden_size": SIZES["vocab_size"], "num_attention_heads": 2},
    "as wide as the feed-forward": {"intermediate_size": SIZES["hidden_size"]},
}


@pytest.mark.parametrize("name", ["BertForPreTraining", "DistilBertForMaskedLM"])
@pytest.mark.parametrize("trap", TRAPS)
def test_square_matrices_are_turned_by_their_names(google, tmp_path, trap, name):
    ported = port(CASES[name], tmp_path, num_hidden_layers=1, **TRAPS[trap])
    assert_google_computes_the_same(google, ported)
    crossdistil.convert(ported.folder, tmp_path / "back", to="pytorch")
    assert_same_files(tmp_path / "back", ported.source)


@pytest.mark.parametrize("name", ["BertForPreTraining", "BertModel", "AlbertForPreTraining", "ElectraForPreTraining"])
def test_word_embeddings_that_were_written_flipped_are_repaired(google, tmp_path, name):
    case = CASES[name]
    inputs, prefix = batch(case.config), write_google_files(tmp_path, case.config)
    weights, outputs = google.save(graph(google, case), case.config, inputs, prefix)
    words = next(name for name in weights if name.endswith("/word_embeddings"))
    google.write(weights | {words: weights[words].T}, prefix)
    told = crossdistil.convert(prefix, tmp_path / "pytorch", to="pytorch")
    assert len(told["repairs"]) == 1 and words in told["repairs"][0]
    assert_transformers_computes_the_same(case, tmp_path / "pytorch", outputs, inputs)


def test_square_word_embeddings_are_taken_as_they_are(google, tmp_path):
    case = CASES["BertModel"]
    config = case.config | TRAPS["as wide as the vocabulary"]
    prefix = write_google_files(tmp_path, config)
    weights, _ = google.save(graph(google, case), config, batch(config), prefix)
    assert weights[WORDS].shape == (SIZES["vocab_size"], SIZES["vocab_size"])
    told = crossdistil.convert(prefix, tmp_path / "pytorch", to="pytorch")
    assert not told["repairs"]
    tensors = load_file(tmp_path / "pytorch" / "model.safetensors")
    np.testing.assert_array_equal(tensors["bert.embeddings.word_embeddings.weight"], weights[WORDS])


def as_keras_names(weights: dict[str, np.ndarray], first: int) -> dict[str, np.ndarray]:
    """With the names that Keras gives to LayerNorms in their order: `layer_normalization`, `layer_normalization_1`."""
    scopes = dict.fromkeys(name.rpartition("/")[0] for name in weights if "LayerNorm" in name)
    numbers = {scope: f"_{number}" if number else "" for number, scope in enumerate(scopes, first)}
    renamed = {}
    for name, array in weights.items():
        scope, _, part = name.rpartition("/")
        if scope in numbers:
            name = f"{scope.removesuffix('LayerNorm')}layer_normalization{numbers[scope]}/{part}"
        renamed[name] = array
    return renamed


@pytest.mark.parametrize("objects", [False, True])
def test_code_ported_to_tensorflow_2(google, in_this_process, tmp_path, objects):
    """In a file of the old Saver and in one of saved objects."""
    import tensorflow as tf

    case = CASES["BertForPreTraining"]
    inputs, prefix = batch(case.config), write_google_files(tmp_path, case.config)
    weights, outputs = google.save(graph(google, case), case.config, inputs, prefix)
    renamed = as_keras_names(weights, first=3 if objects else 0)
    assert f"bert/encoder/layer_1/output/layer_normalization_{7 if objects else 4}/gamma" in renamed
    if objects:
        prefix.with_suffix(".ckpt.index").unlink()
        module = tf.Module()
        module.weights = [tf.Variable(array, name=name) for name, array in renamed.items()]
        prefix = Path(tf.train.Checkpoint(model=module).save(str(prefix)))
    else:
        google.write(renamed, prefix)
    told = crossdistil.convert(prefix, tmp_path / "pytorch", to="pytorch", verify=True)
    assert told["verification"]["worst"] < TOLERANCE
    assert_transformers_computes_the_same(case, tmp_path / "pytorch", outputs, inputs)


def assert_verified(case: Case, folder: Path, ways: int = 2) -> None:
    """To TensorFlow's file, and back from it."""
    new_model(case).save_pretrained(folder / "pytorch")
    for start, to in (("pytorch", "tf"), ("tf", "back"))[:ways]:
        framework, other = ("tf", "pytorch") if to == "tf" else ("pytorch", "tf")
        told = crossdistil.convert(folder / start, folder / to, to=framework, verify=True)["verification"]
        assert set(told["differences"]) == {"NumPy, result", f"{framework}, result", f"{other}, source"}
        assert told["worst"] < TOLERANCE and not told["not_run"]
        for outputs in told["differences"].values():
            assert {"hidden/0", "hidden/2"} < set(outputs)


@pytest.mark.parametrize("name", CASES)
def test_the_proof_of_a_conversion_has_both_frameworks(in_this_process, tmp_path, name):
    assert_verified(CASES[name], tmp_path)


def test_the_proof_of_a_conversion_in_processes_of_its_own(tmp_path):
    """One way: the other starts the same two programs."""
    assert_verified(CASES["BertForPreTraining"], tmp_path, ways=1)


@each_variant
def test_what_tensorflow_computes_of_each_family_is_the_reference_s(config):
    operations, parameters, batch = load_ops(), tiny.random_parameters(config, seed=1), tiny.random_batch(seed=3)
    forward = make_forward(config.without_dropout(), everything(config))
    tensors, inputs = ({name: operations.constant(array) for name, array in own.items()} for own in (parameters, batch))
    found, expected = forward(operations, tensors, inputs), forward(ReferenceOps(), parameters, batch)
    for name, array in expected.items():
        assert_close(found[name].numpy(), array, name)
