"""The BERT that is written once: transformers is the referee for its meaning, the float64 reference for each backend."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.checkpoint import load_model
from crossdistil.core.models.bert import make_forward
from crossdistil.core.models.spec import tensor_shapes
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny

TOLERANCE = 1e-5
"""On logits and states of size 1 to 5: float32 rounding through two layers."""

ACTIVATIONS = ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
# 1 output is a regression, 3 are the classes of MNLI.
VARIANTS = [("gelu", 2), ("gelu_new", 3), ("relu", 1)]


def variant(activation: str):
    return tiny.STILL.model_copy(update={"hidden_act": activation})


def reference_outputs(config, parameters, batch):
    return make_forward(config)(ReferenceOps(), parameters, batch)


def assert_close(found, expected, what):
    difference = np.abs(np.asarray(found, np.float64) - expected).max()
    assert difference <= TOLERANCE, f"{what} differs by {difference:.1e}"


@pytest.mark.parametrize(("activation", "outputs"), VARIANTS)
def test_every_output_is_the_reference_s(engine, activation, outputs):
    config = variant(activation)
    parameters = tiny.random_parameters(config, outputs, seed=outputs)
    batch = tiny.random_batch(fill=1, outputs=outputs, seed=3)
    forward = make_forward(config)

    def everything(ops, parameters, batch):
        found = forward(ops, parameters, batch)
        return [found["logits"], found["pooled"], *found["hidden"]]

    expected = reference_outputs(config, parameters, batch)
    logits, pooled, *hidden = engine.infer(everything, parameters)(batch)
    assert logits.shape == (5, outputs)
    assert_close(logits, expected["logits"], "logits")
    assert_close(pooled, expected["pooled"], "pooled")
    assert len(hidden) == config.num_hidden_layers + 1
    for layer, (found, state) in enumerate(zip(hidden, expected["hidden"], strict=True)):
        assert_close(found, state, f"hidden state {layer}")


def test_padding_and_fill_rows_change_nothing():
    parameters = tiny.random_parameters()
    narrow, wide = tiny.random_batch(rows=4, length=9, fill=0), tiny.random_batch(rows=6, length=14, fill=2)
    generator = np.random.default_rng(5)
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        wide[name][:4, :9] = narrow[name]
        wide[name][:4, 9:] = 0
    # Whatever stands at the padding's places must not matter.
    wide["input_ids"] = np.where(wide["attention_mask"] > 0, wide["input_ids"], generator.integers(5, 50, (6, 14)))
    expected = reference_outputs(tiny.STILL, parameters, narrow)["logits"]
    found = reference_outputs(tiny.STILL, parameters, wide)["logits"]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-12)


class RecordingOps(ReferenceOps):
    """Writes down where dropout is applied, and at which rate, instead of applying it."""

    def __init__(self):
        self.places = []

    def dropout(self, x, rate):
        self.places.append((x.shape, rate))
        return x

    def attention(self, query, key, value, bias, dropout):
        self.places.append(("attention", dropout))
        return super().attention(query, key, value, bias, 0.0)


def test_dropout_is_where_bert_has_it():
    # Devlin et al. 2018, appendix A.2, and their code: on the embeddings, the attention probabilities, each sublayer's
    # output before it is added, and the pooled output.
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.3}
    state, pooled = (5, 12, 32), (5, 32)
    for config, hidden, attention, head in (
        (tiny.CONFIG.model_copy(update=rates), 0.1, 0.2, 0.3),
        (tiny.CONFIG.model_copy(update={**rates, "classifier_dropout": None}), 0.1, 0.2, 0.1),
        (tiny.CONFIG.model_copy(update=rates).with_dropout(0.4), 0.4, 0.4, 0.4),
        (tiny.CONFIG.model_copy(update=rates).without_dropout(), 0, 0, 0),
    ):
        ops = RecordingOps()
        make_forward(config)(ops, tiny.random_parameters(), tiny.random_batch())
        layer = [("attention", attention), (state, hidden), (state, hidden)]
        assert ops.places == [(state, hidden), *layer, *layer, (pooled, head)]


def hugging_face_outputs(model, batch):
    import torch

    inputs = {name: torch.from_numpy(batch[name]).long() for name in ("input_ids", "token_type_ids", "attention_mask")}
    with torch.no_grad():
        return model.eval()(**inputs, output_hidden_states=True)


def assert_as_hugging_face(model, config, parameters, batch):
    theirs = hugging_face_outputs(model, batch)
    ours = reference_outputs(config, parameters, batch)
    assert_close(theirs.logits.numpy(), ours["logits"], "logits")
    real = batch["attention_mask"] > 0
    for layer, (found, state) in enumerate(zip(theirs.hidden_states, ours["hidden"], strict=True)):
        assert_close(found.numpy()[real], state[real], f"hidden state {layer}")


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_folder_of_ours_means_the_same_to_transformers(activation, tmp_path):
    from transformers import AutoModelForSequenceClassification

    config = variant(activation)
    labels = ("negative", "neutral", "positive")
    model = tiny.write_model(tmp_path / "model", config, labels, seed=4)
    theirs, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert tuple(theirs.config.id2label.values()) == labels
    batch = tiny.random_batch(rows=6, length=16, fill=0, seed=6)
    assert batch["token_type_ids"].any() and not batch["attention_mask"].all()
    assert_as_hugging_face(theirs, config, model.parameters, batch)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_folder_of_transformers_means_the_same_to_us(activation, outputs, tmp_path):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(outputs)
    keys = tiny.CONFIG.model_dump(exclude={"hidden_act", "classifier_dropout"})
    theirs = BertForSequenceClassification(BertConfig(**keys, hidden_act=activation, num_labels=outputs))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path)
    assert ours.config == variant(activation).model_copy(
        update={"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    )
    assert ours.outputs == outputs and not ours.new
    assert ours.labels == (None if outputs == 1 else ("LABEL_0", "LABEL_1", "LABEL_2"))
    assert_as_hugging_face(theirs, ours.config.without_dropout(), ours.parameters, tiny.random_batch(seed=7, fill=0))


@pytest.mark.only_backend("torch")
def test_the_tensors_are_those_of_transformers():
    from transformers import BertConfig, BertForSequenceClassification

    keys = tiny.CONFIG.model_dump(exclude={"classifier_dropout"})
    theirs = BertForSequenceClassification(BertConfig(**keys, num_labels=3))
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.named_parameters()}
    assert tensor_shapes(tiny.CONFIG, 3) == shapes
