"""What concerns PyTorch alone: its float32 linear maps on a CPU, and the compiled step."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from crossdistil.core.app.api import run
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.errors import BackendError
from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.objective import Objective, Teachers
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.training import Trainer
from crossdistil.tests import tiny

pytestmark = pytest.mark.only_backend("torch")


@pytest.fixture
def kernels(monkeypatch):
    """The module that chooses, on a machine of which nothing is set."""
    from crossdistil.backends.torch import linear

    monkeypatch.delenv(linear.SETTING, raising=False)
    yield linear
    monkeypatch.undo()
    linear.choose()


@pytest.mark.parametrize("rows", [7, 96])  # below and above the number from which oneDNN is called
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("kernel", ["onednn", "pytorch"])
def test_linear_maps_are_exact_in_value_and_gradient(kernels, rows, strided, kernel):
    import torch

    assert kernels.choose(kernel) == kernel
    generator = np.random.default_rng(rows)
    x, weight, bias, gradient = (generator.normal(size=size) for size in ((rows, 2, 24), (40, 24), (40,), (rows, 40)))
    tensors = [torch.tensor(array, dtype=torch.float32, requires_grad=True) for array in (x, weight, bias)]
    inputs = tensors[0][:, 1] if strided else tensors[0][:, :1].reshape(rows, 24)
    result = kernels.linear(inputs, tensors[1], tensors[2])
    result.backward(torch.tensor(gradient, dtype=torch.float32))
    taken = x[:, 1] if strided else x[:, 0]
    by_x = np.zeros_like(x)
    by_x[:, 1 if strided else 0] = gradient @ weight
    expected = [taken @ weight.T + bias, by_x, gradient.T @ taken, gradient.sum(0)]
    for found, wanted in zip([result.detach(), *(tensor.grad for tensor in tensors)], expected):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [3, 96])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_weight_in_the_layout_of_the_kernel_is_the_same_weight(kernels, monkeypatch, rows, precision):
    import torch

    from crossdistil.backends.torch.engine import TorchEngine

    monkeypatch.setenv(kernels.SETTING, "onednn")
    engine, generator = TorchEngine(EngineOptions("cpu", precision)), np.random.default_rng(rows)
    given = {name: generator.normal(size=size).astype(np.float32) for name, size in (("a.weight", (40, 24)), ("a.bias", (40,)))}
    frozen, trained = engine.load_frozen(given), engine.load(given, trainable=True)
    array, results = generator.normal(size=(rows, 24)).astype(np.float32), []
    for params in (frozen, frozen, trained):
        x = torch.tensor(array, requires_grad=True)
        y = engine.ops.linear(x, params["a.weight"], params["a.bias"])
        y.float().square().sum().backward()
        results.append((y.detach().float(), x.grad))
    expected = array @ given["a.weight"].T + given["a.bias"]
    tolerance = 1e-5 if precision == "fp32" else 0.02
    for y, by_x in results:
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=10 * tolerance)
        np.testing.assert_allclose(by_x, 2 * expected @ given["a.weight"], rtol=tolerance, atol=50 * tolerance)
    assert frozen["a.weight"].is_mkldnn or kernels._OPERATOR is None or precision == "bf16"
    # Elsewhere it is taken as it was given, and by other kernels too.
    turned = engine.ops.transpose(frozen["a.weight"], (1, 0))
    np.testing.assert_allclose(turned.float(), given["a.weight"].T, rtol=tolerance)
    kernels.choose("pytorch")
    again = engine.ops.linear(torch.tensor(array), frozen["a.weight"], frozen["a.bias"])
    np.testing.assert_allclose(again.float(), expected, rtol=tolerance, atol=10 * tolerance)


PROCESSORS = [
    ("AMD", "AVX512", "onednn"),
    ("AMD", "AVX2", "pytorch"),
    ("Intel", "AVX512", "pytorch"),
    ("unknown", "DEFAULT", "pytorch"),
]


@pytest.mark.parametrize(("vendor", "capability", "expected"), PROCESSORS)
def test_the_processor_chooses_unless_the_user_does(kernels, monkeypatch, vendor, capability, expected):
    monkeypatch.setattr(kernels, "vendor", lambda: vendor)
    monkeypatch.setattr(kernels, "get_cpu_capability", lambda: capability)
    assert kernels.choose() == expected
    for name in kernels.CHOICES:
        monkeypatch.setenv(kernels.SETTING, name)
        assert kernels.choose() == name
    monkeypatch.setenv(kernels.SETTING, "onedn")
    with pytest.raises(BackendError, match="^CROSSDISTIL_LINEAR: got 'onedn', expected onednn or pytorch; did you mean 'onednn'"):
        kernels.choose()


def test_a_resumed_run_keeps_its_kernels(kernels, monkeypatch, tmp_path, tiny_task, tiny_model):
    class Stopped(Exception):
        pass

    def stop(self, step):
        save(self, step)
        if step == 4:
            raise Stopped

    save = Trainer._save
    tree = tiny.kd_recipe(tiny_task, tiny_model, steps=8, save_every=4)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(tree))
    monkeypatch.setattr(kernels, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(kernels, "vendor", lambda: "AMD")
    whole = run(path, out=tmp_path / "whole", backend="torch", quiet=True)
    assert whole["kernels"] == {"linear": "onednn", "dropout": "masks of 16 bits"} and whole["threads"] >= 1
    for folder, setting in (("kept", None), ("told", "pytorch")):
        monkeypatch.setattr(kernels, "vendor", lambda: "AMD")
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(Trainer, "_save", stop)
            run(path, out=tmp_path / folder, backend="torch", quiet=True)
        monkeypatch.setattr(kernels, "vendor", lambda: "Intel")
        if setting is not None:
            monkeypatch.setenv(kernels.SETTING, setting)
        result = run(path, out=tmp_path / folder, backend="torch", resume=True, quiet=True)
        assert result["kernels"] == {"linear": setting or "onednn", "dropout": "masks of 16 bits"}
    expected, found = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "kept"))
    assert all(np.array_equal(found[name], array) for name, array in expected.items())


def test_another_kernel_than_the_recorded_is_told(kernels, monkeypatch):
    monkeypatch.setattr(kernels, "vendor", lambda: "Intel")
    from crossdistil.backends.torch.engine import TorchEngine

    engine = TorchEngine(EngineOptions("cpu"))
    masks = {"dropout": engine.kernels["dropout"]}
    assert engine.keep_kernels({"linear": "pytorch"} | masks) == engine.keep_kernels(masks) == []
    [line] = engine.keep_kernels({"linear": "onednn"} | masks)
    assert line == "linear maps: by onednn, as in the process that started the run; this one would take pytorch"
    assert engine.kernels == {"linear": "onednn"} | masks
    monkeypatch.setenv(kernels.SETTING, "pytorch")
    [line] = TorchEngine(EngineOptions("cpu")).keep_kernels({"linear": "onednn"} | masks)
    assert line.startswith("linear maps: by pytorch, since CROSSDISTIL_LINEAR says; the run was started with onednn")
    monkeypatch.setattr(kernels, "_OPERATOR", None)
    monkeypatch.delenv(kernels.SETTING)
    [line] = TorchEngine(EngineOptions("cpu")).keep_kernels({"linear": "onednn"} | masks)
    assert "oneDNN's operator is missing here" in line


def test_a_compiled_step_is_the_eager_step(make_engine):
    config = tiny.STILL.model_copy(update={"num_hidden_layers": 1})
    context = TermContext(outputs=2, kind=ONE_CLASS, student=config)
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


STEPS = """
import sys
import torch
from crossdistil.backends.torch.optimizer import make_optimizer
from crossdistil.core.optimizers import OptimizerSpec, OwnUpdate

own = OwnUpdate(lambda ops, parameter, gradient, state, now: (parameter - gradient * now["rate"], state), ())
for spec in (*map(OptimizerSpec, ("adamw", "bert_adam", "adadelta")), OptimizerSpec("own", own=own)):
    tensor = torch.ones(2, requires_grad=True)
    tensor.grad = torch.ones(2)
    make_optimizer({"a.weight": tensor}, spec).step(0.1, torch.zeros(()), None)
    assert (tensor != 1).all()
print([name for name in sys.modules if name.startswith("torch._dynamo")])
"""


def test_an_optimizer_does_not_load_the_compiler():
    """Whose import takes longer than all the rest of a start."""
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
