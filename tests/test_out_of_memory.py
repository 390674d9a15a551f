"""Memory that a framework does not get is one line: what the teacher takes of it, and what to do."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.backends.registry import load_module
from crossdistil.core.app.memory import weight_bytes
from crossdistil.core.checkpoint import load_model
from crossdistil.tests import tiny
from crossdistil.tests.wrong_input_files import crossdistil


def too_much(backend_name, engine=None):
    """Ask the framework for more than any machine has."""
    if backend_name == "torch":
        import torch

        torch.empty(1 << 46)
    engine.infer(squared, {})({"column": np.zeros((1 << 22, 1), np.float32)})


def squared(ops, params, batch):
    return [ops.matmul(batch["column"], ops.transpose(batch["column"], (1, 0)))]


@pytest.mark.only_backend("torch", "mindspore")  # OneFlow 0.9 ends the process
def test_the_frameworks_own_error_is_known(backend_name, engine):
    with pytest.raises(Exception) as caught:
        too_much(backend_name, engine)
    assert engine.out_of_memory(caught.value), caught.value
    assert not engine.out_of_memory(RuntimeError("shapes do not match")) and not engine.out_of_memory(ValueError("out of memory"))


@pytest.fixture
def refused(tmp_path, tiny_task, tiny_model, backend_name, monkeypatch):
    """`refused(command, **changes)`: the line that a command says whose teacher does not fit the device."""
    tree = tiny.kd_recipe(tiny_task, tiny_model) | {"teacher_cache": {"folder": str(tmp_path / "cache")}}
    engine = load_module(backend_name, "engine").TorchEngine
    monkeypatch.setattr(engine, "load_frozen", lambda self, parameters: too_much(backend_name))

    def refused(command, *options, **changes):
        (tmp_path / "recipe.yaml").write_text(json.dumps(tree | changes))
        answer = crossdistil(*command, tmp_path / "recipe.yaml", "--backend", backend_name, "--device", "cpu", *options)
        assert answer.code == 2 and "Traceback" not in answer.stderr and not (tmp_path / "run").exists()
        (line,) = answer.messages
        return line

    return refused


@pytest.mark.only_backend("torch")
def test_a_teacher_that_does_not_fit(refused, tmp_path, tiny_model):
    size = sum(array.nbytes for array in load_model(tiny_model).parameters.values())
    run = ("run", "--out", tmp_path / "run")
    line = refused(run)
    assert line.startswith("cpu: there is not enough memory ([enforce fail")
    assert (
        f"the weights of 'teacher' take {size:,} bytes of it in fp32; with its outputs cached before, by `crossdistil cache"
        in line
    )
    assert line.endswith("a smaller train.batch_size, a larger train.gradient_accumulation or --precision bf16 helps")
    line = refused(run, "--precision", "bf16")
    smaller = weight_bytes(load_model(tiny_model), "bf16")
    assert size / 2 < smaller < size and f"take {smaller:,} bytes of it in bf16" in line and "--precision" not in line
    assert "on any machine and teacher_cache.use: always, none of that" in refused(run, teacher_cache={"use": "never"})
    assert "cached before" not in refused(run, teacher_dropout=True)
    line = refused(("cache", "teacher"))
    assert f"take {size:,} bytes of it in fp32; a device with more memory or --precision bf16 helps" in line
