"""What plugins bring beside losses and metrics: learning-rate schedules and optimizers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from crossdistil.core.errors import CrossdistilError, RecipeError
from crossdistil.core.plugin_optimizers import trial_objective, trial_parameters, trial_spec, trial_steps
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.core.registered import RegisteredOptimizer
from crossdistil.core.states import layout_of
from crossdistil.tests import tiny

SCHEDULE = """
from crossdistil import register_schedule


def halves(progress):
    return 0.5 ** (4 * progress)


register_schedule("halves", halves)
"""


def write_recipe(folder: Path, code: str, **train) -> Path:
    (folder / "mine.py").write_text(code)
    tree = tiny.kd_recipe(folder / "task", folder / "model", **train)
    tree["plugins"] = ["mine.py"]
    (folder / "recipe.yaml").write_text(json.dumps(tree))
    return folder / "recipe.yaml"


@pytest.fixture
def world(tmp_path):
    tiny.write_task(tmp_path / "task", 24, 12)
    tiny.write_model(tmp_path / "model")
    return tmp_path


def test_a_schedule_is_chosen_by_its_name_and_warms_up_as_every_other(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path, SCHEDULE, steps=10, schedule="halves", warmup=0.2))
    factor = recipe.stages[0].train.factor(10)
    expected = [0, 0.5, *(0.5 ** (4 * step / 8) for step in range(8))]
    assert [factor(step) for step in range(10)] == pytest.approx(expected)
    again = parse_recipe(json.loads(json.dumps(recipe.resolved())), "again")
    assert again.digest() == recipe.digest() and again.stages[0].train.factor(10)(5) == factor(5)
    with pytest.raises(RecipeError, match=r"stages\[0\].train.schedule: unknown value 'halfs'; did you mean 'halves'"):
        load_recipe(write_recipe(tmp_path, SCHEDULE, steps=10, schedule="halfs"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("0.5 **", "-0.5 **", r"mine.py:5: schedule 'halves' returns -1.0 at 0, expected a finite number from 0 on"),
        ("0.5 **", "float('inf') *", r"mine.py:5: schedule 'halves' returns nan at 0"),
        ("(4 * progress)", "(1 / progress)", r"mine.py:6: schedule 'halves' fails at 0: ZeroDivisionError"),
        ('"halves"', '"cosine"', r"mine.py:9: schedule 'cosine': crossdistil has one of this name"),
        (", halves)", ", 3)", r"mine.py:9: schedule 'halves': expected a function, got 3"),
    ],
)
def test_a_wrong_schedule_is_told_with_its_line(tmp_path, before, after, message):
    with pytest.raises(CrossdistilError) as raised:
        load_recipe(write_recipe(tmp_path, SCHEDULE.replace(before, after), steps=2))
    assert re.search(message, str(raised.value)) and len(str(raised.value).splitlines()) == 1, raised.value


@pytest.mark.only_backend("torch")
def test_a_run_takes_the_learning_rates_of_a_schedule(world, said):
    recipe = write_recipe(world, SCHEDULE, steps=4, schedule="halves", warmup=0, log_every=1, learning_rate=1e-3)
    code, printed, errors = said("run", recipe, "--out", world / "out", "--backend", "torch")
    assert code == 0 and "schedule halves" in printed, errors
    lines = [json.loads(line) for line in (world / "out" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "learning_rate" in line]
    assert rates == pytest.approx([1e-3 * math.pow(0.5, step) for step in range(4)])


OPTIMIZER = """
import numpy as np
from crossdistil import register_optimizer


def lion(ops, parameter, gradient, state, now):  # Chen et al. 2023, algorithm 2
    [mean] = state
    mixed = mean * now["beta1"] + gradient * (1 - now["beta1"])
    sign = ops.above(mixed, 0.0) - ops.above(mixed * -1.0, 0.0)
    changed = parameter - (sign + parameter * now["decay"]) * now["rate"]
    return changed, [mean * now["beta2"] + gradient * (1 - now["beta2"])]


def formula(parameter, gradient, state, now):
    [mean] = state
    sign = np.sign(mean * now["beta1"] + gradient * (1 - now["beta1"]))
    return parameter - now["rate"] * (sign + now["decay"] * parameter), (mean * now["beta2"] + gradient * (1 - now["beta2"]),)


register_optimizer("lion", lion, state=["mean"], numpy=formula)


def adam(ops, parameter, gradient, state, now):
    mean, square = state
    mean = mean * now["beta1"] + gradient * (1 - now["beta1"])
    square = square * now["beta2"] + gradient * gradient * (1 - now["beta2"])
    way = mean / now["correction1"] / (ops.sqrt(square / now["correction2"]) + now["epsilon"])
    return parameter - (way + parameter * now["decay"]) * now["rate"], (mean, square)


register_optimizer("own_adam", adam, state=["mean", "square"])
"""


@pytest.mark.backend
def test_check_compares_optimizers_with_their_formula(tmp_path, engine, said):
    (tmp_path / "mine.py").write_text(OPTIMIZER)
    code, printed, errors = said("check", tmp_path / "mine.py", "--backends", engine.name, "--json")
    assert code == 0, errors
    rows = json.loads(printed)
    found = [(row["loss"], row["where"]) for row in rows]
    assert found == [("lion", "NumPy"), ("lion", engine.name), ("own_adam", engine.name)]
    assert all(row["ok"] and row["difference"] < 1e-5 for row in rows)
    assert "own_adam: has no NumPy formula" in errors


@pytest.mark.only_backend("torch", "oneflow")
def test_an_own_adam_trains_as_ours(world, engine, said):
    """The framework's AdamW is the judge of `own_adam`, which is written from the paper."""
    weights = {}
    for name in ("own_adam", "adamw"):
        recipe = write_recipe(world, OPTIMIZER, steps=4, optimizer=name, learning_rate=1e-3, dropout=0)
        code, printed, errors = said("run", recipe, "--out", world / name, "--backend", engine.name)
        assert code == 0, errors
        weights[name] = load_file(world / name / "student" / "model.safetensors")
    start = load_file(world / "model" / "model.safetensors")
    way = max(np.abs(weights["adamw"][name] - start[name]).max() for name in weights["adamw"] if name in start)
    for name, array in weights["adamw"].items():
        np.testing.assert_allclose(weights["own_adam"][name], array, rtol=0, atol=2e-3 * way, err_msg=name)


@pytest.mark.backend
@pytest.mark.parametrize("name", ["lion", pytest.param("own_adam", marks=pytest.mark.only_backend("torch", "oneflow"))])
def test_an_own_optimizer_goes_on_from_its_state(tmp_path, engine, name):
    recipe = load_recipe(write_recipe(tmp_path, OPTIMIZER, steps=2))
    optimizer = recipe.registered.of(RegisteredOptimizer)[name]
    steps, spec, start = trial_steps(), trial_spec(optimizer), trial_parameters()
    unbroken, second = (engine.train_step(trial_objective, start, {}, spec) for _ in range(2))
    unbroken.run(iter(steps[:2]), 2).fetch()
    middle, state = unbroken.parameters(), unbroken.state()
    assert layout_of(state) == unbroken.state_layout()
    unbroken.run(iter(steps[2:]), 2).fetch()
    second.restore(middle, state)
    second.run(iter(steps[2:]), 2).fetch()
    for tensor, array in unbroken.parameters().items():
        np.testing.assert_array_equal(second.parameters()[tensor], array, err_msg=tensor)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("return changed, [", "return changed, [], [", r"mine.py:6: optimizer 'lion' returns something else than .* \(mean\)"),
        ("[mean] = state\n    mixed", "mixed", r"mine.py:7: optimizer 'lion' fails on NumPy: NameError"),
        ('now["rate"]\n', 'now["speed"]\n', r"mine.py:10: optimizer 'lion' fails on NumPy: KeyError: 'speed'"),
        ("return changed, ", "return ops.sum(changed), ", r"mine.py:6: optimizer 'lion' returns a parameter of shape \(\)"),
        ('state=["mean"], ', "", r"optimizer 'lion' fails on NumPy: ValueError|returns something else than"),
        ('state=["mean"]', 'state="mean"', r"optimizer 'lion': state: expected different names"),
        ('"lion", lion', '"adamw", lion', r"optimizer 'adamw': crossdistil has one of this name"),
        ('"lion", lion', '"lion", formula', r"optimizer 'lion': formula takes other arguments than \(ops, parameter"),
    ],
)
def test_a_wrong_optimizer_is_told_with_its_line(tmp_path, before, after, message):
    assert before in OPTIMIZER
    with pytest.raises(CrossdistilError) as raised:
        load_recipe(write_recipe(tmp_path, OPTIMIZER.replace(before, after, 1), steps=2))
    assert re.search(message, str(raised.value)) and len(str(raised.value).splitlines()) == 1, raised.value


@pytest.mark.only_backend("torch")
def test_an_optimizer_that_a_backend_takes_otherwise_is_refused_before_the_first_step(world, said):
    uneven = OPTIMIZER.replace("sign + parameter", "(0.5 if type(mean) is not np.ndarray else 1.0) * sign + parameter")
    recipe = write_recipe(world, uneven, steps=2, optimizer="lion")
    code, _, errors = said("run", recipe, "--out", world / "out", "--backend", "torch")
    assert code == 2 and "optimizer 'lion' moves parameters otherwise on torch" in errors and not (world / "out").exists()
    with pytest.raises(RecipeError, match="train.optimizer: unknown value 'lionn'; did you mean 'lion'"):
        load_recipe(recipe, ["stages.0.train.optimizer=lionn"])
