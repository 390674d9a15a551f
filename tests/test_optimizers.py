"""AdamW, BertAdam and Adadelta, step by step, against their formulas in NumPy float64; clipping, decay, which parameters are
trained and how fast, and going on from a saved state."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from crossdistil.core.engine import Step
from crossdistil.core.optimizers import OptimizerSpec, is_decayed
from crossdistil.core.states import layout_of

STEPS, ROWS, WIDTH, OUTPUTS = 20, 6, 8, 5
SHAPES = {
    "dense.weight": (OUTPUTS, WIDTH),
    "dense.bias": (OUTPUTS,),
    "LayerNorm.weight": (WIDTH,),
    "LayerNorm.bias": (WIDTH,),
}
SLIGHT = 1e-6
"""What `LayerNorm.bias` is multiplied with: gradients of this size are where the optimizer's epsilon matters."""


def objective(ops, parameters, frozen, batch):
    """Half the squared error of a linear map of scaled and shifted rows: the mean over the rows."""
    inner = batch["x"] * parameters["LayerNorm.weight"] + parameters["LayerNorm.bias"] * SLIGHT
    error = ops.linear(inner, parameters["dense.weight"], parameters["dense.bias"]) - batch["y"]
    total = ops.sum(error * error) * (0.5 / ROWS)
    return total, ops.stack([total, total])


def exact_loss_and_gradients(p, batch):
    """The same with its derivative by hand, in float64."""
    x, y = (batch[name].astype(np.float64) for name in ("x", "y"))
    inner = x * p["LayerNorm.weight"] + p["LayerNorm.bias"] * SLIGHT
    error = inner @ p["dense.weight"].T + p["dense.bias"] - y
    by_output, by_inner = error / ROWS, error @ p["dense.weight"] / ROWS
    return (error**2).sum() / (2 * ROWS), {
        "dense.weight": by_output.T @ inner,
        "dense.bias": by_output.sum(0),
        "LayerNorm.weight": (by_inner * x).sum(0),
        "LayerNorm.bias": by_inner.sum(0) * SLIGHT,
    }


def exact_training(spec: OptimizerSpec, parameters, steps, differentiate=exact_loss_and_gradients):
    """Losses and parameters, and in which steps the gradient was clipped."""
    p = {name: array.astype(np.float64) for name, array in parameters.items()}
    m, v = ({name: np.zeros_like(array) for name, array in p.items()} for _ in range(2))
    losses, clipped = [], []
    for t, step in enumerate(steps, 1):
        loss, gradients = differentiate(p, step.micro_batches[0])
        losses.append(loss)
        trained = set(p) if spec.trainable is None else spec.trainable
        norm = np.sqrt(sum((g**2).sum() for name, g in gradients.items() if spec.clip_frozen or name in trained))
        limit = spec.max_gradient_norm
        clipped.append(limit is not None and norm > limit)
        for name in trained:
            g = gradients[name]
            g = g * (min(1.0, limit / (norm + 1e-6)) if limit is not None else 1.0)
            decay = spec.weight_decay if name in ("dense.weight", "gated.weight") else 0.0
            rate = step.learning_rate * spec.rate_factors.get(name, 1.0)
            if spec.name == "adadelta":
                g = g + decay * p[name]
                v[name] = spec.beta2 * v[name] + (1 - spec.beta2) * g**2
                change = np.sqrt(m[name] + spec.epsilon) / np.sqrt(v[name] + spec.epsilon) * g
                m[name] = spec.beta2 * m[name] + (1 - spec.beta2) * change**2
                p[name] = p[name] - rate * change
                continue
            m[name] = spec.beta1 * m[name] + (1 - spec.beta1) * g
            v[name] = spec.beta2 * v[name] + (1 - spec.beta2) * g**2
            if spec.name == "adamw":
                mean, square = m[name] / (1 - spec.beta1**t), v[name] / (1 - spec.beta2**t)
                p[name] = p[name] * (1 - rate * decay) - rate * mean / (np.sqrt(square) + spec.epsilon)
            else:
                p[name] = p[name] - rate * (m[name] / (np.sqrt(v[name]) + spec.epsilon) + decay * p[name])
    return np.array(losses), p, clipped


def make_steps(seed=0):
    generator = np.random.default_rng(seed)
    for number in range(STEPS):
        x, y = generator.normal(size=(ROWS, WIDTH)), generator.normal(size=(ROWS, OUTPUTS))
        # Some batches are ten times as large, so that their gradients are clipped.
        scale = 10.0 if number % 3 == 1 else 1.0
        batch = {"x": x.astype(np.float32), "y": (y * scale).astype(np.float32), "denominators": np.ones(1, np.float32)}
        yield Step([batch], 0.02 * (number + 1) / STEPS, seed=number)


@pytest.fixture
def parameters():
    generator = np.random.default_rng(9)
    return {name: generator.normal(1.0, 0.5, shape).astype(np.float32) for name, shape in SHAPES.items()}


SPECS = {
    "adamw": OptimizerSpec("adamw", weight_decay=0.1, max_gradient_norm=20.0),
    "adamw, other constants": OptimizerSpec("adamw", 0.8, 0.95, 1e-4, weight_decay=0.0, max_gradient_norm=None),
    "bert_adam": OptimizerSpec("bert_adam", weight_decay=0.1, max_gradient_norm=20.0),
    # Its steps grow with its epsilon, and do not make up for a slight gradient as Adam's do.
    "adadelta": OptimizerSpec(
        "adadelta", beta2=0.95, epsilon=1e-3, weight_decay=0.1, max_gradient_norm=20.0, rate_factors={"LayerNorm.bias": 1e4}
    ),
    "adadelta, as published": OptimizerSpec(
        "adadelta",
        beta2=0.95,
        weight_decay=0.0,
        max_gradient_norm=None,
        rate_factors={name: 50.0 if name != "LayerNorm.bias" else 1e5 for name in SHAPES},
    ),
}
NAMES = ["adamw", "bert_adam", "adadelta"]


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_twenty_steps_follow_the_formula(engine, parameters, spec):
    steps = list(make_steps())
    losses, expected, clipped = exact_training(spec, parameters, steps)
    assert {True, False} <= set(clipped) or spec.max_gradient_norm is None
    step = engine.train_step(objective, parameters, {}, spec)
    values = step.run(iter(steps), STEPS).fetch()
    assert values.shape == (STEPS, 3) and values.dtype == np.float32
    gradients = exact_loss_and_gradients(parameters, steps[0].micro_batches[0])[1]
    exact = np.sqrt(sum((each.astype(np.float64) ** 2).sum() for each in gradients.values()))
    assert values[0, -1] == pytest.approx(exact, rel=1e-5)  # before it is clipped
    np.testing.assert_allclose(values[:, 0], losses, rtol=1e-5)
    for name, found in step.parameters().items():
        assert np.abs(found - parameters[name]).max() > 5e-3, f"{name} did not move"
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_a_first_step_is_as_long_as_the_learning_rate(engine, parameters):
    """m / (1-b1) over sqrt(v / (1-b2)) is g over its size: kernels that hold b2 in float32 make 6e-6 more of it, unless the bias
    correction is of the same b2."""
    parameters["dense.bias"][:] = 0.0
    step = engine.train_step(objective, parameters, {}, OptimizerSpec("adamw", max_gradient_norm=None, epsilon=1e-9))
    [first, *_] = make_steps()
    step.run(iter([dataclasses.replace(first, learning_rate=0.5)]), 1).fetch()
    gradient = exact_loss_and_gradients(parameters, first.micro_batches[0])[1]["dense.bias"]
    np.testing.assert_allclose(step.parameters()["dense.bias"], -0.5 * np.sign(gradient), rtol=1e-6)


def follow(engine, spec, parameters, steps, function=objective, differentiate=exact_loss_and_gradients):
    """Train, and compare every loss and every trained parameter with the formula; returns in which steps the gradient was
    clipped."""
    losses, expected, clipped = exact_training(spec, parameters, steps, differentiate)
    before = {name: array.copy() for name, array in parameters.items()}
    step = engine.train_step(function, parameters, {}, spec)
    values = step.run(iter(steps), len(steps)).fetch()
    np.testing.assert_allclose(values[:, 0], losses, rtol=1e-5)
    found = step.parameters()
    assert set(found) == (set(parameters) if spec.trainable is None else spec.trainable)
    for name, array in found.items():
        assert np.abs(array - parameters[name]).max() > 5e-3, f"{name} did not move"
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)
    for name, array in before.items():
        np.testing.assert_array_equal(parameters[name], array, err_msg=f"{name}: the caller's array was changed")
    return clipped


CHOSEN = frozenset({"dense.bias", "LayerNorm.weight"})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clip_frozen", [False, True])
def test_only_what_is_trainable_is_trained(engine, parameters, name, clip_frozen):
    """`dense.weight`, which would be decayed, enters every loss: they are the formula's only if it keeps its bits."""
    spec = dataclasses.replace(SPECS[name], trainable=CHOSEN, clip_frozen=clip_frozen)
    steps = list(make_steps(seed=3))
    clipped = follow(engine, spec, parameters, steps)
    assert {True, False} <= set(clipped)
    others = exact_training(dataclasses.replace(spec, clip_frozen=not clip_frozen), parameters, steps)[2]
    assert clipped != others  # whose gradients count shows


@pytest.mark.parametrize("clip_frozen", [False, True])
def test_what_is_not_trained_has_no_state_and_stays_when_one_goes_on(engine, parameters, clip_frozen):
    spec = OptimizerSpec("adamw", weight_decay=0.1, trainable=CHOSEN, clip_frozen=clip_frozen)
    steps = list(make_steps(seed=4))
    first, second = (engine.train_step(objective, parameters, {}, spec) for _ in range(2))
    first.run(iter(steps), 9).fetch()
    middle, state = first.parameters(), first.state()
    assert {key.partition("/")[2] for key in state if "/" in key} == CHOSEN
    expected = first.run(iter(steps[9:]), STEPS - 9).fetch()
    # As it is saved: with what was not trained beside it.
    second.restore({**parameters, **middle}, state)
    np.testing.assert_array_equal(second.run(iter(steps[9:]), STEPS - 9).fetch(), expected)


@pytest.mark.parametrize("name", ["adamw", "bert_adam"])
def test_a_parameter_may_have_a_rate_of_its_own(engine, parameters, name):
    factors = {"dense.weight": 3.0, "LayerNorm.bias": 0.25}
    spec = OptimizerSpec(name, weight_decay=0.1, max_gradient_norm=20.0, rate_factors=factors)
    steps = list(make_steps(seed=5))
    follow(engine, spec, parameters, steps)
    _, plain, _ = exact_training(SPECS[name], parameters, steps)
    _, own, _ = exact_training(spec, parameters, steps)
    assert np.abs(own["dense.weight"] - plain["dense.weight"]).max() > 1e-2  # the factors matter


def gated(ops, parameters, frozen, batch):
    """Half the squared error of a linear map, of whose rows another map is made first where the gate is 1."""

    def mapped(x):
        return ops.linear(x, parameters["gated.weight"], parameters["gated.bias"])

    def same(x):
        return x

    inner = ops.choose(batch["gates"][0], mapped, same, batch["x"])
    error = ops.linear(inner, parameters["dense.weight"], parameters["dense.bias"]) - batch["y"]
    total = ops.sum(error * error) * (0.5 / ROWS)
    return total, ops.stack([total, total])


def exact_gated(p, batch):
    """The same with its derivative by hand, in float64; what a step does not use has the gradient 0."""
    x, y = (batch[name].astype(np.float64) for name in ("x", "y"))
    gate = batch["gates"][0]
    inner = x @ p["gated.weight"].T + p["gated.bias"] if gate else x
    error = inner @ p["dense.weight"].T + p["dense.bias"] - y
    by_inner = error @ p["dense.weight"] / ROWS * gate
    return (error**2).sum() / (2 * ROWS), {
        "dense.weight": error.T @ inner / ROWS,
        "dense.bias": error.sum(0) / ROWS,
        "gated.weight": by_inner.T @ x,
        "gated.bias": by_inner.sum(0),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trainable", [None, frozenset({"gated.weight", "gated.bias"})], ids=["all", "gated"])
def test_a_parameter_that_a_step_does_not_use_has_the_gradient_0(engine, name, trainable):
    """Its moments shrink and its decay goes on; where nothing at all that is trained is used, too."""
    generator = np.random.default_rng(6)
    shapes = {"gated.weight": (WIDTH, WIDTH), "gated.bias": (WIDTH,), "dense.weight": (OUTPUTS, WIDTH), "dense.bias": (OUTPUTS,)}
    start = {key: generator.normal(0.0, 0.5, shape).astype(np.float32) for key, shape in shapes.items()}
    steps = list(make_steps(seed=7))
    # The first step is one without a gradient, before there are any moments.
    for number, step in enumerate(steps):
        step.micro_batches[0]["gates"] = np.array([number % 5 in (1, 2)], np.float32)
    epsilon = 1e-2 if name == "adadelta" else 1e-4
    spec = dataclasses.replace(SPECS[name], epsilon=epsilon, trainable=trainable)
    follow(engine, spec, start, steps, gated, exact_gated)


@pytest.mark.parametrize("name", NAMES)
def test_a_restored_state_goes_on_bit_for_bit(engine, parameters, name):
    steps = list(make_steps(seed=1))
    unbroken = engine.train_step(objective, parameters, {}, SPECS[name])
    taken = iter(steps)
    unbroken.run(taken, 7).fetch()
    middle, state = unbroken.parameters(), unbroken.state()
    assert next(taken) is steps[7]  # exactly as many steps were taken as asked for
    # What was returned is a copy, which training goes on without touching.
    expected = unbroken.run(iter(steps[7:]), STEPS - 7).fetch()
    other = {name: np.zeros_like(array) for name, array in parameters.items()}
    second = engine.train_step(objective, other, {}, SPECS[name])
    second.run(iter(steps[:2]), 2).fetch()
    assert layout_of(state) == dict(second.state_layout())
    second.restore(middle, state)
    after = second.run(iter(steps[7:]), STEPS - 7).fetch()
    np.testing.assert_array_equal(after, expected)
    for key, array in unbroken.parameters().items():
        np.testing.assert_array_equal(second.parameters()[key], array, err_msg=key)


def weighted_sum(ops, parameters, frozen, batch):
    total = ops.sum(parameters["embeddings.weight"] * batch["gradient"])
    return total, ops.stack([total, total])


def test_the_norm_of_a_large_table_is_exact(engine):
    # With an epsilon of 1 the update is proportional to the clipped gradient. A sum of millions of squares that grows in one
    # float32 is some percent wrong; in parts, as torch adds, 2e-5.
    generator = np.random.default_rng(2)
    gradient = generator.normal(1.0, 0.5, (30000, 100)).astype(np.float32)
    spec = OptimizerSpec("bert_adam", epsilon=1.0, weight_decay=0.0, max_gradient_norm=100.0)
    table = {"embeddings.weight": np.zeros(gradient.shape, np.float32)}
    step = engine.train_step(weighted_sum, table, {}, spec)
    batch = {"gradient": gradient, "denominators": np.ones(1, np.float32)}
    step.run(iter([Step([batch], 1.0, 0)]), 1).fetch()
    g = gradient.astype(np.float64)
    g *= 100.0 / np.sqrt((g**2).sum())
    expected = -0.1 * g / (np.sqrt(0.001) * np.abs(g) + 1.0)
    np.testing.assert_allclose(step.parameters()["embeddings.weight"], expected, rtol=1e-4, atol=1e-9)


def test_what_is_decayed():
    names = ["bert.embeddings.LayerNorm.weight", "a.LayerNorm.bias", "dense.weight", "dense.bias", "word_embeddings.weight"]
    assert [name for name in names if is_decayed(name)] == ["dense.weight", "word_embeddings.weight"]
