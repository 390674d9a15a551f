"""A slice of the wrong inputs that `benchmarks/robustness/wrong_inputs.py` draws and gives to the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from crossdistil.core.app import cli
from crossdistil.core.errors import RecipeError
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "robustness"


@pytest.mark.only_backend("torch")
def test_wrong_inputs_that_are_drawn(tmp_path):
    out = tmp_path / "found.json"
    # A process of its own: its children are forks of one that has no threads yet.
    command = [sys.executable, FOLDER / "wrong_inputs.py", "--count", "40", "--seed", "11", "--jobs", "1", "--out", out]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert out.is_file(), done.stderr
    found = json.loads(out.read_text())
    assert found["failures"] == []
    assert sum(found["certainly wrong"].values()) + sum(found["may be fine"].values()) == found["cases"] == 40
    assert found["certainly wrong"]["exit code 2"] > 25  # one of eight is drawn to be fine, and each new option changes the draw


def test_every_command_and_every_option_is_drawn(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(FOLDER)
    import wrong_input_cases as drawn
    import wrong_input_world as world

    commands = dict(drawn.commands(typer.main.get_command(cli.app), []))
    names = {command: " ".join(world.called(command)) for command in world.GOOD}
    assert set(names.values()) == set(commands)
    known = {option for options in commands.values() for option in options}
    assert (drawn.NUMBERS | drawn.NAMES | drawn.PATHS) <= known
    world.write_world(tmp_path)
    grammar = drawn.Grammar(1, tmp_path)
    cases = list(grammar.cases(12000))
    assert {case.command for case in cases} == set(names)
    assert sum(case.fine is None for case in cases[:2600]) > 2000, "certainly wrong"
    # Commands that refuse their good arguments come in one round of four, so that one of many options needs rounds of its own;
    # so does any of very many.
    rare = [command for command, options in commands.items() if "none" in world.GOOD[command] or len(options) > 16]
    cases += [case for command in rare for case in grammar.cases(1000, [command])]
    used = {word.partition("=")[0] for case in cases for word in case.arguments}
    taking = {option for options in commands.values() for option, is_flag in options.items() if not is_flag}
    assert taking <= used


@pytest.fixture
def task(tmp_path, monkeypatch):
    """A good task and model, and a training table of which 20 of 60 rows can be read."""
    monkeypatch.chdir(tmp_path)
    tiny.write_model(tmp_path / "model")
    folder = tiny.write_task(tmp_path / "task", 24, 12)
    (folder / "train.tsv").write_text("sentence\tlabel\n" + "good\t1\textra\nbad\nfine\t0\n" * 20)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["export", "--tokenizer", "model", "--max-length", "16"],
        ["augment", "--method", "words", "--copies", "1"],
    ],
    ids=lambda command: command[0],
)
def test_rows_that_are_left_out_are_told_by_each_command_that_reads_them(task, command):
    ended = CliRunner().invoke(cli.app, ["data", *command, "--task", "sst-2", "--data", "task", "--out", "out"])
    assert ended.exit_code == 0
    assert "train.tsv: 40 rows that cannot be read are left out of 60: line 2, 3, 5, 6, 8, ..." in " ".join(ended.output.split())


@pytest.mark.parametrize("name", ["no-such.json", "."])
def test_a_configuration_that_inspect_is_given_is_there(task, name):
    ended = CliRunner().invoke(cli.app, ["inspect", "model", "--config", name])
    assert ended.exit_code != 0 and name in str(ended.exception)


_NUMBER_KEYS = ["seed", "0.train.steps", "0.train.learning_rate", "0.objective.0.weight", "0.objective.0.temperature"]


@pytest.mark.parametrize("key", _NUMBER_KEYS)
def test_a_yes_is_no_number(tmp_path, key):
    tree = tiny.kd_recipe(tmp_path, tmp_path)
    with pytest.raises(RecipeError, match="true, expected a number") as raised:
        parse_recipe(tree, "recipe.yaml", [f"{key if key == 'seed' else f'stages.{key}'}=true"], None)
    assert key.rpartition(".")[2] in str(raised.value)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("student.init.layers", "[true]", "layers[0]: got true"),
        ("stages.0.train.length_buckets", "[16, false]", "length_buckets[1]: got false"),
        ("stages.0.objective.0", "{loss: hidden_mse, layers: [[1, true]]}", "layers[0][1]: got true"),
    ],
)
def test_nor_is_it_one_in_a_list(tmp_path, key, value, told):
    with pytest.raises(RecipeError) as raised:
        parse_recipe(tiny.kd_recipe(tmp_path, tmp_path), "recipe.yaml", [f"{key}={value}"], None)
    assert f"{told}, expected a number" in str(raised.value)


@pytest.mark.parametrize("value", ["[[1, 2]]", "[{a: 1}, b]"])
def test_a_label_is_one_text(tmp_path, value):
    with pytest.raises(RecipeError, match=r"task[.]labels\[0\]: should be a valid string, got"):
        parse_recipe(tiny.kd_recipe(tmp_path, tmp_path), "recipe.yaml", [f"task.labels={value}"], None)
