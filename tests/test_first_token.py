"""The last layer computes the first token alone where nothing else of it is asked for: the same values and gradients as of the
whole layer, in double precision by the reference and by PyTorch, in single precision on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.encoder_heads import wants_first_only
from crossdistil.core.models.outputs import LOGITS, output_name
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import MPNET, VARIANTS

SPARING = {
    name: config
    for name, config in VARIANTS.items()
    if not config.family.block.normalised_before and not config.distance_terms and name != "albert with groups"
}
"""Families whose last layer does so; others compute all of it."""
TOLERANCE = 2e-6


def last_state(config):
    return output_name("hidden", config.num_hidden_layers)


class CountingOps(ReferenceOps):
    """Writes down how many places of each text go through the maps."""

    def __init__(self):
        self.places = []

    def linear(self, x, weight, bias):
        self.places.append(x.shape[1] if x.ndim == 3 else 0)
        return super().linear(x, weight, bias)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_the_values_are_those_of_the_whole_layer(config):
    parameters, batch = tiny.random_parameters(config), tiny.random_batch(length=20, fill=1, seed=8)
    config, ops = config.without_dropout(), CountingOps()
    made = make_forward(config)(ops, parameters, batch)[LOGITS]
    whole = make_forward(config, frozenset({LOGITS, last_state(config)}))(ReferenceOps(), parameters, batch)
    np.testing.assert_allclose(made, whole[LOGITS], rtol=1e-12, atol=1e-13)
    assert (1 in ops.places) == (config in [each.without_dropout() for each in SPARING.values()])


def test_what_else_is_asked_for_is_of_all_tokens():
    for name in ("hidden/2", "scores/2", "queries/2", "keys/2", "values/2", "words", "masked_words"):
        assert not wants_first_only(tiny.CONFIG, frozenset({LOGITS, name})), name
    for name in ("hidden/1", "scores/1", "pooled", "decoder.weight"):
        assert wants_first_only(tiny.CONFIG, frozenset({LOGITS, name})), name


def of_logits(config, names):
    """An objective over logits alone, of a model that computes what is named."""
    forward = make_forward(config.without_dropout(), frozenset(names))

    def objective(ops, parameters, frozen, batch):
        total = ops.sum(forward(ops, parameters, batch)[LOGITS] * batch["weights"])
        return total, ops.stack([total])

    return objective


def weighted_batch():
    batch = tiny.random_batch(length=12, fill=1, seed=8)
    return batch | {"weights": np.random.default_rng(8).normal(size=(5, 2)).astype(np.float32)}


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("config", SPARING.values(), ids=SPARING)
def test_gradients_in_double_precision_are_those_of_the_whole_layer(config, engine):
    import torch

    found, batch = [], {name: torch.from_numpy(array) for name, array in weighted_batch().items()}
    batch = {name: array.double() if array.is_floating_point() else array for name, array in batch.items()}
    ops = type(engine.ops)(torch.device("cpu"), torch.float64)
    for names in ([LOGITS], [LOGITS, last_state(config)]):
        held = {
            name: torch.tensor(array, dtype=torch.float64, requires_grad=True)
            for name, array in tiny.random_parameters(config).items()
        }
        of_logits(config, names)(ops, held, {}, batch)[0].backward()
        found.append({name: tensor.grad for name, tensor in held.items()})
    for name, gradient in found[1].items():
        assert (gradient is None) == (found[0][name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[0][name], gradient, rtol=1e-10, atol=1e-12, msg=name)


def test_gradients_are_those_of_the_whole_layer(engine):
    """With a learnt bias of the scores, of which the first token has a row."""
    parameters, batch = tiny.random_parameters(MPNET), weighted_batch()
    loss, found = engine.gradients(of_logits(MPNET, [LOGITS]), parameters, {}, batch)
    expected_loss, expected = engine.gradients(of_logits(MPNET, [LOGITS, last_state(MPNET)]), parameters, {}, batch)
    np.testing.assert_allclose(loss, expected_loss, rtol=TOLERANCE, atol=TOLERANCE)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        apart = np.abs(np.asarray(found[name], np.float64) - gradient).max()
        assert apart <= TOLERANCE * max(1.0, np.abs(gradient).max()), f"{name} differs by {apart:.1e}"


@pytest.mark.only_backend("torch")
def test_a_step_with_dropout_trains_all_that_it_did(make_engine):
    """In bf16 and fp32, with dropout in the last layer: every parameter of the encoder takes a gradient, and it is finite."""
    config = tiny.CONFIG.model_copy(update={"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2})
    forward, batch = make_forward(config), weighted_batch()

    def objective(ops, parameters, frozen, batch):
        total = ops.sum(forward(ops, parameters, batch)[LOGITS] * batch["weights"])
        return total, ops.stack([total])

    for precision in ("fp32", "bf16"):
        _, found = make_engine(precision=precision).gradients(objective, tiny.random_parameters(config), {}, batch)
        assert all(np.isfinite(gradient).all() and gradient.any() for name, gradient in found.items() if "key.bias" not in name)
