"""What is OneFlow's own: its refusals, the functions rewritten for its CPU kernels, its dropout masks and its state.

The tests over all backends hold its ops, losses and optimizers against the reference; here are only its own risks.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from crossdistil.backends.oneflow.matrix_products import SETTING
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.errors import BackendError
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.processor import flags
from crossdistil.core.reference import ReferenceOps

pytestmark = pytest.mark.only_backend("oneflow")

# Float32 against float64: rounding of a row's mean and of sums over 40 rows.
TOLERANCE = 2e-6


def make_engine(**options):
    from crossdistil.backends.oneflow.engine import OneFlowEngine

    return OneFlowEngine(EngineOptions(**{"device": "cpu", **options}))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"device": "npu"}, "npu"),
        ({"device": "cuda:x"}, "cuda:x"),
        ({"device": "cpu:1"}, "cpu:1"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"precision": "bf16"}, "bf16"),
        ({"precision": "fp16"}, "fp16"),
        ({"compile": True}, "compile"),
    ],
)
def test_what_is_missing_is_refused_in_one_line(options, named):
    with pytest.raises(BackendError) as caught:
        make_engine(**options)
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_start_is_silent():
    code = (
        "from crossdistil.core.engine import EngineOptions\n"
        "from crossdistil.backends.oneflow.engine import OneFlowEngine\n"
        "print(OneFlowEngine(EngineOptions(device='cpu')).versions()['oneflow'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout.count("\n") == 1


# Each: its tensors, and the function of `ops` and of them.
REWRITTEN = {
    "layer_norm": (
        {"x": (4, 10, 24), "weight": (24,), "bias": (24,)},
        lambda ops, p: ops.layer_norm(p["x"], p["weight"], p["bias"], 1e-12),
    ),
    "gelu": ({"x": (40, 24)}, lambda ops, p: ops.gelu(p["x"] * 3.0, False)),
    "gelu_tanh": ({"x": (40, 24)}, lambda ops, p: ops.gelu(p["x"] * 3.0, True)),
    "log_softmax": ({"x": (4, 10, 24)}, lambda ops, p: ops.log_softmax(p["x"])),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_rewritten_functions_and_their_gradients(name):
    shapes, function = REWRITTEN[name]
    generator = np.random.default_rng(0)
    parameters = {key: generator.standard_normal(shape).astype(np.float32) for key, shape in shapes.items()}
    reference = function(ReferenceOps(), {key: value.astype(np.float64) for key, value in parameters.items()})
    factors = generator.standard_normal(reference.shape).astype(np.float32)

    def objective(ops, params, frozen, batch):
        total = ops.sum(function(ops, params) * batch["factors"])
        return total, ops.stack([total])

    engine = make_engine()
    (values,) = engine.infer(lambda ops, params, batch: [function(ops, params)], parameters)({})
    assert np.abs(values - reference).max() <= TOLERANCE * np.abs(reference).max()
    _, gradients = engine.gradients(objective, parameters, {}, {"factors": factors})
    for key, gradient in gradients.items():
        expected = finite_differences(function, parameters, key, factors)
        assert np.abs(gradient - expected).max() <= TOLERANCE * np.abs(expected).max(), key


def finite_differences(function, parameters, key, factors, step=1e-5):
    """Central differences in float64 of sum(function * factors) by one parameter."""
    wide = {name: value.astype(np.float64) for name, value in parameters.items()}
    gradient = np.zeros(wide[key].shape)
    for index in np.ndindex(*gradient.shape):
        sums = []
        for sign in (1, -1):
            moved = wide[key].copy()
            moved[index] += sign * step
            sums.append((function(ReferenceOps(), {**wide, key: moved}) * factors).sum())
        gradient[index] = (sums[0] - sums[1]) / (2 * step)
    return gradient


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_far_from_zero(approximate):
    x = np.concatenate([np.linspace(-12, 12, 4001), [-1e4, 1e4]]).astype(np.float32)
    ops = make_engine().ops
    expected = ReferenceOps().gelu(x.astype(np.float64), approximate)
    found = ops.gelu(ops.constant(x), approximate).numpy()
    # Two roundings of 1 + erf, times x; far from zero nothing is left of them.
    near = np.abs(x) <= 7
    assert np.abs(found - expected)[near].max() <= 1e-6
    np.testing.assert_allclose(found[~near], expected[~near], rtol=1e-7, atol=1e-10)


def test_log_softmax_of_distant_logits():
    x = np.asarray([[1000.0, 0.0, -1000.0], [0.0, 0.0, 0.0], [1e-3, -1e-3, 0.0]], np.float32)
    ops = make_engine().ops
    np.testing.assert_allclose(
        ops.log_softmax(ops.constant(x)).numpy(), ReferenceOps().log_softmax(x.astype(np.float64)), rtol=3e-7, atol=3e-7
    )


def test_dropout_follows_the_seed():
    engine = make_engine()
    ones = engine.ops.constant(np.ones((300, 333), np.float32))  # not a multiple of the generator's word

    def mask(seed):
        engine.masks.reseed(seed)
        return engine.ops.dropout(ones, 0.1).numpy().copy()

    first = mask(1)
    np.testing.assert_array_equal(first, mask(1))
    assert (first != mask(2)).any() and (first != engine.ops.dropout(ones, 0.1).numpy()).any()
    np.testing.assert_allclose(np.unique(first), [0.0, 1.0 / 0.9], rtol=1e-5)  # the rate is rounded to 1/65536
    assert abs((first == 0).mean() - 0.1) < 0.005  # five deviations of the mean of 99 900 draws


def quadratic(ops, params, frozen, batch):
    """Dropout and a linear map: small, but every source of state is in it."""
    y = ops.linear(ops.dropout(batch["x"], 0.5), params["dense.weight"], params["dense.bias"])
    total = ops.sum(y * y)
    return total, ops.stack([total])


@pytest.mark.parametrize("optimizer", ["adamw", "bert_adam"])
def test_resumed_steps_are_the_same_bit_for_bit(optimizer):
    generator = np.random.default_rng(0)
    start = {
        "dense.weight": generator.standard_normal((8, 16)).astype(np.float32),
        "dense.bias": np.zeros(8, np.float32),
    }
    steps = [
        Step([{"x": generator.standard_normal((4, 16)).astype(np.float32)} for _ in range(2)], 1e-2, seed)
        for seed in range(6)
    ]
    engine = make_engine()

    def new():
        return engine.train_step(quadratic, start, {}, OptimizerSpec(optimizer))

    whole = new()
    expected = whole.run(iter(steps), 6).fetch()
    first, second = new(), new()
    losses = first.run(iter(steps[:3]), 3).fetch()
    saved = first.parameters(), first.state()
    first.run(iter(steps[3:]), 3).fetch()  # what was saved must be a copy
    second.restore(*saved)
    np.testing.assert_array_equal(np.concatenate([losses, second.run(iter(steps[3:]), 3).fetch()]), expected)
    for name, value in whole.parameters().items():
        np.testing.assert_array_equal(second.parameters()[name], value)
    for name, value in whole.state().items():
        np.testing.assert_array_equal(second.state()[name], value)


def test_gradient_norm_of_a_large_table():
    """OneFlow's own norm is 1% off here; the clipped gradient is seen in the first moment."""
    gradient = np.random.default_rng(0).standard_normal((30000, 128)).astype(np.float32)

    def objective(ops, params, frozen, batch):
        total = ops.sum(params["table"] * batch["gradient"])
        return total, ops.stack([total])

    step = make_engine().train_step(
        objective, {"table": np.zeros_like(gradient)}, {}, OptimizerSpec("adamw", max_gradient_norm=2.0)
    )
    step.run(iter([Step([{"gradient": gradient}], 1e-3, 0)]), 1).fetch()
    expected = 0.1 * gradient * (2.0 / np.sqrt(np.square(gradient, dtype=np.float64).sum()))
    np.testing.assert_allclose(step.state()["exp_avg/table"], expected, rtol=1e-6)


KERNELS = (
    "from crossdistil.core.engine import EngineOptions\n"
    "from crossdistil.backends.oneflow.engine import OneFlowEngine\n"
    "import os; print(OneFlowEngine(EngineOptions(device='cpu')).kernels['matrix products'], os.environ.get('OPENBLAS_CORETYPE'))"
)


@pytest.mark.parametrize("setting", [None, "Nehalem"])
def test_openblas_takes_the_fastest_kernels_unless_the_user_chooses(setting):
    environment = {name: value for name, value in os.environ.items() if name != SETTING} | ({SETTING: setting} if setting else {})
    done = subprocess.run([sys.executable, "-c", KERNELS], capture_output=True, text=True, check=True, env=environment)
    taken, left = done.stdout.split()
    assert left == str(setting)
    if setting or {"avx2", "fma"} <= flags():
        assert taken == (setting or "Haswell")


def test_other_kernels_than_those_of_the_start_are_told():
    engine = make_engine()
    now = engine.kernels["matrix products"]
    assert engine.keep_kernels({}) == engine.keep_kernels({"matrix products": now}) == []
    [line] = engine.keep_kernels({"matrix products": "Nehalem"})
    assert line == (
        f"matrix products: by {now}'s kernels; the run was started with Nehalem's, so the last bits differ; "
        "OPENBLAS_CORETYPE=Nehalem keeps them"
    )
