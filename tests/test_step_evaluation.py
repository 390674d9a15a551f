"""An evaluation during training: the train step's own tensors give what the engine gives of their values from the host, bit for
bit, and training goes on as if nothing had been asked."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.engine import Step
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.task_data import logits_function
from crossdistil.tests import tiny

pytestmark = pytest.mark.backend

forward, answers = make_forward(tiny.CONFIG, frozenset({"logits"})), logits_function(tiny.CONFIG)


def objective(ops, params, frozen, batch):
    """The sum of the squared logits."""
    logits = forward(ops, params, batch)["logits"]
    total = ops.sum(logits * logits)
    return total, ops.stack([total, total])


def batch(rows, seed):
    # One length, so that a compiling backend compiles once for each number of rows.
    return tiny.random_batch(rows, 12, seed=seed) | {"denominators": np.ones(1, np.float32)}


def take(step, number):
    step.run(iter([Step([batch(20, number)], 1e-3, number)]), 1).fetch()


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.only_backend("torch"))])
def test_the_steps_own_tensors_answer_as_their_values_do(make_engine, precision):
    engine, parameters = make_engine(precision=precision), tiny.random_parameters()
    still = [name for name in parameters if "layer.0." in name]  # one layer is not trained
    spec = OptimizerSpec("adamw", trainable=frozenset(parameters) - set(still))
    step = engine.train_step(objective, parameters, {}, spec)
    begin, answered = (step.parameters(), step.state()), []
    for number in range(3):
        take(step, number)
        infer = step.infer(answers, tuple(parameters))
        on_host = {**parameters, **step.parameters()}
        expected = engine.infer(answers, {name: on_host[name] for name in parameters})
        for rows in (20,) if engine.length_step is None else (20, 5):  # a compilation each
            found, known = infer(batch(rows, 9)), expected(batch(rows, 9))
            assert len(found) == len(known) == 1
            np.testing.assert_array_equal(found[0], known[0])
        answered.append(found[0])
    assert np.abs(answered[0] - answered[2]).max() > 0  # the weights have changed, and what was answered has not
    asked = {**step.parameters(), **step.state()}
    step.restore(*begin)
    for number in range(3):
        take(step, number)
    unasked = {**step.parameters(), **step.state()}
    assert unasked.keys() == asked.keys() and not unasked.keys() & set(still)
    for name, array in unasked.items():
        np.testing.assert_array_equal(asked[name], array, err_msg=name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_found_by_its_name(engine, value):
    parameters = {name: np.full((4, 3), 0.5, np.float32) for name in ("a.weight", "b.weight", "c.weight")}
    spec = OptimizerSpec("adamw", trainable=frozenset({"a.weight", "b.weight"}))

    def total(ops, params, frozen, batch):
        found = ops.sum(params["a.weight"]) + ops.sum(params["b.weight"]) + ops.sum(params["c.weight"])
        return found, ops.stack([found, found])

    step = engine.train_step(total, parameters, {}, spec)
    assert step.not_finite() is None
    parameters["b.weight"][3, 1] = value
    step.restore({name: parameters[name] for name in ("a.weight", "b.weight")}, step.state())
    assert step.not_finite() == "b.weight"
