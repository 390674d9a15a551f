"""What only the MindSpore backend has: data sinking, and the devices and precisions that it refuses."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.errors import BackendError
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.place import Place

pytestmark = pytest.mark.only_backend("mindspore")

WORDS, WIDTH, ROWS = 50, 16, 4
SEVERAL = Place(3, 8, 3, "the launcher")


def make_engine(**options):
    from crossdistil.backends.mindspore.engine import MindSporeEngine

    return MindSporeEngine(EngineOptions(**options))


def make_objective(rate=0.1):
    """Of texts whose classes are learned from their words: it compiles fast, and what it computes does not matter here."""

    def objective(ops, parameters, frozen, batch):
        states = ops.dropout(ops.tanh(ops.embedding(parameters["words.weight"], batch["ids"])), rate) * batch["mask"]
        logits = ops.linear(ops.sum(states, axis=1), parameters["dense.weight"], parameters["dense.bias"])
        total = -ops.sum(ops.pick(ops.log_softmax(logits), batch["labels"])) / batch["denominators"][0]
        return total, ops.stack([total, total])

    return objective


def make_batches(lengths):
    """A batch for each length, all different."""
    random = np.random.default_rng(0)
    return [
        {
            "ids": random.integers(0, WORDS, (ROWS, length)).astype(np.int32),
            "mask": np.ones((ROWS, length, 1), np.float32),
            "labels": random.integers(0, 2, ROWS).astype(np.int32),
            "denominators": np.full(1, ROWS, np.float32),
        }
        for length in lengths
    ]


def make_steps(parts):
    """A step for each list of micro-batches, all with a rate of their own."""
    return [Step(micro_batches, 1e-3 * (index % 7 + 1), index) for index, micro_batches in enumerate(parts)]


def new_train_step(objective, **options):
    random = np.random.default_rng(3)
    shapes = {"words.weight": (WORDS, WIDTH), "dense.weight": (2, WIDTH), "dense.bias": (2,)}
    parameters = {name: random.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    return make_engine(**options).train_step(objective, parameters, {}, OptimizerSpec("adamw", weight_decay=0.1))


def test_sunk_steps_are_the_unsunk_steps():
    # Runs longer than a sink, runs of one step, and a last sink that is not full.
    lengths = [8] * 130 + [6, 8] * 10 + [6] * 100
    objective = make_objective()
    steps = make_steps([[batch] for batch in make_batches(lengths)])
    assert len(steps) == 250
    unsunk, sunk = new_train_step(objective), new_train_step(objective, steps_per_call=100)
    expected = unsunk.run(iter(steps), 250).fetch()
    remaining = iter([*steps, steps[0]])
    dispatched = []
    found = sunk.run(remaining, 250, dispatched.append).fetch()
    assert dispatched == [100, 30, *[1] * 20, 100]  # a sink at a time, and the one after 20 of one step each is full
    assert next(remaining) is steps[0], "one step too many was taken"
    assert found.shape == (250, 3)
    np.testing.assert_array_equal(found, expected)
    for name, array in unsunk.parameters().items():
        np.testing.assert_array_equal(sunk.parameters()[name], array, err_msg=name)
    for name, array in unsunk.state().items():
        np.testing.assert_array_equal(sunk.state()[name], array, err_msg=name)


def test_training_with_dropout_resumes_bit_for_bit():
    objective = make_objective()
    steps = make_steps([[batch] for batch in make_batches([8] * 6)])
    first, second = new_train_step(objective), new_train_step(objective)
    first.run(iter(steps), 3).fetch()
    second.run(iter(steps), 1).fetch()  # its graph is compiled and has run, which hides Parameter.set_data from it
    second.restore(first.parameters(), first.state())
    np.testing.assert_array_equal(first.run(iter(steps[3:]), 3).fetch(), second.run(iter(steps[3:]), 3).fetch())
    for name, array in first.parameters().items():
        np.testing.assert_array_equal(second.parameters()[name], array, err_msg=name)


def test_steps_with_several_micro_batches_are_run_unsunk_and_learn_what_the_whole_batch_teaches():
    """Of several lengths within a step, each of which is a graph."""
    parts, wholes = [], []
    for first, second in zip(make_batches([8, 8, 8]), make_batches([6, 6, 6])):
        second = second | {"labels": 1 - first["labels"]}
        for each in (first, second):
            each["denominators"] = np.full(1, 2 * ROWS, np.float32)
        padded = {"ids": ((0, 0), (0, 2)), "mask": ((0, 0), (0, 2), (0, 0)), "labels": ((0, 0),)}
        whole = {name: np.concatenate([first[name], np.pad(second[name], widths)]) for name, widths in padded.items()}
        parts.append([first, second])
        wholes.append([whole | {"denominators": first["denominators"]}])
    objective = make_objective(rate=0.0)
    found = new_train_step(objective, steps_per_call=100).run(iter(make_steps(parts)), 3).fetch()
    expected = new_train_step(objective).run(iter(make_steps(wholes)), 3).fetch()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ptp(found[:, 0]) > 1e-3


@pytest.mark.parametrize("name", ["adamw", "bert_adam", "adadelta"])
def test_written_out_optimizer_is_the_fused_one(name):
    """The CPU uses a fused kernel; Ascend the written-out update, which is held against it here."""
    import mindspore as ms

    from crossdistil.backends.mindspore.optimizer import Optimizer

    make_engine()
    random = np.random.default_rng(0)
    start = {"a.weight": random.standard_normal((5, 3)), "a.bias": random.standard_normal(5)}
    gradients = [{key: random.standard_normal(value.shape) for key, value in start.items()} for _ in range(20)]
    ends = []
    for fused in (True, False):
        params = {key: ms.Parameter(ms.Tensor(value.astype(np.float32)), name=key) for key, value in start.items()}
        optimizer = Optimizer(params, OptimizerSpec(name, weight_decay=0.1), fused)
        update = optimizer.update

        def apply(gradients, numbers, loss, update=update):
            update(gradients, numbers, loss)
            return numbers

        compiled = ms.jit(apply)
        for gradient in gradients:
            arguments = ms.mutable([ms.Tensor(gradient[key].astype(np.float32)) for key in params])
            compiled(arguments, ms.Tensor(optimizer.numbers(0.01)), ms.Tensor(0.0, ms.float32))
        ends.append({key: parameter.asnumpy() for key, parameter in params.items()})
    for key in start:
        np.testing.assert_allclose(ends[0][key], ends[1][key], rtol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "ascend"}, "finds no Ascend NPU"),
        ({"device": "ascend:x"}, "expected ascend or ascend:<number>"),
        ({"device": "cuda"}, "has cpu and ascend"),
        ({"device": "cpu", "precision": "bf16"}, "no bf16 matrix product on cpu"),
        ({"device": "cpu", "precision": "fp16"}, "loss scale"),
        ({"device": "cpu", "precision": "int8"}, "fp32, bf16"),
        ({"device": "cpu", "steps_per_call": 0}, "steps_per_call 0"),
        ({"device": "ascend:3", "place": SEVERAL}, "device 'ascend:3': each of 8 processes has its own; name the kind, ascend"),
        ({"device": "ascend", "place": SEVERAL}, "finds no Ascend NPU"),
    ],
)
def test_refusals_are_one_line(options, words, monkeypatch):
    import mindspore as ms

    # So that the answer is the same on a machine that has one.
    monkeypatch.setattr(ms.hal, "is_available", lambda device: False)
    with pytest.raises(BackendError, match=words) as caught:
        make_engine(**options)
    assert "\n" not in str(caught.value)


def test_probing_and_failing_leave_no_noise_and_no_files(tmp_path):
    program = """
import os
from crossdistil.core.engine import EngineOptions
from crossdistil.backends.mindspore.engine import MindSporeEngine
import numpy as np
engine = MindSporeEngine(EngineOptions())
run = engine.infer(lambda_free, {})
try:
    run({"x": np.zeros((2, 3), np.float32)})
except ValueError:
    print("refused", os.listdir("."))
"""
    source = "def lambda_free(ops, params, batch):\n    return [ops.reshape(batch['x'], (7, 11))]\n" + program
    script = tmp_path / "scripts" / "program.py"
    script.parent.mkdir()
    script.write_text(source)
    (tmp_path / "empty").mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("GLOG_v", "MS_OM_PATH")}
    result = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True
    )
    assert result.stdout.strip() == "refused []", result.stderr


def test_each_process_of_a_machine_has_its_own_device(monkeypatch):
    import mindspore as ms

    from crossdistil.backends.mindspore.engine import count_devices, resolve_device

    monkeypatch.setattr(ms.hal, "is_available", lambda device: True)
    monkeypatch.setattr(ms.device_context.ascend, "device_count", lambda: 8)
    assert [resolve_device(name, SEVERAL) for name in (None, "ascend", "npu", "cpu")] == [*[("Ascend", 3)] * 3, ("CPU", 0)]
    assert [resolve_device(name) for name in (None, "ascend", "ascend:3")] == [("Ascend", 0), ("Ascend", 0), ("Ascend", 3)]
    assert [count_devices(kind) for kind in (None, "ascend", "npu", "cpu")] == [8, 8, 8, 0]
    monkeypatch.setattr(ms.hal, "is_available", lambda device: False)
    assert count_devices(None) == 0


def test_a_shared_step_is_one_sum_of_gradients_and_values(monkeypatch):
    """Its bytes, and that what is summed comes back in its place: of a process whose others add nothing."""
    import mindspore as ms

    from crossdistil.backends.mindspore import collective

    make_engine()
    calls = []

    def doubled(flat):
        calls.append(flat.shape)
        return flat * 2

    monkeypatch.setattr(collective.P, "AllReduce", lambda: doubled)
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(4, np.float32), np.full((2, 1, 2), 7, np.float32)]
    total = collective.make_total([array.shape for array in arrays])
    gradients, values = total([ms.Tensor(array) for array in arrays], ms.Tensor(np.array([0.5, 1.5], np.float32)))
    assert calls == [(6 + 4 + 4 + 2,)]
    for found, array in zip([*gradients, values], [*arrays, np.array([0.5, 1.5])]):
        np.testing.assert_array_equal(found.asnumpy(), array * 2)


USED = """
import mindspore as ms, numpy as np
assert (ms.Tensor(np.ones(3, np.float32)) + 1).asnumpy().sum() == 6
from crossdistil.backends.registry import load_engine
from crossdistil.core.engine import EngineOptions
engine = load_engine("mindspore", EngineOptions("cpu"))
print(engine.device, engine.total(np.ones(2, np.float32)).sum(), end="")
"""


def test_a_process_that_has_computed_with_mindspore_before_goes_on():
    """A user's own session, in which MindSpore takes no choice of a device any more."""
    done = subprocess.run([sys.executable, "-c", USED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "cpu 2.0"), done.stderr
