"""Losses of a user's own file: trained with, compared with their formula by `check`, and told where they fail."""

from __future__ import annotations

import json
import re

import pytest

import crossdistil
from crossdistil.core.recipe import load_recipe
from crossdistil.tests.plugin_files import LOSS, write_recipe, write_world


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


BODY = "return sum_rows(ops, ops.sum(difference * difference, axis=1), batch)"
FAILS = {
    "a shape": ("return ops.sum(difference * difference, axis=1)", r"loss 'apart' returns an array \(4,\), expected one number"),
    "no tensor": ("return None", r"loss 'apart' returns NoneType, expected one number"),
    "not a number": (
        "return sum_rows(ops, ops.sum(ops.log(difference - 1e9), axis=1), batch)",
        r"my_losses.py:15: loss 'apart' is nan on random inputs",
    ),
    "no op": ("return ops.absolute(difference)", r"my_losses.py:20: loss 'apart' fails on NumPy: ops has no 'absolute'"),
    "no output": ("return student['hidden/1']", r"my_losses.py:20: loss 'apart' fails on NumPy: there is no 'hidden/1'"),
    "a bug": ("return sum_rows(ops, difference, batch) / [][0]", r"my_losses.py:20: loss 'apart' fails on NumPy: "),
}


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", FAILS)
def test_a_loss_that_fails_is_told_before_the_first_step(world, name, said):
    body, message = FAILS[name]
    (world / "my_losses.py").write_text(LOSS.replace(BODY, body))
    code, _, errors = said("run", write_recipe(world), "--out", world / "out", "--backend", "torch")
    assert code == 2 and re.search(message, errors), errors
    assert len(errors.splitlines()) == 1 and not (world / "out").exists()


@pytest.mark.only_backend("torch")
def test_a_loss_that_a_backend_cannot_compute_is_told_with_its_line(world, said):
    (world / "my_losses.py").write_text(LOSS.replace(BODY, "return np.sum(np.abs(np.asarray(difference)))"))
    code, _, errors = said("run", write_recipe(world), "--out", world / "out", "--backend", "torch")
    assert code == 2 and "my_losses.py:20: loss 'apart' fails on torch: RuntimeError" in errors, errors
    uneven = BODY + " * (2.0 if isinstance(difference, np.ndarray) else 1.0)"
    (world / "my_losses.py").write_text(LOSS.replace(BODY, uneven))
    code, _, errors = said("run", write_recipe(world), "--out", world / "out", "--backend", "torch")
    assert code == 2 and "in NumPy float64, on the same random inputs; crossdistil check" in errors, errors


@pytest.mark.backend
def test_a_loss_of_a_file_trains_and_its_run_goes_on(world, engine, said):
    out = world / "out"
    recipe = write_recipe(world, steps=2, save_every=1)
    code, printed, errors = said("run", recipe, "--out", out, "--backend", engine.name)
    assert code == 0, errors
    assert f"plugin {world / 'my_losses.py'}: loss apart" in printed and "0.5 x apart" in printed
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("apart" in line.get("terms", {}) for line in lines)
    (out / "result.json").unlink()
    code, printed, errors = said("run", "--resume", "--out", out)
    assert code == 0, errors
    assert f"recipe.yaml: names the plugin {world / 'my_losses.py'}, whose code runs now" in printed
    (out / "result.json").unlink()
    (world / "my_losses.py").write_text(LOSS + "raise SystemExit('was executed')\n")
    for command in (["--resume"], [recipe, "--resume"]):
        code, printed, errors = said("run", *command, "--out", out, "--backend", engine.name)
        assert code == 2 and ("has changed since" in errors or "was executed" in errors)
        assert "runs now" not in printed
    (world / "my_losses.py").unlink()
    code, printed, errors = said("run", "--resume", "--out", out)
    assert code == 2 and "no such file" in errors and "runs now" not in printed


@pytest.mark.only_backend("torch")
def test_a_worker_and_its_processes_load_the_same_file(world):
    """As a cross-check starts its runs: the recipe goes to a worker, which starts two processes."""
    recipe = write_recipe(world, steps=2)
    result = crossdistil.run(recipe, out=world / "out", backend="torch", devices=2)
    assert result["processes"] == 2 and result["recipe_digest"] == load_recipe(recipe).digest()


@pytest.mark.backend
def test_check_compares_the_formula_with_the_term(world, engine, said):
    code, printed, errors = said("check", world / "my_losses.py", "--backends", engine.name, "--json")
    assert code == 0, errors
    rows = json.loads(printed)
    assert all(row["ok"] for row in rows) and {row["where"] for row in rows} == {"NumPy", engine.name}
    assert {row["what"] for row in rows} == {"value", "other padding", "accumulation", "gradient, logits"}


DIFFERS = {
    "a factor": (BODY, BODY.replace("axis=1)", "axis=1) * 1.001"), "value"),
    "no mask": (BODY, "return ops.sum(difference * difference)", "other padding"),
    "a mean": (BODY, BODY + " / ops.shape(difference)[0]", "accumulation"),
    "half a gradient": (BODY, BODY.replace("difference *", "ops.stop_gradient(difference) *"), "gradient, logits"),
}


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", DIFFERS)
def test_check_finds_what_is_wrong(world, name, said):
    before, after, what = DIFFERS[name]
    (world / "my_losses.py").write_text(LOSS.replace(before, after))
    code, printed, errors = said("check", world / "my_losses.py", "--backends", "torch")
    assert code == 1, errors
    assert re.search(f"{what} .*✗ differs", printed), printed


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("cases=[{}, ", "cases=[{'temprature': 2}, ", r"my_losses.py:29: loss 'apart': cases: temprature: unknown key"),
        ("return np.mean(", "return 1 / 0 + np.mean(", r"my_losses.py:26: the NumPy formula of loss 'apart': ZeroDivisionError"),
        (LOSS, "", "registers nothing"),
    ],
)
def test_what_cannot_be_checked(world, before, after, message, said):
    (world / "my_losses.py").write_text(LOSS.replace(before, after))
    code, _, errors = said("check", world / "my_losses.py", "--backends", "torch")
    assert code == 2 and re.search(message, errors), errors


@pytest.mark.only_backend("torch")
def test_a_loss_without_a_formula_is_said_to_have_none(world, said):
    (world / "my_losses.py").write_text(LOSS.replace("numpy=formula, ", ""))
    code, printed, _ = said("check", world / "my_losses.py", "--backends", "torch")
    assert code == 0 and "apart: has no NumPy formula" in printed


TOKENS = '''
from typing import ClassVar, Literal
import numpy as np
from crossdistil import LossTerm, register_loss, token_mask


class Last(LossTerm):
    """Mean over tokens of the squared length of the difference of the last hidden states."""

    loss: Literal["last_hidden"]
    needs_teacher: ClassVar[bool] = True

    @property
    def unit(self):
        return "tokens"

    def student_outputs(self, context):
        return frozenset({f"hidden/{context.student.num_hidden_layers}"})

    def teacher_outputs(self, context):
        return {"teacher": frozenset({f"hidden/{context.teachers['teacher'].num_hidden_layers}"})}

    def problems(self, context):
        same = context.student.hidden_size == context.teachers["teacher"].hidden_size
        return [] if same else [("loss", "last_hidden needs models of one width")]

    def function(self, context, label):
        own = f"hidden/{context.student.num_hidden_layers}"
        other = f"teacher/hidden/{context.teachers['teacher'].num_hidden_layers}"

        def last_hidden(ops, params, student, teacher, batch):
            difference = student[own] - teacher[other]
            return ops.sum(ops.sum(difference * difference, axis=2) * token_mask(ops, batch))

        return last_hidden


def formula(student, teacher, batch):
    [s], [t] = student.values(), teacher.values()
    real = batch["attention_mask"] > 0
    return np.mean(np.sum((s[real] - t[real]) ** 2, axis=1))


register_loss(Last, numpy=formula)
'''


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("", "", 0),
        (" * token_mask(ops, batch)", "", 1),
        ('"tokens"', '"examples"', 1),
        ("token_mask(ops, batch)", 'batch["attention_mask"]', 1),
    ],
    ids=["right", "padding counts", "another unit", "padding rows count"],
)
def test_check_of_a_loss_on_hidden_states(world, before, after, code, said):
    (world / "my_losses.py").write_text(TOKENS.replace(before, after) if before else TOKENS)
    found, printed, errors = said("check", world / "my_losses.py", "--backends", "torch")
    assert found == code, printed + errors
