"""The LSTM primitive: PyTorch's own on packed sequences and the float64 reference are the referees."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.tests.reference_values import assert_close, reference

VALUE, GRADIENT = 1e-6, 1e-4
"""Largest difference, as a share of the value (or of 1), from float64 and from finite differences."""

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
        assert_close(found[name], expected, GRADIENT, f"the gradient with respect to {name}")
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
    assert_close(gradients["x"], x.grad.numpy(), 1e-5, "the gradient with respect to x")
    for direction, suffix in enumerate(("_l0", "_l0_reverse")):
        for name, ours in names.items():
            grad = getattr(theirs, name + suffix).grad.numpy()
            assert_close(gradients[ours][direction], grad, 1e-5, f"the gradient with respect to {name}{suffix}")


@pytest.mark.only_backend("torch")
def test_bf16_is_near(make_engine):
    parameters, batch = lstm_case()
    weights = np.ones((5, 8), np.float32)
    engines = [make_engine(precision=precision) for precision in ("fp32", "bf16")]
    values = [engine.infer(lstm_output, parameters)(batch)[0] for engine in engines]
    assert_close(values[1], values[0], 0.05, "the LSTM")
    whole, half = (e.gradients(lstm_objective, parameters, {}, {**batch, "weights": weights})[1] for e in engines)
    for name in parameters:
        assert_close(half[name], whole[name], 0.2, f"the gradient with respect to {name}")


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
        assert_close(gradients[name], expected[name], 1e-5, f"the gradient with respect to {name}")


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
