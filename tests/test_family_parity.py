"""The families whose positions or scores are not BERT's, against transformers in double precision, at lengths where all of their
distances show; their gradients on every backend; and Theseus wherever layers have weights of their own."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.models.architectures import make_forward, tensor_shapes
from crossdistil.core.models.components import attention_bias
from crossdistil.core.models.theseus import Replacement, make_replacing_forward, predecessor_tensors
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.static_tables import static_table
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import (
    ALIKE,
    AS_BERT,
    DEBERTA_V2,
    FAMILIES,
    LABELS,
    MODERNBERT,
    NOMIC_BERT,
    OF_EACH,
    VARIANTS,
    compiled,
    everything,
    hugging_face_config,
    hugging_face_outputs,
    named_tensors,
    of_depth,
    randomise,
)

LENGTH = 150
LONG = {
    kind: of_depth(config, 3, **{config.own_key("max_position_embeddings"): LENGTH + 3})
    for kind, config in OF_EACH.items()
    if kind not in (*AS_BERT, *ALIKE)
}
LONG |= {
    name: of_depth(VARIANTS[name], 4, max_position_embeddings=LENGTH, local_attention=64)
    for name in ("modernbert", "modernbert with biases")
}
LONG["gpt2"] = of_depth(LONG["gpt2"], 3, n_inner=None)
LONG["xlm-roberta"] = OF_EACH["xlm-roberta"].model_copy(update={"max_position_embeddings": LENGTH + 3})
# transformers divides DeBERTa's scores by a root in single precision, in double precision as well: a head of 12 numbers and three
# terms have a root that is exact.
DISENTANGLED = DEBERTA_V2.model_copy(update={"hidden_size": 48, "max_position_embeddings": LENGTH + 3})
LONG |= {
    "deberta-v3": DISENTANGLED.model_copy(update={"position_buckets": 32}),
    "deberta-v2": DISENTANGLED.model_copy(
        update={"position_buckets": -1, "share_att_key": False, "position_biased_input": True, "type_vocab_size": 2}
    ),
    "deberta-v2 up to a distance": DISENTANGLED.model_copy(update={"position_buckets": -1, "max_relative_positions": 20}),
}
each = pytest.mark.parametrize("config", LONG.values(), ids=LONG)
GRAPHS_OF_OTHERS = ("roberta", "xlm-roberta", "modernbert", "deberta-v2 up to a distance")
"""At one layer: roberta-prelayernorm's embeddings and head with a BERT's layer, "modernbert with biases", and "deberta-v2" with
another table of distances."""
each_gradient = pytest.mark.parametrize(
    "config", compiled(LONG | {kind: OF_EACH[kind] for kind in ("distilbert", "electra")}, GRAPHS_OF_OTHERS)
)
DOUBLE, GRADIENT = 1e-10, 1e-4


def theirs_and_parameters(config):
    from transformers import AutoModelForSequenceClassification

    theirs = AutoModelForSequenceClassification.from_config(hugging_face_config(config, num_labels=len(LABELS))).double()
    randomise(theirs)
    return theirs, named_tensors(theirs)


def assert_near(found, expected, limit, what):
    difference = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)).max()
    assert difference <= limit * max(1.0, np.abs(expected).max()), f"{what} differs by {difference:.1e}"


@pytest.fixture
def in_double_precision(monkeypatch):
    """transformers turns ModernBERT's queries and keys, by tables of its own, and makes probabilities in single precision,
    whatever the model's is, and Nomic-BERT's tables too: here it does so in the model's, by our tables, which a test of their own
    holds against theirs."""
    import torch
    from transformers.models.modernbert import modeling_modernbert as theirs
    from transformers.models.nomic_bert.modeling_nomic_bert import NomicBertRotaryEmbedding

    def rotated(query, key, cosines, sines, unsqueeze_dim=1):
        turned = [x * cosines[:, None] + theirs.rotate_half(x) * sines[:, None] for x in (query, key)]
        return turned[0], turned[1]

    def tables(self, x, position_ids, layer_type=None):
        arguments = (position_ids.shape[1], self.config.hidden_size // self.config.num_attention_heads)
        told = self.config.rope_parameters
        base = (told if layer_type is None else told[layer_type])["rope_theta"]
        names = ("rotary_cosines", "rotary_sines")
        return [torch.from_numpy(static_table(name, (*arguments, base)))[None].to(x.dtype) for name in names]

    def attention(module, query, key, value, mask, scaling, dropout=0.0, **options):
        probabilities = torch.softmax(query @ key.transpose(2, 3) * scaling + mask, dim=-1)
        return (probabilities @ value).transpose(1, 2).contiguous(), probabilities

    monkeypatch.setattr(theirs, "eager_attention_forward", attention)
    monkeypatch.setattr(theirs, "apply_rotary_pos_emb", rotated)
    for kind in (theirs.ModernBertRotaryEmbedding, NomicBertRotaryEmbedding):
        monkeypatch.setattr(kind, "forward", tables)


@pytest.mark.only_backend("torch")
def test_the_angles_are_transformers_s():
    """An inverse frequency may differ in its last bit, since processors compute powers by different instructions, and an angle is
    the place times it."""
    import torch
    from transformers.models.modernbert.modeling_modernbert import ModernBertRotaryEmbedding
    from transformers.models.nomic_bert.modeling_nomic_bert import NomicBertRotaryEmbedding

    wide = {"hidden_size": 128, "num_attention_heads": 2}
    modernbert = ModernBertRotaryEmbedding(hugging_face_config(of_depth(MODERNBERT, 2, **wide)))
    nomic_bert = NomicBertRotaryEmbedding(hugging_face_config(of_depth(NOMIC_BERT, 2, **wide)))
    for theirs, kind, base in (
        (modernbert, ["full_attention"], 160_000.0), (modernbert, ["sliding_attention"], 10_000.0), (nomic_bert, [], 1000.0)
    ):  # fmt: skip
        found = theirs(torch.zeros(1), torch.arange(2000)[None], *kind)
        for name, expected in zip(("rotary_cosines", "rotary_sines"), found, strict=True):
            apart = np.abs(static_table(name, (2000, 64, base)) - expected[0].numpy())
            assert np.all(apart <= 1e-6 + np.arange(2000)[:, None] * np.finfo(np.float32).eps), (kind, apart.max())


@pytest.mark.only_backend("torch")
@each
def test_in_double_precision_they_are_transformers_s(config, in_double_precision):
    theirs, parameters = theirs_and_parameters(config)
    batch = tiny.random_batch(rows=4, length=LENGTH, fill=0, seed=6)
    if config.family is MODERNBERT.family:
        batch["attention_mask"][:, : LENGTH - 20] = 1  # transformers has NaN for padding with no token near by
    found = hugging_face_outputs(theirs, config, batch)
    ours = make_forward(config.without_dropout(), everything(config))(ReferenceOps(), parameters, batch)
    real = batch["attention_mask"] > 0
    assert_near(ours["logits"], found.logits, DOUBLE, "logits")
    bias = attention_bias(ReferenceOps(), batch["attention_mask"].astype(np.float64))
    rows = np.broadcast_to(real[:, None, :], found.attentions[0].shape[:3])
    for layer in range(config.num_hidden_layers + 1):
        assert_near(ours[f"hidden/{layer}"][real], found.hidden_states[layer].numpy()[real], DOUBLE, f"hidden state {layer}")
        if layer:
            shown = ReferenceOps().softmax(ours[f"scores/{layer}"] + bias)
            assert_near(shown[rows], found.attentions[layer - 1].numpy()[rows], DOUBLE, f"attention {layer}")


def weighted(config, names):
    """An objective over the logits, and over what else is named."""
    forward = make_forward(config.without_dropout(), frozenset(names))

    def objective(ops, parameters, frozen, batch):
        made = forward(ops, parameters, batch)
        total = ops.sum(made["logits"] * batch["weights"])
        for name in names[1:]:
            total = total + ops.sum(ops.tanh(made[name])) * 0.01
        return total, ops.stack([total])

    return objective


def batch_of(length, seed=3):
    batch = tiny.random_batch(rows=3, length=length, fill=0, seed=seed)
    return batch | {"weights": np.random.default_rng(seed).normal(size=(3, len(LABELS))).astype(np.float32)}


@pytest.mark.only_backend("torch")
@each
def test_their_gradients_are_transformers_s(config, engine):
    import torch

    theirs, parameters = theirs_and_parameters(config)
    batch = batch_of(LENGTH)
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if config.type_vocab_size else ()))
    logits = theirs.eval()(**{name: torch.from_numpy(batch[name]).long() for name in names}).logits
    (logits * torch.from_numpy(batch["weights"])).sum().backward()
    single = {name: array.astype(np.float32) for name, array in parameters.items()}
    _, found = engine.gradients(weighted(config, ["logits"]), single, {}, batch)
    for name, gradient in named_tensors(theirs, gradients=True).items():
        assert_near(found[name], gradient, GRADIENT, f"the gradient with respect to {name}")


@each_gradient
def test_their_gradients_are_the_slopes_of_the_reference(config, engine):
    """Along a random direction of each tensor, through logits and scores."""
    near = {"local_attention": 8, "layer_types": ["sliding_attention"]} if hasattr(config, "layer_types") else {}
    config = of_depth(config, 1, **near)
    parameters = tiny.random_parameters(config, len(LABELS), seed=4)
    batch, names = batch_of(24), ["logits", "scores/1"]
    objective, generator = weighted(config, names), np.random.default_rng(5)
    _, found = engine.gradients(objective, parameters, {}, batch)
    exact = {name: array.astype(np.float64) for name, array in parameters.items()}
    for name, array in exact.items():
        direction = generator.normal(size=array.shape)
        direction /= np.sqrt((direction**2).sum())
        moved = [exact | {name: array + step * direction} for step in (1e-5, -1e-5)]
        ends = [float(objective(ReferenceOps(), parameters, {}, batch)[0]) for parameters in moved]
        slope, along = (ends[0] - ends[1]) / 2e-5, float((found[name] * direction).sum())
        assert abs(along - slope) <= GRADIENT * max(1.0, np.abs(found[name]).max(), abs(slope)), name


@pytest.mark.only_backend("torch")
def test_the_buckets_of_distances_are_transformers_s():
    import torch
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    places = torch.arange(512)
    theirs = MPNetEncoder.relative_position_bucket(places[None, :] - places[:, None], num_buckets=32)
    np.testing.assert_array_equal(static_table("relative_buckets", (512, 32, 128)), theirs.numpy())


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (32, 153), (8, 40), (-1, 300)])
def test_the_rows_of_distances_are_transformers_s(buckets, farthest):
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    places = torch.zeros(1, 512, 1)
    span = buckets if buckets > 0 else farthest
    theirs = (build_relative_position(places, places, buckets, farthest)[0] + span).clamp(0, 2 * span - 1)
    np.testing.assert_array_equal(static_table("distance_rows", (512, max(buckets, 0), farthest, span)), theirs.numpy())


@pytest.mark.parametrize("length", [4, 5, 6, 14, 40])
def test_a_short_text_takes_part_of_the_table_of_distances(length):
    """Which the export, whose lengths are not known, does not cut: both are one model."""

    class Symbolic(ReferenceOps):
        def is_known(self, size):
            return False

    parameters = tiny.random_parameters(DEBERTA_V2, 2, seed=4)
    batch, forward = tiny.random_batch(rows=3, length=length, fill=0), make_forward(DEBERTA_V2.without_dropout())
    whole, cut = (forward(ops, parameters, batch)["logits"] for ops in (Symbolic(), ReferenceOps()))
    np.testing.assert_allclose(cut, whole, rtol=1e-12)


THESEUS = {kind: config for kind, config in FAMILIES.items() if not config.family.shares_layers and kind not in ALIKE}


@pytest.mark.parametrize("config", THESEUS.values(), ids=THESEUS)
def test_modules_of_every_family_with_layers_of_its_own_are_replaced(config):
    """With all gates 1 it is the student, with all 0 the predecessor's layers between the student's embeddings and head."""
    old = of_depth(config, 4, **{config.own_key("intermediate_size"): 40})
    student, weights = tiny.random_parameters(config, seed=1), tiny.random_parameters(old, seed=2)
    held, batch = student | predecessor_tensors(old, weights), tiny.random_batch()
    replacement = Replacement(old.without_dropout(), config.num_hidden_layers, "constant", 0.5)
    replacing = make_replacing_forward(config.without_dropout(), frozenset({"logits"}), replacement)
    layers = predecessor_tensors(old, weights).keys()
    assembled = {name: weights[name] if f"predecessor.{name}" in layers else student[name] for name in tensor_shapes(old, 2)}
    for gate, plain, parameters in ((1.0, config, student), (0.0, old, assembled)):
        gates = np.full(config.num_hidden_layers, gate, np.float32)
        found = replacing(ReferenceOps(), held, batch | {"gates": gates})["logits"]
        expected = make_forward(plain.without_dropout())(ReferenceOps(), parameters, batch)["logits"]
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)  # a module computes all tokens


@pytest.mark.only_backend("torch")
def test_a_learnt_bias_takes_its_gradient_with_dropout_too():
    import torch

    from crossdistil.backends.torch.attention import dropped_attention
    from crossdistil.backends.torch.dropout import DropoutMasks
    from crossdistil.core.dropout_masks import scale

    generator, rate, masks = torch.Generator().manual_seed(1), 0.25, DropoutMasks(own=True)
    given = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in [(2, 3, 5, 4)] * 3 + [(2, 3, 5, 5)]]
    found = [tensor.clone().requires_grad_() for tensor in given]
    masks.reseed(7)
    dropped_attention(*found, masks, rate).square().sum().backward()
    query, key, value, bias = expected = [tensor.clone().requires_grad_() for tensor in given]
    masks.reseed(7)
    kept = masks.factors((2, 3, 5, 5), rate, torch.float64, scale(rate))
    probabilities = torch.softmax(query @ key.transpose(-1, -2) / 2.0 + bias, -1)
    ((probabilities * kept) @ value).square().sum().backward()
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-9)
