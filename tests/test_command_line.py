"""What the command line answers before anything runs: to slips of the keyboard, to launchers, and where a run, a hub's name or a
checkpoint without a classifier stands in place of a model."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path

import pytest

import crossdistil
from crossdistil.core.app.inspection import inspect
from crossdistil.core.app.run_student import student_of
from crossdistil.core.checkpoint import Model
from crossdistil.core.errors import CheckpointError, RecipeError
from crossdistil.core.hub_names import hub_hint
from crossdistil.core.losses.layers import placed, resolve_layers
from crossdistil.core.model_sections import StudentSection
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.recipe import load_recipe
from crossdistil.core.student import build_student
from crossdistil.tests import tiny

ROOT = Path(crossdistil.__file__).parent
QUOTES = "--set takes KEY=VALUE, in quotes where it holds spaces"


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ("rnu", "no such command 'rnu'; did you mean 'run'?; see crossdistil --help"),
        ("train kd", "no such command 'train'; did you mean 'run'?; see crossdistil --help"),
        ("kd", "no such command 'kd'; did you mean 'run kd'?; see crossdistil --help"),
        ("qqqq", "no such command 'qqqq'; see crossdistil --help"),
        ("data mlmm", "no such command 'mlmm'; did you mean 'mlm'?; see crossdistil data --help"),
        ("run kd --presett x", "no such option: --presett; did you mean '--preset'?; see crossdistil run --help"),
        ("run --resum", "no such option: --resum; did you mean '--resume'?; see crossdistil run --help"),
        ("predict m --input x", "no such option: --input; did you mean '--file'?; see crossdistil predict --help"),
        ("--versoin", "no such option: --versoin; did you mean '--version'?; see crossdistil --help"),
        ("run kd kd", "Got unexpected extra argument(s) (kd); see crossdistil run --help"),
        ("run kd --set seed=1 kd", "Got unexpected extra argument(s) (kd); see crossdistil run --help"),
        ("run kd --set teacher.model x", f"Got unexpected extra argument(s) (x); {QUOTES}; see crossdistil run --help"),
        ("run kd --set task={name: a}", f"Got unexpected extra argument(s) (a}}); {QUOTES}; see crossdistil run --help"),
        ("run", "run: name a recipe, for example kd (crossdistil recipes lists them); --resume --out RUN needs none"),
        ("run --resume", "--resume: name the run folder with --out"),
    ],
)
def test_slips_are_answered_with_what_was_meant(said, arguments, answer):
    assert said(*arguments.split()) == (2, "", f"crossdistil: error: {answer}\n")


def test_the_version(said):
    assert said("--version") == (0, f"crossdistil {crossdistil.__version__}\n", "")


def test_completion_knows_the_commands(cli, monkeypatch):
    variables = {"_CROSSDISTIL_COMPLETE": "complete_bash", "COMP_WORDS": "crossdistil cross", "COMP_CWORD": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert "crosscheck" in cli()


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("train.epochs=3", "train.epochs: unknown key; did you mean 'stages.0.train.epochs'?"),
        ("epochs=3", "epochs: unknown key; did you mean 'stages.0.train.epochs'?"),
        ("epoch=3", "epoch: unknown key; did you mean 'stages.0.train.epochs'?"),
        ("data=x", "data: unknown key; did you mean 'task.data' or 'aux_data.0.data'?"),
        ("model=x", "model: unknown key; did you mean 'teacher.model'?"),
        ("temperature=2", "temperature: unknown key; did you mean 'stages.0.objective.0.temperature'?"),
        ("num_hidden_layers=2", "num_hidden_layers: unknown key; did you mean 'student.architecture.num_hidden_layers'?"),
        ("student.hidden_size=2", "student.hidden_size: unknown key; did you mean 'student.architecture.hidden_size'?"),
        ("student.layers=[0]", "student.layers: unknown key; did you mean 'student.init.layers'?"),
        ("stages.0.train.epohcs=1", "stages[0].train.epohcs: unknown key; did you mean 'epochs'?"),
        ("qqqq=1", "qqqq: unknown key"),
    ],
)
def test_shortened_keys_are_told_in_full(setting, meant):
    with pytest.raises(RecipeError) as caught:
        load_recipe("kd", [setting, "task.data=x", "teacher.model=y"])
    assert meant in caught.value.problems


def test_keys_are_taken_as_errors_name_them():
    recipe = load_recipe("kd", ["stages[0].objective[0].temperature=2.5"])
    assert recipe.stages[0].objective[0].temperature == 2.5


def test_the_interface_is_seen_by_people_and_by_tools():
    assert {"run", "predict", "evaluate", "convert", "inspect", "crosscheck", "CrossdistilError"} <= set(dir(crossdistil))
    assert callable(crossdistil.run) and (ROOT / "py.typed").is_file()
    imports = [node for node in ast.walk(ast.parse((ROOT / "__init__.py").read_text())) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports if node.level for alias in node.names}
    assert names == set(crossdistil.__all__)
    assert all(getattr(crossdistil, name) for name in crossdistil.__all__)


def test_a_name_of_the_hub_is_answered_with_how_it_becomes_a_folder(tmp_path, monkeypatch, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    command = "hf download {} --local-dir models/{}"
    for given in ("bert-base-uncased", "google-bert/bert-base-uncased"):
        _, _, errors = said("inspect", given)
        assert command.format(given, "bert-base-uncased") in errors
        assert command.format(given, "bert-base-uncased") in hub_hint(tmp_path / given)  # as recipes have paths
    snapshot = tmp_path / "hub" / "models--google-bert--bert-base-uncased" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert hub_hint(Path("bert-base-uncased")) == hub_hint(Path("google-bert/bert-base-uncased"))
    assert str(snapshot) in hub_hint(Path("bert-base-uncased"))
    (tmp_path / "runs").mkdir()
    for given in ("runs/teacher", "/elsewhere/model", "../model", "a/b/c", "model.ckpt", "."):
        assert hub_hint(Path(given)) == ""


def test_a_run_stands_for_its_student(tmp_path, said):
    run = tmp_path / "run"
    tiny.write_model(run / "student")
    assert student_of(run / "student") == run / "student"
    (run / "run.json").write_text("{}")
    (run / "state" / "step-00000012").mkdir(parents=True)
    goes_on = f"{run}: the run is not finished, saved at step 12; crossdistil run --resume --out {run} goes on with it"
    with pytest.raises(CheckpointError, match=re.escape(goes_on)):
        student_of(run)
    (run / "result.json").write_text("{}")
    assert student_of(run) == run / "student"
    assert inspect(run)["classifier"] == "classification of texts: one of 2 labels"
    checks = tmp_path / "checks"
    shutil.copytree(run, checks / "torch")
    (checks / "crosscheck.json").write_text("{}")
    assert said("predict", checks, "a film") == (
        2, "", f"crossdistil: error: {checks}: is a cross-check, no model; name one of its students: {checks}/torch/student\n"
    )  # fmt: skip


def test_inspect_names_the_classifier_and_its_labels(tmp_path, said):
    tiny.write_model(tmp_path / "model", labels=("no", "maybe"))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    _, text, _ = said("inspect", tmp_path / "model")
    assert re.search(r"classifier +classification of texts: one of 2 labels", text) and re.search(r"labels +no, maybe", text)
    config["architectures"] = ["BertForTokenClassification"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert inspect(tmp_path / "model")["classifier"] == "architectures is BertForTokenClassification: a token classifier"


@pytest.mark.parametrize(
    ("depth", "init", "settings"),
    [
        (4, {"layers": [0, 2, 4]}, ["student.init.layers=[0, 1, 2]"]),
        (12, {}, ["student.init.layers=[0, 4, 8]"]),
        (2, {"layers": [0, 2, 4]}, ["student.init.layers=[0]", "student.architecture.num_hidden_layers=1"]),
    ],
)
def test_the_layers_that_fit_are_told_as_the_setting_that_takes_them(depth, init, settings):
    section = {"architecture": {"num_hidden_layers": 3}, "init": {"from": "teacher", **init}}
    config = BertConfig(**tiny.CONFIG.model_dump() | {"num_hidden_layers": depth})
    teacher = Model(config, tiny.random_parameters(config), 2, None)
    student, problems = build_student(StudentSection(**section), teacher, 2, None, 0)
    assert student is None
    assert [first or second for first, second in re.findall(r"--set (?:'(.*?)'|(\S+))", problems[-1])] == settings
    # What is told is taken.
    keys = dict(setting.split("=") for setting in settings)
    section["init"]["layers"] = json.loads(keys["student.init.layers"])
    section["architecture"]["num_hidden_layers"] = int(keys.get("student.architecture.num_hidden_layers", 3))
    assert build_student(StudentSection(**section), teacher, 2, None, 0)[1] == []


@pytest.mark.parametrize(
    ("layers", "told"),
    [
        ("uniform", "[[2, 1], [3, 2], [5, 3]]"),
        (((0, 0), (4, 1), (8, 2), (12, 3)), "[[0, 0], [2, 1], [3, 2], [5, 3]]"),
    ],
)
def test_layer_pairs_that_fit_are_told_too(layers, told):
    with pytest.raises(ValueError) as caught:
        resolve_layers(layers, 5, 3)
    line = placed("stages[0].objective[2]", "layers", str(caught.value))
    assert line.endswith(f"; for example --set 'stages.0.objective.2.layers={told}'")
    resolve_layers(tuple(map(tuple, json.loads(told))), 5, 3)


def test_a_benchmark_does_not_write_over_what_is_kept():
    for script in (ROOT / "benchmarks").glob("*.py"):
        if script.name not in ("tables.py", "results_table.py", "pages.py"):  # which keep results, when they are told to
            assert not re.search(r"(?<!NEW_)RESULTS", script.read_text()), script
