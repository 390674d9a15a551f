"""The BiLSTM student: its formula, its logits on every backend, that it learns, and its folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.data.word_vocabulary import WordTokenizer, build_words
from crossdistil.core.engine import Step
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.architectures import config_from, make_forward, tensor_shapes, used_tensors
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.families.bilstm import BiLstmConfig
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests.reference_values import RecordingOps, assert_close, reference

TOLERANCE = 2e-6
"""On logits, as a share of the value (or of 1): a few float32 roundings."""

TINY = BiLstmConfig(vocab_size=20, embedding_size=6, hidden_size=4, fully_connected_size=5, dropout=0.0)
PAIRS = TINY.model_copy(update={"pairs": True})
LENGTHS = (7, 1, 4, 0, 6)
TEXTS = ["The film, the Café!", "the film is bad", "a [MASK] bad bad end", "中国 film"]


def mask_of(lengths, places):
    return (np.arange(places) < np.array(lengths)[:, None]).astype(np.float32)


def random_batch(config, lengths=LENGTHS, places=7, seed=0):
    """Word ids, with random ones in the padding as well: it must not matter what stands there."""
    generator = np.random.default_rng(seed)
    batch = {}
    for ids, mask, own in (
        ("input_ids", "attention_mask", lengths),
        ("second_ids", "second_mask", lengths[::-1]),
    ):
        batch[ids] = generator.integers(0, config.vocab_size, (len(own), places)).astype(np.int32)
        batch[mask] = mask_of(own, places)
    return batch if config.pairs else {name: batch[name] for name in ("input_ids", "attention_mask")}


def random_parameters(config, outputs=3, seed=0):
    generator = np.random.default_rng(seed)
    shapes = tensor_shapes(config, outputs)
    return {name: generator.normal(0.0, 0.4, shape).astype(np.float32) for name, shape in shapes.items()}


def logits_of(config, root=""):
    forward = make_forward(config, root=root)

    def logits(ops, parameters, batch):
        return [forward(ops, parameters, batch)["logits"]]

    return logits


@pytest.mark.parametrize("config", [TINY, PAIRS], ids=["texts", "pairs"])
def test_logits_are_the_reference_s_and_padding_does_not_matter(engine, config):
    parameters, function = random_parameters(config), logits_of(config)
    batch = random_batch(config)
    infer = engine.infer(function, parameters)
    [found] = infer(batch)
    assert found.shape == (5, 3)
    assert_close(found, reference(function, parameters, batch)[0], TOLERANCE, "the logits")
    wider = random_batch(config, places=12, seed=9)
    for name in batch:
        if name.endswith("ids"):
            wider[name][:, :7] = batch[name]
    assert_close(infer(wider)[0], found, 1e-6, "the logits with more padding")


@pytest.mark.parametrize("config", [TINY, PAIRS], ids=["texts", "pairs"])
def test_the_formula(config):
    """The classifier by hand, over the states that the primitive gives."""
    p, batch = random_parameters(config), random_batch(config)

    def states(ids, mask):
        lstm_tensors = [p[f"lstm.{name}"] for name in ("input_weight", "hidden_weight", "input_bias", "hidden_bias")]
        return ReferenceOps().lstm(p["embeddings.weight"][ids], mask, *lstm_tensors)

    features = states(batch["input_ids"], batch["attention_mask"])
    if config.pairs:
        second = states(batch["second_ids"], batch["second_mask"])
        features = np.concatenate([features, second, np.abs(features - second), features * second], axis=1)
    inner = np.maximum(features @ p["fully_connected.weight"].T + p["fully_connected.bias"], 0)
    expected = inner @ p["classifier.weight"].T + p["classifier.bias"]
    rooted = {f"student/{name}": array for name, array in p.items()}
    [found] = logits_of(config, "student/")(ReferenceOps(), rooted, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_dropout_is_before_the_classifier():
    for config, rate in ((TINY.with_dropout(0.3), 0.3), (TINY.with_dropout(0.3).without_dropout(), 0.0)):
        ops = RecordingOps()
        make_forward(config)(ops, random_parameters(config), random_batch(config))
        assert ops.places == [((5, 5), rate)]


def make_squared_error(config):
    forward = make_forward(config)

    def objective(ops, parameters, frozen, batch):
        error = forward(ops, parameters, batch)["logits"] - batch["targets"]
        total = ops.sum(error * error)
        return total, ops.stack([total])

    return objective


def test_it_learns(engine):
    config = PAIRS.model_copy(update={"fully_connected_size": 16})
    shapes = tensor_shapes(config, 3)
    parameters = {name: config.new_tensor(name, shape, 1) for name, shape in shapes.items()}
    batch = {**random_batch(config, seed=2), "targets": np.random.default_rng(5).normal(size=(5, 3)).astype(np.float32)}
    step = engine.train_step(make_squared_error(config), parameters, {}, OptimizerSpec("adamw", weight_decay=0.0))
    values = step.run(iter([Step([batch], 0.02, seed) for seed in range(100)]), 100).fetch()[:, 0]
    assert values[-1] < 0.1 * values[0]
    trained = step.parameters()
    assert all((trained[name] != parameters[name]).any() for name in parameters)


def test_new_weights_are_as_wide_as_those_of_torch():
    config = BiLstmConfig(vocab_size=500)
    shapes = tensor_shapes(config, 2)
    assert sum(np.prod(shape) for name, shape in shapes.items() if name != "embeddings.weight") == 603_002
    tensors = {name: config.new_tensor(name, shape, 3) for name, shape in shapes.items()}
    # A normal distribution cut at two deviations keeps 0.88 of its deviation.
    for name, deviation in (
        ("embeddings.weight", 0.1),
        ("lstm.input_weight", (3 * 150) ** -0.5),
        ("lstm.hidden_weight", (3 * 150) ** -0.5),
        ("fully_connected.weight", (3 * 300) ** -0.5),
    ):
        assert tensors[name].std() == pytest.approx(0.88 * deviation, rel=0.02)
    assert not any(tensors[name].any() for name in tensors if name.endswith("bias"))


def test_architectures_are_told_apart():
    assert config_from({"model_type": "bilstm", "pairs": True}) == BiLstmConfig(pairs=True)
    assert config_from(BiLstmConfig(hidden_size=9).model_dump()).hidden_size == 9
    assert isinstance(config_from({"hidden_size": 24}), BertConfig)
    with pytest.raises(ValidationError, match="num_attention_heads"):
        config_from({"model_type": "bilstm", "num_attention_heads": 2})
    assert used_tensors(TINY, frozenset({"logits"})) == set(tensor_shapes(TINY, 2))
    assert "classifier.weight" not in tensor_shapes(TINY, None)
    with pytest.raises(ValueError, match="a BiLSTM has no hidden/1, only logits"):
        make_forward(TINY, frozenset({"hidden/1", "logits"}))


@pytest.fixture
def folder(tmp_path):
    """A saved pair classifier."""
    words = build_words(TEXTS)
    config = PAIRS.model_copy(update={"vocab_size": words.vocab_size})
    model = Model(config, random_parameters(config), 3, ("no", "maybe", "yes"), about={"task": {"name": "mnli"}})
    save_model(model, tmp_path / "model", words)
    return tmp_path / "model"


def test_the_folder_is_read_back(folder):
    model, words = load_model(folder), load_tokenizer(folder)
    expected = random_parameters(model.config)
    assert model.config == PAIRS.model_copy(update={"vocab_size": 17})
    assert (model.outputs, model.labels, model.new) == (3, ("no", "maybe", "yes"), ())
    assert model.about == {"task": {"name": "mnli"}}
    assert model.parameters.keys() == expected.keys()
    assert all((model.parameters[name] == array).all() for name, array in expected.items())
    raw = json.loads((folder / "config.json").read_text())
    assert raw["model_type"] == "bilstm" and raw["problem_type"] == "single_label_classification"
    assert isinstance(words, WordTokenizer) and words.fingerprint == build_words(TEXTS).fingerprint
    assert words.encode_pairs(TEXTS, None, 9).lengths.tolist() == [6, 4, 5, 3]
    assert not (folder / "vocab.txt").exists()


def test_what_is_wrong_with_a_folder_is_told(folder):
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")

    def refused(message, keys=None, weights=None):
        (folder / "config.json").write_text(json.dumps(config | (keys or {})))
        save_file(weights or tensors, folder / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            load_model(folder)

    refused(r"config\.json: hiden_size: unknown key; did you mean 'hidden_size'\?", {"hiden_size": 3})
    refused(r"config\.json: dropout: .*, got 1\.5", {"dropout": 1.5})
    refused(r"fully_connected\.weight has shape \(5, 32\), config\.json says \(5, 8\)", {"pairs": False})
    refused(r"model_type is 'gru', expected 'bert', .* or 'bilstm'", {"model_type": "gru"})
    refused(
        "missing tensor lstm.input_bias",
        weights={name: array for name, array in tensors.items() if name != "lstm.input_bias"},
    )
    refused(
        "unexpected tensor lstm.input_biases; did you mean 'lstm.input_bias'",
        weights=tensors | {"lstm.input_biases": tensors["lstm.input_bias"]},
    )
