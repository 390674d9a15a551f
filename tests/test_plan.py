"""A recipe is planned before it is loaded: all its problems at once, from configurations, vocabularies and headers; whoever takes
the plan says the same; and a run builds each stage once."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core import job as job_module
from crossdistil.core import recipe_examples, stored_tensors
from crossdistil.core.app import crosscheck as crosscheck_module
from crossdistil.core.app import preparing, search_command
from crossdistil.core.app.crosscheck import CrosscheckOptions, crosscheck
from crossdistil.core.app.explain import explain
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.app.search_space import space_of
from crossdistil.core.data import row_batches
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CheckpointError, CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.plan import plan
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny

WRONG = {
    "teacher's layers": ({"student.init.layers": [5]}, "student.init.layers: layer 5 does not exist"),
    "width": ({"student.architecture.hidden_size": 16}, "student.architecture.hidden_size: 16, but the weights of"),
    "term's layers": ({"stages.0.objective.0": {"loss": "hidden_mse", "layers": [[9, 1]]}}, "stages[0].objective[0].layers: "),
    "class weights": ({"stages.0.objective.1.class_weights": [1.0]}, "stages[0].objective[1].class_weights: got 1 weights"),
    "positions": ({"task.max_length": 90}, "task.max_length: 90, but teacher.model has only 40 positions"),
    "frozen": ({"stages.0.freeze": ["embeddings", "encoder", "pooler", "classifier"]}, "stages[0].freeze: "),
    "projection": (
        {
            "stages.0.objective": [
                {"loss": "hidden_mse", "layers": [[1, 1]], "projection": {"kind": "linear", "name": "own"}},
                {"loss": "hidden_mse", "layers": [[2, 1]], "projection": {"kind": "linear", "name": "own", "learning_rate": 1}},
            ]
        },
        "stages[0].objective[1].projection.learning_rate: ",
    ),
}


@pytest.fixture
def files(tmp_path):
    tiny.write_model(tmp_path / "teacher")
    tiny.write_task(tmp_path / "task")
    return tmp_path


def tree_of(files, changes=(), **train):
    """A recipe's plain data, with what is at `path.to.key` changed."""
    tree = tiny.kd_recipe(files / "task", files / "teacher", **train)
    for key, value in dict(changes).items():
        *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        node = tree
        for part in parents:
            node = node[part] if isinstance(node, list) else node.setdefault(part, {})
        node[last] = value
    return tree


def spoil(folder):
    """Weights that are not finite behind a header that is as it was."""
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    first = 8 + int.from_bytes(data[:8], "little")
    data[first:] = b"\xff" * (len(data) - first)
    path.write_bytes(data)


@pytest.fixture
def unread(monkeypatch):
    """Fails where a byte of a weight is read."""

    def read(file, start, end):
        raise AssertionError(f"{file.path}: bytes {start} to {end} are read")

    monkeypatch.setattr(stored_tensors.TensorFile, "bytes", read)


@pytest.mark.parametrize("name", WRONG)
def test_who_takes_the_plan_says_the_same(files, name, unread, monkeypatch):
    changes, expected = WRONG[name]
    tree = tree_of(files, changes)
    path = files / "recipe.yaml"
    path.write_text(json.dumps(tree))
    recipe = parse_recipe(tree, "recipe.yaml")
    problems = plan(recipe, "recipe.yaml").problems
    assert sum(problem.startswith(expected) for problem in problems) == 1, problems
    assert explain(str(path))["problems"] == problems
    told = [f"recipe.yaml: {problem}" for problem in problems]
    options = CrosscheckOptions(("torch", "oneflow"), files / "out", source="recipe.yaml")
    monkeypatch.setattr(crosscheck_module, "run_worker", lambda *_: pytest.fail("a run was started"))
    monkeypatch.setattr(crosscheck_module, "interpreters", lambda names: None)
    for take in (
        lambda: prepare(recipe, "recipe.yaml", 1),
        lambda: preparing.check_fit(recipe, "recipe.yaml", rows=False),
        lambda: crosscheck(recipe, options, Console(quiet=True)),
    ):
        with pytest.raises(CrossdistilError) as caught:
            take()
        assert str(caught.value).splitlines() == told
    assert not (files / "out").exists()


def test_a_plan_reads_no_rows_of_a_task_whose_labels_are_known(files):
    for split in ("train", "dev"):
        (files / "task" / f"{split}.tsv").unlink()
    found = plan(parse_recipe(tree_of(files), "test"), "test")
    assert not found.errors and found.context.outputs == 2
    assert found.student.parameter_count == prepare_of(files).student.parameter_count
    with pytest.raises(RuntimeError, match="is planned, and not loaded"):
        found.student.parameters["classifier.weight"]


def prepare_of(files):
    tiny.write_task(files / "task")
    return prepare(parse_recipe(tree_of(files), "test"), "test", 1)


@pytest.mark.parametrize("start", ["layers", "random", "other family"])
def test_the_planned_student_is_the_one_that_is_built(files, start):
    changes = {"layers": {}, "random": {"student.init": {"from": "random"}, "student.tokenizer": str(files / "teacher")}}.get(
        start, {"student.architecture.model_type": "distilbert"}
    )
    recipe = parse_recipe(tree_of(files, changes), "test")
    found, built = plan(recipe, "test"), prepare(recipe, "test", 1).student
    assert (found.student.config, found.student.new) == (built.config, built.new)
    assert list(found.student.parameters) == list(built.parameters)
    assert (found.student.outputs, found.student.labels) == (built.outputs, built.labels)


@pytest.mark.only_backend("torch")
def test_a_check_finds_problems_of_every_kind_and_reads_no_weights(files, said, monkeypatch, unread):
    path = files / "recipe.yaml"
    path.write_text(json.dumps(tree_of(files)))
    monkeypatch.chdir(files)
    spoil(files / "teacher")

    def check(*settings):
        sets = [part for setting in settings for part in ("--set", setting)]
        command = "run recipe.yaml --check --backend torch --device cpu --out run".split()
        code, output, errors = said(*command, *sets)
        return code, output, [line.removeprefix("crossdistil: error: ") for line in errors.splitlines()]

    code, output, problems = check()
    assert (code, problems) == (0, []) and "checked: nothing is wrong" in output
    assert "student: 1 layer x 32, " in output and "stage distil: 12 steps, batch 8" in output
    with (files / "task" / "dev.tsv").open("a") as file:
        file.write("a text\t7\n")
    wrong = {
        "student.init.layers=[7]": "student.init.layers: layer 7 does not exist",
        "stages.0.objective.1.class_weights=[1]": "stages[0].objective[1].class_weights: got 1 weights, expected 2",
        "task.max_length=99": "task.max_length: 99, but teacher.model has only 40 positions",
        "teacher_cache.precison=fp16": "teacher_cache.precison: unknown key; did you mean 'precision'?",
    }
    code, _, problems = check(*wrong)
    assert code == 2 and len(problems) == len(wrong) + 1, problems
    for expected in [*wrong.values(), "dev.tsv:23: "]:
        assert sum(expected in problem for problem in problems) == 1, (expected, problems)


def test_weights_that_are_not_finite_stop_what_loads_them(files):
    recipe = parse_recipe(tree_of(files), "test")
    spoil(files / "teacher")
    assert not plan(recipe, "test").errors
    with pytest.raises(CheckpointError, match=r"teacher\.model: .*model\.safetensors: .* holds values that are not finite"):
        prepare(recipe, "test", 1)


def test_a_search_reads_rows_and_weights_once_for_all_its_values(files, monkeypatch):
    counted = Counter()

    def count(module, name):
        function = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given: counted.update([name]) or function(*given))

    count(job_module, "checked_weights")
    count(recipe_examples, "read_split")
    recipe = parse_recipe(tree_of(files), "test")
    layers = {"student.init.layers": {"choice": [[0], [1]]}, "student.architecture.intermediate_size": {"choice": [48]}}
    assert search_command._checked(recipe, "test", space_of(layers, "space"), None) == "accuracy"
    assert counted == {"checked_weights": 1, "read_split": 2}


@pytest.fixture
def built(monkeypatch):
    """Counts what stages are made of: objectives, and the arrays of all rows."""
    counted = Counter()
    objective, rows = job_module.build_objective, row_batches.RowBatches.__init__

    def build(section, *given):
        counted[section.name] += 1
        return objective(section, *given)

    def begin(self, tokens, labels, *given):
        counted["rows"] += labels is not None and len(labels) == 44
        rows(self, tokens, labels, *given)

    monkeypatch.setattr(job_module, "build_objective", build)
    monkeypatch.setattr(row_batches.RowBatches, "__init__", begin)
    return counted


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("use", ["never", "always"])
def test_a_run_builds_each_stage_once(files, built, backend_name, use):
    tree = tree_of(files, {"teacher_cache": {"use": use, "folder": str(files / "cache")}}, steps=6)
    answers = tree["stages"][0]
    states = {"loss": "hidden_mse", "layers": [[2, 1]], "projection": {"kind": "linear"}}
    train = answers["train"] | {"length_buckets": [8, 16], "batch_size": 4}
    tree["stages"] = [{"name": "layers", "objective": [states], "train": train}, answers]
    options = RunOptions(backend_name, EngineOptions("cpu"), files / "run")
    execute(parse_recipe(tree, "test"), "test", options, Console(quiet=True))
    assert built == {"layers": 1, "distil": 1, "rows": 1}
    assert (files / "cache").exists() == (use == "always")


def test_stages_share_their_rows_and_not_their_order(files):
    tree = tree_of(files, steps=6)
    second = json.loads(json.dumps(tree["stages"][0]))
    second |= {"name": "again", "train": second["train"] | {"batch_size": 4, "gradient_accumulation": 2, "length_buckets": [8]}}
    tree["stages"].append(second)
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    alone = prepare(parse_recipe(tree | {"stages": [tree["stages"][0]]}, "test"), "test", 1)
    assert job.stage(1).batches.steps_per_epoch == 11 and job.stage(0).batches.steps_per_epoch == 6
    for (mine,), (theirs,) in zip(job.stage(0).batches.epoch(0), alone.stage(0).batches.epoch(0), strict=True):
        for name, array in theirs.items():
            np.testing.assert_array_equal(mine[name], array)
    steps = list(job.stage(1).batches.epoch(0))
    assert {len(step) for step in steps} == {2} and {part["input_ids"].shape[1] for step in steps for part in step} <= {8, 16}
    parts = [part for step in steps for part in step]
    texts = [ids[mask > 0].tolist() for part in parts for ids, mask in zip(part["input_ids"], part["attention_mask"])]
    real = [text for text in texts if len(text) > 1]
    table = job.data.tokens["train"]
    rows = [table.ids[start:end].tolist() for start, end in zip(table.offsets, table.offsets[1:])]
    assert sorted(real) == sorted(rows)
