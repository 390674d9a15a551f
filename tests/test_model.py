"""The BERT that is written once: transformers is the referee for its meaning, the float64 reference for each backend."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.checkpoint import load_model
from crossdistil.core.models.architectures import tensor_shapes, used_tensors
from crossdistil.core.models.components import attention_bias
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.outputs import ATTENTION_KINDS, LOGITS, POOLED, output_name
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.reference_values import RecordingOps

TOLERANCE = 1e-5
"""On logits and states of size 1 to 5: float32 rounding through two layers."""

ACTIVATIONS = ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
# 1 output is a regression, 3 are the classes of MNLI.
VARIANTS = [("gelu", 2), ("gelu_new", 3), ("relu", 1)]


def variant(activation: str):
    return tiny.STILL.model_copy(update={"hidden_act": activation})


def everything(config) -> frozenset[str]:
    """Every output that a model of this configuration has."""
    layers = range(1, config.num_hidden_layers + 1)
    names = {output_name(kind, layer) for kind in ("hidden", "first", *ATTENTION_KINDS) for layer in layers}
    return frozenset(names | {LOGITS, POOLED, output_name("hidden", 0), output_name("first", 0)})


def reference_outputs(config, parameters, batch):
    return make_forward(config, everything(config))(ReferenceOps(), parameters, batch)


def assert_close(found, expected, what):
    difference = np.abs(np.asarray(found, np.float64) - expected).max()
    assert difference <= TOLERANCE, f"{what} differs by {difference:.1e}"


@pytest.mark.parametrize(("activation", "outputs"), VARIANTS)
def test_every_output_is_the_reference_s(engine, activation, outputs):
    config = variant(activation)
    parameters = tiny.random_parameters(config, outputs, seed=outputs)
    batch = tiny.random_batch(fill=1, outputs=outputs, seed=3)
    names = sorted(everything(config))
    forward = make_forward(config, frozenset(names))

    def listed(ops, parameters, batch):
        made = forward(ops, parameters, batch)
        return [made[name] for name in names]

    expected = reference_outputs(config, parameters, batch)
    assert set(expected) == set(names)
    made = dict(zip(names, engine.infer(listed, parameters)(batch), strict=True))
    assert made["logits"].shape == (5, outputs) and made["scores/2"].shape == (5, 4, 12, 12)
    assert made["pooled"].shape == (5, 32) and made["hidden/0"].shape == (5, 12, 32)
    assert {made[f"{kind}/1"].shape for kind in ("queries", "keys", "values")} == {(5, 4, 12, 8)}
    for name in names:
        assert_close(made[name], expected[name], name)
    for layer in range(config.num_hidden_layers + 1):
        np.testing.assert_array_equal(made[f"first/{layer}"], made[f"hidden/{layer}"][:, 0])


DEEP = tiny.STILL.model_copy(update={"num_hidden_layers": 3})
# What is asked for, and how many encoder layers are run in full for it.
PARTS = {
    "embeddings": ({"hidden/0"}, 0),
    "a state in the middle": ({"hidden/2"}, 2),
    "the first token's in the middle": ({"first/2"}, 2),
    "attention of the first layer": ({"scores/1"}, 0),
    "attention after a whole layer": ({"scores/2", "values/2"}, 1),
    "attention of several layers": ({"queries/1", "keys/3"}, 2),
    "values and a later state": ({"values/1", "hidden/3"}, 3),
    "logits": ({"logits"}, 3),
    "pooled and a score": ({"pooled", "scores/2"}, 3),
}


class CountingOps(ReferenceOps):
    """Counts the layers that run in full: each has two normalisations, beside the embeddings' one."""

    def __init__(self):
        self.norms = 0

    def layer_norm(self, x, weight, bias, epsilon):
        self.norms += 1
        return super().layer_norm(x, weight, bias, epsilon)


def test_only_what_is_asked_for_is_computed():
    parameters, batch = tiny.random_parameters(DEEP), tiny.random_batch(seed=5)
    expected = reference_outputs(DEEP, parameters, batch)
    for what, (wanted, layers) in PARTS.items():
        ops = CountingOps()
        made = make_forward(DEEP, frozenset(wanted))(ops, parameters, batch)
        assert set(made) == wanted, what
        assert ops.norms == 1 + 2 * layers, what
        for name in wanted:
            np.testing.assert_allclose(made[name], expected[name], rtol=1e-9, atol=1e-12, err_msg=f"{what}: {name}")


def test_a_part_is_the_same_as_in_the_whole(engine):
    parameters, batch = tiny.random_parameters(DEEP), tiny.random_batch(seed=5)
    forwards = [make_forward(DEEP, frozenset(wanted)) for wanted, _ in PARTS.values()]
    names = [sorted(wanted) for wanted, _ in PARTS.values()]

    def parts(ops, parameters, batch):
        made = []
        for index in range(len(forwards)):
            own = forwards[index](ops, parameters, batch)
            for name in names[index]:
                made.append(own[name])
        return made

    expected = reference_outputs(DEEP, parameters, batch)
    flat = [(what, name) for what, own in zip(PARTS, names) for name in own]
    for (what, name), array in zip(flat, engine.infer(parts, parameters)(batch), strict=True):
        assert_close(array, expected[name], f"{what}: {name}")


def squares_of(config, wanted):
    """An objective that each wanted output changes: the sum of its squares times fixed numbers."""
    forward, names = make_forward(config, frozenset(wanted)), sorted(wanted)

    def objective(ops, params, frozen, batch):
        made = forward(ops, params, batch)
        total = 0.0
        for name in names:
            total = total + ops.sum(made[name] * made[name] * batch[name])
        return total, ops.stack([total])

    return objective


# MindSpore compiles a quarter of a minute for each.
EVERYWHERE = ("attention after a whole layer", "pooled and a score")
EAGER = pytest.mark.only_backend("torch", "oneflow")


@pytest.mark.parametrize("what", [pytest.param(what, marks=[] if what in EVERYWHERE else [EAGER]) for what in PARTS])
def test_the_used_tensors_are_those_with_a_gradient(engine, what):
    wanted, _ = PARTS[what]
    parameters, batch = tiny.random_parameters(DEEP, seed=2), tiny.random_batch(fill=0, seed=7)
    generator = np.random.default_rng(1)
    expected = reference_outputs(DEEP, parameters, batch)
    factors = {}
    for name in wanted:  # so that each output has as much to say
        numbers = generator.uniform(0.5, 1.5, expected[name].shape)
        factors[name] = (numbers / np.square(expected[name]).sum()).astype(np.float32)
    _, gradients = engine.gradients(squares_of(DEEP, wanted), parameters, {}, batch | factors)
    assert set(gradients) == set(parameters)
    used, largest = used_tensors(DEEP, frozenset(wanted)), max(np.abs(array).max() for array in gradients.values())
    for name, gradient in gradients.items():
        layer = int(name.split(".")[3]) + 1 if ".layer." in name else 0
        if name not in used:
            assert not gradient.any(), name
        elif name.endswith("attention.self.key.bias") and not wanted & {f"scores/{layer}", f"keys/{layer}"}:
            # It adds the same number to all scores of a row, which softmax ignores: zero but for rounding. It counts as
            # used all the same, since that is a property of softmax and not of what is wired to what.
            assert np.abs(gradient).max() < 1e-5 * largest, name
        else:
            assert np.abs(gradient).max() > 1e-4 * largest, name


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


def test_dropout_is_where_bert_has_it():
    # Devlin et al. 2018, appendix A.2, and their code: on the embeddings, the attention probabilities, each sublayer's
    # output before it is added, and the pooled output. Of the last layer only the first token is asked for.
    rates = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.2, "classifier_dropout": 0.3}
    state, first, pooled = (5, 12, 32), (5, 1, 32), (5, 32)
    for config, hidden, attention, head in (
        (tiny.CONFIG.model_copy(update=rates), 0.1, 0.2, 0.3),
        (tiny.CONFIG.model_copy(update={**rates, "classifier_dropout": None}), 0.1, 0.2, 0.1),
        (tiny.CONFIG.model_copy(update=rates).with_dropout(0.4), 0.4, 0.4, 0.4),
        (tiny.CONFIG.model_copy(update=rates).without_dropout(), 0, 0, 0),
    ):
        ops = RecordingOps()
        make_forward(config)(ops, tiny.random_parameters(), tiny.random_batch())
        layer = [("attention", attention), (state, hidden), (state, hidden)]
        last = [("attention", attention), (first, hidden), (first, hidden)]
        assert ops.places == [(state, hidden), *layer, *last, (pooled, head)]
        # A layer whose scores are wanted computes its attention step by step, with the same dropout.
        ops = RecordingOps()
        make_forward(config, frozenset({"logits", "scores/1"}))(ops, tiny.random_parameters(), tiny.random_batch())
        by_steps = [((5, 4, 12, 12), attention), (state, hidden), (state, hidden)]
        assert ops.places == [(state, hidden), *by_steps, *last, (pooled, head)]


def hugging_face_outputs(model, batch):
    import torch

    inputs = {name: torch.from_numpy(batch[name]).long() for name in ("input_ids", "token_type_ids", "attention_mask")}
    model.set_attn_implementation("eager")  # the only one that shows its probabilities
    projected = {}
    for layer, part in enumerate(model.bert.encoder.layer):
        for kind, linear in zip(("queries", "keys", "values"), ("query", "key", "value")):
            module = getattr(part.attention.self, linear)
            name = f"{kind}/{layer + 1}"
            module.register_forward_hook(lambda _, __, output, name=name: projected.update({name: output.numpy()}))
    with torch.no_grad():
        return model.eval()(**inputs, output_hidden_states=True, output_attentions=True), projected


def assert_as_hugging_face(model, config, parameters, batch):
    theirs, projected = hugging_face_outputs(model, batch)
    ours = reference_outputs(config, parameters, batch)
    assert_close(theirs.logits.numpy(), ours["logits"], "logits")
    real = batch["attention_mask"] > 0
    assert len(theirs.hidden_states) == config.num_hidden_layers + 1
    for layer, found in enumerate(theirs.hidden_states):
        assert_close(found.numpy()[real], ours[f"hidden/{layer}"][real], f"hidden state {layer}")
    bias = attention_bias(ReferenceOps(), batch["attention_mask"].astype(np.float64))
    assert len(theirs.attentions) == config.num_hidden_layers
    for layer, found in enumerate(theirs.attentions, 1):
        probabilities = ReferenceOps().softmax(ours[f"scores/{layer}"] + bias)
        rows = np.broadcast_to(real[:, None, :], found.shape[:3])
        assert_close(found.numpy()[rows], probabilities[rows], f"attention {layer}")
        for kind in ("queries", "keys", "values"):
            heads = ours[f"{kind}/{layer}"]  # (B, A, L, D)
            merged = heads.transpose(0, 2, 1, 3).reshape(*real.shape, -1)
            assert_close(projected[f"{kind}/{layer}"][real], merged[real], f"{kind} {layer}")


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


@pytest.mark.only_backend("torch")
def test_scores_can_be_taken_from_a_bf16_model(make_engine):
    # The mask is float32 and the values are bf16: they meet in the product.
    engine, batch = make_engine(precision="bf16"), tiny.random_batch()
    names = ["logits", "scores/1", "values/2"]
    forward = make_forward(tiny.STILL, frozenset(names))

    def outputs(ops, params, batch):
        made = forward(ops, params, batch)
        return [made[name] for name in names]

    expected = forward(ReferenceOps(), tiny.random_parameters(), batch)
    for name, found in zip(names, engine.infer(outputs, tiny.random_parameters())(batch)):
        real = np.asarray(expected[name])
        assert np.abs(found - real).max() < 0.05 * np.abs(real).max(), name
