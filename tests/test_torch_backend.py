"""What concerns PyTorch alone: its float32 linear maps on a CPU, and the compiled step."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.engine import Step
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.tests import tiny

pytestmark = pytest.mark.only_backend("torch")


@pytest.mark.parametrize("rows", [7, 96])  # below and above the number from which oneDNN is called
@pytest.mark.parametrize("strided", [False, True])
def test_linear_maps_are_exact_in_value_and_gradient(rows, strided):
    import torch

    from crossdistil.backends.torch.linear import linear

    generator = np.random.default_rng(rows)
    x, weight, bias, gradient = (generator.normal(size=size) for size in ((rows, 2, 24), (40, 24), (40,), (rows, 40)))
    tensors = [torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in (x, weight, bias)]
    inputs = tensors[0][:, 1] if strided else tensors[0][:, :1].reshape(rows, 24)
    result = linear(inputs, tensors[1], tensors[2])
    result.backward(torch.tensor(gradient, dtype=torch.float32))
    taken = x[:, 1] if strided else x[:, 0]
    by_x = np.zeros_like(x)
    by_x[:, 1 if strided else 0] = gradient @ weight
    expected = [taken @ weight.T + bias, by_x, gradient.T @ taken, gradient.sum(0)]
    for found, wanted in zip([result.detach(), *(tensor.grad for tensor in tensors)], expected):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


def test_a_compiled_step_is_the_eager_step(make_engine):
    config = tiny.STILL.model_copy(update={"num_hidden_layers": 1})
    context = TermContext(outputs=2, regression=False, student=config)
    objective = Objective([LOSSES["hard_label"](loss="hard_label")], context, Teachers({}))
    batches = [tiny.random_batch(rows=8, length=12, seed=seed) for seed in range(2)]  # 96 tokens
    found = {}
    for compiled in (False, True):
        step = make_engine(compile=compiled).train_step(
            objective.function, tiny.random_parameters(config), {}, OptimizerSpec("adamw", epsilon=1e-2)
        )
        steps = [Step(objective.prepare([batch]), 1e-3, 0) for batch in batches]
        found[compiled] = step.run(iter(steps), len(steps)).fetch()
    np.testing.assert_allclose(found[True], found[False], rtol=1e-5)
