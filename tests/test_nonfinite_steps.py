"""A step whose loss or gradient is not finite changes nothing, on any backend, and says so in its values."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.engine import Step
from crossdistil.core.optimizers import OptimizerSpec, OwnUpdate
from crossdistil.core.world import ALL

pytestmark = pytest.mark.backend

SHAPES = {"a.weight": (4, 3), "a.bias": (3,)}


def objective(ops, params, frozen, batch):
    """The sum of `weights` times `a.weight` and of `a.bias`, and `added`, which no gradient is by."""
    total = ops.sum(params["a.weight"] * batch["weights"]) + ops.sum(params["a.bias"]) + ops.sum(batch["added"])
    return total, ops.stack([total, total])


def batch(weight=1.0, added=0.0):
    return {
        "weights": np.full((4, 3), weight, np.float32),
        "added": np.full(1, added, np.float32),
        "denominators": np.ones(1, np.float32),
    }


def momentum(ops, parameter, gradient, state, now):
    kept = state[0] * 0.9 + gradient
    return parameter - kept * now["rate"], (kept,)


SPECS = {
    "adamw": OptimizerSpec("adamw"),
    "adamw, not clipped": OptimizerSpec("adamw", max_gradient_norm=None),
    "bert_adam": OptimizerSpec("bert_adam"),
    "adadelta": OptimizerSpec("adadelta", weight_decay=0.1),
    "own": OptimizerSpec("momentum", own=OwnUpdate(momentum, ("momentum",))),
}
BAD = {
    "loss": batch(added=np.nan),
    "gradient": batch(weight=1e25),  # whose square is more than float32 holds; the loss is finite
    "both": batch(weight=np.nan),
    "infinite": batch(weight=np.inf),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=list(SPECS))
def test_a_step_that_is_not_finite_leaves_everything_as_it_is(engine, spec):
    parameters = {name: np.full(shape, 0.5, np.float32) for name, shape in SHAPES.items()}
    step = engine.train_step(objective, parameters, {}, spec)

    def take(*batches):
        return step.run(iter([Step([each], 0.1, 0) for each in batches]), len(batches)).fetch()

    assert np.isfinite(take(batch(), batch())).all()
    before, state = step.parameters(), step.state()
    assert all(np.abs(array - 0.5).max() > 0 for array in before.values())
    for what, bad in BAD.items():
        assert not np.isfinite(take(bad)).all(), what
        for name, array in step.parameters().items():
            np.testing.assert_array_equal(array, before[name], err_msg=f"{what}: {name}")
        for name, array in step.state().items():
            if "step" not in name and engine.device == "cpu":
                np.testing.assert_array_equal(array, state[name], err_msg=f"{what}: {name}")
    values = take(batch(), BAD["loss"], batch())  # in one call: the others are taken
    assert np.isfinite(values).all(axis=1).tolist() == [True, False, True]
    after = step.parameters()
    assert all(np.isfinite(array).all() and np.abs(array - before[name]).max() > 0 for name, array in after.items())


def test_a_bad_micro_batch_spoils_its_step_only(engine):
    parameters = {name: np.full(shape, 0.5, np.float32) for name, shape in SHAPES.items()}
    step = engine.train_step(objective, parameters, {}, OptimizerSpec("adamw"))
    bad = Step([batch(), BAD["both"]], 0.1, 0, ALL)
    good = Step([batch(), batch(2.0)], 0.1, 0, ALL)
    values = step.run(iter([bad]), 1).fetch()
    assert not np.isfinite(values).all()
    for name, array in step.parameters().items():
        np.testing.assert_array_equal(array, parameters[name])
    values = step.run(iter([good]), 1).fetch()
    # The gradient by each weight is 1 + 2, by each bias 1 + 1.
    assert values[0, -1] == pytest.approx(np.sqrt(12 * 9 + 3 * 4), rel=1e-6)
