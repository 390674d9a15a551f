"""A user's own file with a loss: read, trained with, told in a line where it is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import crossdistil
from crossdistil.core import recipe as recipes
from crossdistil.core.errors import CrossdistilError, RecipeError
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.tests import tiny

LOSS = '''
from typing import ClassVar, Literal
import numpy as np
from pydantic import Field
from crossdistil import LossTerm, register_loss, sum_rows


class Apart(LossTerm):
    """How far apart the logits are."""

    loss: Literal["apart"]
    temperature: float = Field(1.0, gt=0)
    needs_teacher: ClassVar[bool] = True

    def function(self, context, label):
        scale = 1.0 / self.temperature

        def apart(ops, params, student, teacher, batch):
            difference = (student["logits"] - teacher["logits"]) * scale
            return sum_rows(ops, ops.sum(difference * difference, axis=1), batch)

        return apart


def formula(term, student, teacher):
    return np.mean(np.sum(((student["logits"] - teacher["logits"]) / term.temperature) ** 2, axis=1))


register_loss(Apart, numpy=formula, cases=[{}, {"temperature": 4}])
'''


def write_recipe(folder: Path, plugin: str | None = "my_losses.py", loss: str = "apart", **train) -> Path:
    tree = tiny.kd_recipe(folder / "task", folder / "model", **train)
    if plugin is not None:
        tree["plugins"] = [plugin]
    tree["stages"][0]["objective"][0] = {"loss": loss, "temperature": 2, "weight": 0.5}
    (folder / "recipe.yaml").write_text(json.dumps(tree))
    return folder / "recipe.yaml"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "my_losses.py").write_text(LOSS)
    return tmp_path


def test_a_recipe_without_plugins_has_the_digest_it_had(tmp_path):
    recipe = parse_recipe(tiny.kd_recipe(Path("/task"), Path("/model")), "recipe")
    assert recipe.digest() == "ead41477599e93aaedd56b87d44dad0fb34aace459b343cfa4434efd48d8f3ae"
    assert "plugins" not in recipe.resolved()


def test_paths_are_from_the_recipe_s_file_on_and_the_digest_covers_the_bytes(folder, monkeypatch):
    path = write_recipe(folder)
    monkeypatch.chdir("/")
    recipe = load_recipe(path)
    assert recipe.plugins[0].plugin == str(folder / "my_losses.py")
    assert recipe.stages[0].objective[0].temperature == 2
    again = parse_recipe(json.loads(json.dumps(recipe.resolved())), "again")
    assert again.digest() == recipe.digest() and again.stages[0].objective[0] == recipe.stages[0].objective[0]
    (folder / "my_losses.py").write_text(LOSS + "# another byte\n")
    assert load_recipe(path).digest() != recipe.digest()
    with pytest.raises(RecipeError, match=r"plugins\[0\]: .*my_losses.py: has changed since the recipe named it: SHA-256"):
        parse_recipe(recipe.resolved(), "a saved run")


def test_a_plugin_of_the_command_line_is_from_the_current_folder(folder, monkeypatch):
    path = write_recipe(folder, plugin=None)
    (folder / "here").mkdir()
    (folder / "my_losses.py").rename(folder / "here" / "mine.py")
    monkeypatch.chdir(folder / "here")
    for recipe in (load_recipe(path, plugins=["mine.py"]), load_recipe(path, ["plugins=[mine.py]"])):
        assert recipe.plugins[0].plugin == str(folder / "here" / "mine.py")
    with pytest.raises(RecipeError, match="unknown loss 'apart'"):
        load_recipe(path)


def test_an_installed_module_is_a_plugin_and_so_is_an_entry_point(folder, monkeypatch):
    package = folder / "site" / "own_package_of_losses"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text(LOSS)
    about = folder / "site" / "own_package_of_losses-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package-of-losses\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[crossdistil]\nown-losses = own_package_of_losses.losses\n")
    path = write_recipe(folder, plugin="own_package_of_losses.losses")
    with pytest.raises(RecipeError, match="has no module 'own_package_of_losses.losses'"):
        load_recipe(path)
    monkeypatch.syspath_prepend(folder / "site")
    first = load_recipe(path)
    assert first.stages[0].objective[0].loss == "apart"
    second = load_recipe(write_recipe(folder, plugin="own-losses"))
    assert second.plugins[0].sha256 == first.plugins[0].sha256
    assert second.stages[0].objective[0].loss == "apart"
    with pytest.raises(RecipeError, match="did you mean 'own-losses'"):
        load_recipe(write_recipe(folder, plugin="own_losses"))


def test_two_files_that_register_one_name(folder):
    (folder / "other.py").write_text(LOSS)
    with pytest.raises(RecipeError, match=r"my_losses.py:29: 'apart' is registered already, at .*other.py:29"):
        load_recipe(write_recipe(folder, plugin="other.py"), plugins=[str(folder / "my_losses.py")])
    assert load_recipe(write_recipe(folder), plugins=[str(folder / "my_losses.py")]).plugins[1:] == ()


WRONG = {
    "no Python": ("x = 1\ndef (:\n", r"mine.py:2: is no Python: "),
    "not text": ("\0", r"mine.py:1: is no Python: "),
    "raises": ("x = 1\nx / 0\n", r"mine.py:2: cannot be loaded: ZeroDivisionError: division by zero"),
    "ends": ("import sys\nsys.exit(3)\n", r"mine.py:2: cannot be loaded: SystemExit: 3"),
    "imports what is not there": ("import no_such_module_here\n", r"mine.py:1: cannot be loaded: ModuleNotFoundError"),
    "imports its neighbour": ("import my_losses\n", r"ModuleNotFoundError.*a plugin is one file, or an installed package"),
    "registers nothing": ("x = 1\n", r"mine.py: registers nothing"),
    "a name of ours": (LOSS.replace('"apart"', '"kd_ce"'), r"mine.py:29: loss 'kd_ce': crossdistil has one of this name"),
    "a name of a preset": (LOSS.replace('"apart"', '"L3_hidden_mse"'), r"mine.py:29: loss 'L3_hidden_mse': crossdistil has"),
    "no name": (LOSS.replace('loss: Literal["apart"]', ""), r"mine.py:29: register_loss: Apart.loss: expected a field"),
    "two names": (LOSS.replace('Literal["apart"]', 'Literal["apart", "b"]'), r"mine.py:29: register_loss: Apart.loss: expected"),
    "an odd name": (LOSS.replace('"apart"', '"a part"'), r"mine.py:29: loss 'a part': expected a name"),
    "no function": (LOSS.replace("def function", "def other"), r"mine.py:29: loss 'apart': Apart has no method function"),
    "no term": (LOSS.replace("register_loss(Apart", "register_loss(int"), r"mine.py:29: register_loss: expected a subclass"),
    "twice": (LOSS + "register_loss(Apart)\n", r"mine.py:30: 'apart' is registered twice, first at .*mine.py:29"),
    "a formula of others": (LOSS.replace("(term, student, teacher)", "(term, z)"), r"numpy: asks for 'z', expected arguments"),
    "no cases": (LOSS.replace("cases=[{}, {\"temperature\": 4}]", "cases=[]"), r"mine.py:29: loss 'apart': cases: expected"),
    "an unknown task": (LOSS.replace("numpy=formula,", "tasks=['ner'],"), r"mine.py:29: loss 'apart': tasks: got 'ner'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_in_a_line_with_its_place(folder, name):
    code, message = WRONG[name]
    (folder / "mine.py").write_text(code)
    with pytest.raises(CrossdistilError, match=message) as raised:
        load_recipe(write_recipe(folder, plugin="mine.py"))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (["my_loses.py"], r"plugins\[0\]: .*my_loses.py: no such file; did you mean 'my_losses.py'"),
        (["."], r"plugins\[0\]: got '.', expected the path"),
        (["./"], r"plugins\[0\]: .*: is a folder, expected a Python file"),
        (["sys"], r"plugins\[0\]: sys: is no module with Python files"),
        (["no.such"], r"plugins\[0\]: .* has no module 'no.such'"),
        ([3], r"plugins\[0\]: should be a valid dictionary, got 3"),
        ("my_losses.py", r"plugins: should be a valid tuple, got 'my_losses.py'"),
        (None, r"plugins: should be a valid tuple, got null"),
        ([{"plugin": "my_losses.py", "sha": "x"}], r"plugins\[0\].sha: unknown key; did you mean 'sha256'"),
        ([{"plugin": "my_losses.py", "sha256": "0" * 64}], "has changed since the recipe named it"),
    ],
)
def test_wrong_names_of_plugins(folder, plugins, message):
    tree = json.loads(write_recipe(folder).read_text())
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**tree, "plugins": plugins}, "recipe.yaml", folder=folder)


def test_did_you_mean_covers_what_plugins_bring(folder):
    with pytest.raises(RecipeError, match="unknown loss 'appart'; did you mean 'apart'"):
        load_recipe(write_recipe(folder, loss="appart"))
    with pytest.raises(RecipeError, match=r"objective\[0\].temprature: unknown key; did you mean 'temperature'"):
        load_recipe(write_recipe(folder), ["stages.0.objective.0.temprature=3"])
    with pytest.raises(RecipeError, match=r"objective\[0\].temperature: should be greater than 0"):
        load_recipe(write_recipe(folder), ["stages.0.objective.0.temperature=0"])


def test_the_schema_is_made_once_for_the_same_plugins(folder):
    path = write_recipe(folder)
    assert type(load_recipe(path)) is type(load_recipe(path))
    assert type(parse_recipe(tiny.kd_recipe(folder, folder), "")) is recipes.Recipe


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


@pytest.fixture
def world(folder):
    tiny.write_task(folder / "task", 24, 12)
    tiny.write_model(folder / "model")
    return folder


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


METRIC = """
import numpy as np
from crossdistil import register_metric


def error_rate(logits, labels):
    return -np.mean(logits.argmax(axis=1) != labels)


register_metric("fewest_errors", error_rate)
"""


@pytest.fixture
def with_metric(world):
    (world / "my_losses.py").write_text(LOSS + METRIC)
    tree = json.loads(write_recipe(world, steps=2).read_text())
    tree["task"]["metrics"] = ["fewest_errors", "accuracy"]
    (world / "recipe.yaml").write_text(json.dumps(tree))
    return world


@pytest.mark.only_backend("torch")
def test_a_metric_of_a_file_chooses_the_best_and_scores_the_student(with_metric, said):
    out, data = with_metric / "out", with_metric / "task"
    code, printed, errors = said("run", with_metric / "recipe.yaml", "--out", out, "--backend", "torch")
    assert code == 0, errors
    assert "loss apart, metric fewest_errors" in printed
    metrics = json.loads((out / "result.json").read_text())["student"]["metrics"]
    assert list(metrics) == ["fewest_errors", "accuracy"]
    assert metrics["fewest_errors"] == pytest.approx(metrics["accuracy"] - 1)
    plugin = ["--plugin", with_metric / "my_losses.py"]
    code, printed, errors = said("evaluate", out, "--data", data, "--backend", "torch", *plugin)
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(metrics), errors
    code, _, errors = said("evaluate", out, "--data", data, "--backend", "torch")
    assert code == 2 and f"{out}: was trained with the metric fewest_errors of a plugin" in errors
    assert f"--plugin {with_metric / 'my_losses.py'}" in errors and "did you mean" not in errors
    code, printed, errors = said("compare", out / "student", out, "--data", data, "--backend", "torch", "--json")
    assert code == 0, errors
    assert "was trained with the metric fewest_errors of a plugin, left out here" in errors
    assert [pair["metric"] for pair in json.loads(printed)["pairs"]] == ["accuracy"]


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("return -np.mean(", "return float('nan') * np.mean(", r"py:35: metric 'fewest_errors' returns nan, expected"),
        ("return -np.mean(", "return +np.array([[1]]) * (", r"py:35: metric 'fewest_errors' returns .*, expected"),
        ("!= labels", "!= labels[:2]", r"my_losses.py:36: metric 'fewest_errors' fails: "),
        ('"fewest_errors"', '"accuracy"', r"my_losses.py:39: metric 'accuracy': crossdistil has one of this name"),
        ('"fewest_errors"', '"fewest_error"', r"task.metrics: 'fewest_errors' is no metric for this task; did you mean"),
        ("error_rate)", "3)", r"my_losses.py:39: metric 'fewest_errors': expected a function, got 3"),
        ("error_rate)", "error_rate, tasks=['regression'])", r"task.metrics: 'fewest_errors' is no metric for this task"),
    ],
)
def test_a_wrong_metric_is_told_with_its_line(with_metric, before, after, message, said):
    (with_metric / "my_losses.py").write_text(LOSS + METRIC.replace(before, after))
    code, _, errors = said("run", with_metric / "recipe.yaml", "--out", with_metric / "out", "--backend", "torch")
    assert code == 2 and re.search(message, errors), errors
    assert len(errors.splitlines()) == 1


@pytest.mark.only_backend("torch")
def test_a_worker_and_its_processes_load_the_same_file(world):
    """As a cross-check starts its runs: the recipe goes to a worker, which starts two processes."""
    recipe = write_recipe(world, steps=2)
    result = crossdistil.run(recipe, out=world / "out", backend="torch", devices=2)
    assert result["processes"] == 2 and result["recipe_digest"] == load_recipe(recipe).digest()


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
