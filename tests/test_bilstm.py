"""The BiLSTM student: its primitive against the float64 reference and PyTorch's own LSTM, its model, words and folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file

from crossdistil.core.checkpoint import Model, load_model, save_model
from crossdistil.core.data.batches import TrainBatches, evaluation_batches, real_tokens
from crossdistil.core.data.tasks import Examples
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.data.words import WordTokenizer, build_words, word_vectors
from crossdistil.core.engine import Step
from crossdistil.core.errors import CheckpointError, DataError
from crossdistil.core.models.architectures import config_from, make_forward, new_tensor, tensor_shapes, used_tensors
from crossdistil.core.models.bilstm import BiLstmConfig
from crossdistil.core.models.spec import BertConfig
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps

VALUE, GRADIENT = 1e-6, 1e-4
"""Largest difference, as a share of the value (or of 1), from float64 and from finite differences."""

TINY = BiLstmConfig(vocab_size=20, embedding_size=6, hidden_size=4, fully_connected_size=5, dropout=0.0)
PAIRS = TINY.model_copy(update={"pairs": True})
LENGTHS = (7, 1, 4, 0, 6)


def mask_of(lengths, places):
    return (np.arange(places) < np.array(lengths)[:, None]).astype(np.float32)


def lstm_case(lengths=LENGTHS, places=7, width=6, hidden=4, seed=0):
    """Weights of an LSTM and its input, whose padding is not zero, as parameters; and the mask."""
    generator = np.random.default_rng(seed)
    gates = 4 * hidden
    shapes = {"x": (len(lengths), places, width), "input_weight": (2, gates, width), "hidden_weight": (2, gates, hidden)}
    shapes |= {"input_bias": (2, gates), "hidden_bias": (2, gates)}
    parameters = {name: generator.normal(0.0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return parameters, {"mask": mask_of(lengths, places)}


def lstm(ops, p, batch):
    return ops.lstm(p["x"], batch["mask"], p["input_weight"], p["hidden_weight"], p["input_bias"], p["hidden_bias"])


def lstm_output(ops, parameters, batch):
    return [lstm(ops, parameters, batch)]


def lstm_objective(ops, parameters, frozen, batch):
    total = ops.sum(lstm(ops, parameters, batch) * batch["weights"])
    return total, ops.stack([total])


def reference(function, parameters, batch):
    return function(ReferenceOps(), {name: array.astype(np.float64) for name, array in parameters.items()}, batch)


def assert_close(found, expected, tolerance, what):
    assert found.shape == expected.shape, what
    difference = (np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max()
    assert difference <= tolerance, f"{what} differs by {difference:.1e}"


@pytest.mark.parametrize("lengths", [LENGTHS, (7, 7), (0, 0), (1,)])
def test_values_of_the_primitive(engine, lengths):
    parameters, batch = lstm_case(lengths)
    [found] = engine.infer(lstm_output, parameters)(batch)
    assert_close(found, reference(lstm, parameters, batch), VALUE, "the LSTM")
    empty = np.array(lengths) == 0
    np.testing.assert_array_equal(found[empty], 0.0)
    assert np.abs(found[~empty]).min(initial=1.0) > 0


def test_values_at_the_sizes_of_the_paper(engine):
    lengths = np.random.default_rng(1).integers(1, 33, 16)
    parameters, batch = lstm_case((*lengths, 32), places=32, width=300, hidden=150)
    parameters = {name: array if name == "x" else array * np.float32(0.1) for name, array in parameters.items()}
    [found] = engine.infer(lstm_output, parameters)(batch)
    assert_close(found, reference(lstm, parameters, batch), VALUE, "the LSTM")


def test_gradients_of_the_primitive(engine):
    parameters, batch = lstm_case((3, 1, 0, 2), places=3, width=3, hidden=2)
    weights = np.random.default_rng(2).normal(size=(4, 4)).astype(np.float32)
    _, found = engine.gradients(lstm_objective, parameters, {}, {**batch, "weights": weights})
    for name, array in parameters.items():
        expected = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            ends = []
            for sign in (1, -1):
                moved = array.astype(np.float64)
                moved[place] += sign * 1e-5
                ends.append(float((reference(lstm, {**parameters, name: moved}, batch) * weights).sum()))
            expected[place] = (ends[0] - ends[1]) / 2e-5
        assert_close(found[name], expected, GRADIENT, f"the gradient by {name}")
    np.testing.assert_array_equal(found["x"][batch["mask"] == 0], 0.0)


@pytest.mark.only_backend("torch")
def test_it_is_the_lstm_of_torch_on_packed_sequences(engine):
    import torch

    lengths = (5, 9, 1, 3)
    parameters, batch = lstm_case(lengths, places=9)
    theirs = torch.nn.LSTM(6, 4, batch_first=True, bidirectional=True)
    names = {"weight_ih": "input_weight", "weight_hh": "hidden_weight", "bias_ih": "input_bias", "bias_hh": "hidden_bias"}
    with torch.no_grad():
        for direction, suffix in enumerate(("_l0", "_l0_reverse")):
            for name, ours in names.items():
                getattr(theirs, name + suffix).copy_(torch.from_numpy(parameters[ours][direction]))
    x = torch.from_numpy(parameters["x"]).requires_grad_()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    _, (ends, _) = theirs(packed)  # (2, B, H)
    expected = torch.cat([ends[0], ends[1]], dim=1)
    [found] = engine.infer(lstm_output, parameters)(batch)
    assert_close(found, expected.detach().numpy(), VALUE, "the LSTM")
    weights = np.random.default_rng(3).normal(size=found.shape).astype(np.float32)
    (expected * torch.from_numpy(weights)).sum().backward()
    _, gradients = engine.gradients(lstm_objective, parameters, {}, {**batch, "weights": weights})
    assert_close(gradients["x"], x.grad.numpy(), 1e-5, "the gradient by x")
    for direction, suffix in enumerate(("_l0", "_l0_reverse")):
        for name, ours in names.items():
            grad = getattr(theirs, name + suffix).grad.numpy()
            assert_close(gradients[ours][direction], grad, 1e-5, f"the gradient by {name}{suffix}")


@pytest.mark.only_backend("torch")
def test_bf16_is_near(make_engine):
    parameters, batch = lstm_case()
    weights = np.ones((5, 8), np.float32)
    engines = [make_engine(precision=precision) for precision in ("fp32", "bf16")]
    values = [engine.infer(lstm_output, parameters)(batch)[0] for engine in engines]
    assert_close(values[1], values[0], 0.05, "the LSTM")
    whole, half = (e.gradients(lstm_objective, parameters, {}, {**batch, "weights": weights})[1] for e in engines)
    for name in parameters:
        assert_close(half[name], whole[name], 0.2, f"the gradient by {name}")


def check_other_form(engine, other):
    """A form of the primitive for devices that are not here: the same values and gradients."""
    parameters, batch = lstm_case()
    weighted = {**batch, "weights": np.random.default_rng(4).normal(size=(5, 8)).astype(np.float32)}

    def output(ops, parameters, batch):
        return [other(ops, parameters, batch)]

    def objective(ops, parameters, frozen, batch):
        total = ops.sum(other(ops, parameters, batch) * batch["weights"])
        return total, ops.stack([total])

    [found] = engine.infer(output, parameters)(batch)
    assert_close(found, reference(lstm, parameters, batch), 2 * VALUE, "the LSTM")
    _, expected = engine.gradients(lstm_objective, parameters, {}, weighted)
    _, gradients = engine.gradients(objective, parameters, {}, weighted)
    for name in parameters:
        assert_close(gradients[name], expected[name], 1e-5, f"the gradient by {name}")


@pytest.mark.only_backend("oneflow")
def test_the_form_for_other_devices_in_oneflow(engine):
    from crossdistil.backends.oneflow.recurrent import device_lstm

    def other(ops, p, batch):
        bias = p["input_bias"] + p["hidden_bias"]
        return device_lstm(p["x"], batch["mask"], p["input_weight"], p["hidden_weight"], bias)

    check_other_form(engine, other)


@pytest.mark.only_backend("mindspore")
def test_the_form_for_ascend_in_mindspore(engine):
    from crossdistil.backends.mindspore.recurrent import unrolled_lstm

    def other(ops, p, batch):
        bias = p["input_bias"] + p["hidden_bias"]
        return unrolled_lstm(p["x"], batch["mask"], p["input_weight"], p["hidden_weight"], bias)

    check_other_form(engine, other)


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
    assert_close(found, reference(function, parameters, batch)[0], 2 * VALUE, "the logits")
    wider = random_batch(config, places=12, seed=9)
    for name in batch:
        if name.endswith("ids"):
            wider[name][:, :7] = batch[name]
    assert_close(infer(wider)[0], found, VALUE, "the logits with more padding")


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


class RecordingOps(ReferenceOps):
    """Writes down where dropout is applied."""

    def __init__(self):
        self.places = []

    def dropout(self, x, rate):
        self.places.append((x.shape, rate))
        return x


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
    parameters = {name: new_tensor(config, name, shape, seed=1) for name, shape in shapes.items()}
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
    tensors = {name: new_tensor(config, name, shape, seed=3) for name, shape in shapes.items()}
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


TEXTS = ["The film, the Café!", "the film is bad", "a [MASK] bad bad end", "中国 film"]
# the 3, bad 3, film 3; once: ! , a cafe end is [ ] mask 中 国
ALPHABETIC = ["bad", "film", "the", "!", ",", "[", "]", "a", "cafe", "end", "is", "mask", "中", "国"]


def test_the_vocabulary_by_hand():
    words = build_words(TEXTS)
    vocabulary = words.library.get_vocab()
    order = sorted(vocabulary, key=vocabulary.get)
    assert order == ["[PAD]", "[UNK]", "[MASK]", *sorted(ALPHABETIC, key=lambda w: (w not in ("bad", "film", "the"), w))]
    assert (words.vocab_size, words.pad_id, words.is_words) == (17, 0, True)
    assert build_words(reversed(TEXTS)).fingerprint == words.fingerprint
    small = build_words(TEXTS, vocab_size=6)
    assert sorted(small.library.get_vocab()) == ["[MASK]", "[PAD]", "[UNK]", "bad", "film", "the"]
    assert "Café" in build_words(TEXTS, lowercase=False).library.get_vocab()
    assert "中国" in build_words(TEXTS, split_chinese=False).library.get_vocab()
    with pytest.raises(DataError, match="a vocabulary of 3 words has no room"):
        build_words(TEXTS, vocab_size=3)


def rows_of(table):
    return [table.ids[start:end].tolist() for start, end in zip(table.offsets, table.offsets[1:])]


def test_texts_and_pairs_are_cut_each_for_itself():
    words = build_words(TEXTS, vocab_size=6)  # 3 bad, 4 film, 5 the
    texts, pairs = ["the BAD film", "", "[MASK] oh"], ["film film film film", "bad", ""]
    single = words.encode_pairs(texts, None, 2)
    assert rows_of(single) == [[5, 3], [], [2, 1]] and not single.apart
    assert single.lengths.tolist() == single.first_lengths.tolist() == [2, 0, 2]
    both = words.encode_pairs(texts, pairs, 3)
    assert rows_of(both) == [[5, 3, 4, 4, 4, 4], [3], [2, 1]] and both.apart
    assert (both.first_lengths.tolist(), both.lengths.tolist()) == ([3, 0, 2], [3, 1, 2])
    with pytest.raises(DataError, match="max_length 0"):
        words.encode_pairs(texts, None, 0)


def test_batches_of_pairs_have_two_sides(tmp_path):
    words = build_words(TEXTS, vocab_size=6)
    texts, pairs = ["the bad film", "", "bad"], ["film film film film", "bad", ""]
    examples = Examples(texts, pairs, None, None, np.arange(3))
    for _ in range(2):  # encoded, then from the cache
        table = tokenized(examples, words, 4, tmp_path)
        assert table.apart
    [(rows, batch)] = evaluation_batches(table, np.array([1, 0, 1], np.int32), 4, (4, 8))
    assert rows.tolist() == [0, 1, 2]
    assert batch["input_ids"].tolist() == [[5, 3, 4, 0], [0] * 4, [3, 0, 0, 0], [5, 0, 0, 0]]
    assert batch["attention_mask"].sum(axis=1).tolist() == [3, 0, 1, 1]
    assert batch["second_ids"].tolist() == [[4] * 4, [3, 0, 0, 0], [0] * 4, [0] * 4]
    assert batch["second_mask"].sum(axis=1).tolist() == [4, 1, 0, 0]
    assert batch["labels"].tolist() == [1, 0, 1, 0] and batch["example_mask"].tolist() == [1, 1, 1, 0]
    assert "token_type_ids" not in batch and batch["second_ids"].dtype == np.int32
    assert real_tokens(batch) == 9
    [[micro]] = TrainBatches(table, None, 4, 1, (4, 8), seed=0).epoch(0)
    assert real_tokens(micro) == 9


def test_texts_without_any_word():
    table = build_words(TEXTS, vocab_size=6).encode_pairs(["", " "], None, 4)
    [(_, batch)] = evaluation_batches(table, None, 4, (4,))
    assert not batch["input_ids"].any() and not batch["attention_mask"].any()


def test_word_vectors(tmp_path):
    words = build_words(TEXTS, vocab_size=6)
    table = np.full((6, 2), 9.0, np.float32)
    path = tmp_path / "vectors.txt"
    for header in ("", "4 2\n"):
        path.write_text(header + "the 1 -2\n. . . 0.5 0.5\nbad 0.25 1e-1 \nbad 7 7\n", encoding="utf-8")
        filled, found = word_vectors(path, words, table)
        assert found == 2 and (table == 9).all()
        np.testing.assert_allclose(filled[[5, 3]], [[1, -2], [0.25, 0.1]])
        assert (filled[[0, 1, 2, 4]] == 9).all()
    for text, message in (
        ("3 300\nthe 1 2\n", ":1: vectors of 300 numbers, but the embeddings have 2"),
        ("the 1 2 3\n", ":1: 3 numbers, but the embeddings have 2"),
        ("film 1 2\nthe 1\n", ":2: 1 numbers"),
        ("film 1 two\n", ":1: expected numbers"),
        ("film 1 nan\n", ":1: holds numbers that are not finite"),
    ):
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            word_vectors(path, words, table)
    with pytest.raises(DataError, match="absent.txt: cannot be read"):
        word_vectors(tmp_path / "absent.txt", words, table)


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
    assert rows_of(words.encode_pairs(TEXTS, None, 9)) == rows_of(build_words(TEXTS).encode_pairs(TEXTS, None, 9))
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
    refused(r"model_type is 'gru', expected 'bert' or 'bilstm'", {"model_type": "gru"})
    refused(
        "missing tensor lstm.input_bias",
        weights={name: array for name, array in tensors.items() if name != "lstm.input_bias"},
    )
    refused(
        "unexpected tensor lstm.input_biases; did you mean 'lstm.input_bias'",
        weights=tensors | {"lstm.input_biases": tensors["lstm.input_bias"]},
    )


def test_a_word_tokenizer_needs_its_special_words(folder):
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["added_tokens"] = []
    vocabulary = definition["model"]["vocab"]
    vocabulary["pad"] = vocabulary.pop("[PAD]")
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: the vocabulary lacks \[PAD\]"):
        load_tokenizer(folder)
