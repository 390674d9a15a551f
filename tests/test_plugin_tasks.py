"""A task of a plugin: its own reader, labels and metric, from the recipe to `evaluate`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.recipe import load_recipe
from crossdistil.tests import tiny

TASK = """
import numpy as np
from crossdistil import register_metric, register_task

STARS = {"1": "negative", "5": "positive"}


def reviews(data, split):
    for line in (data / f"{split}.reviews").read_text(encoding="utf-8").splitlines():
        stars, text = line.split(";", 1)
        yield {"text": text, "label": STARS[stars]}


def share_of_good(logits, labels):
    return np.mean(logits.argmax(axis=1) == labels)


register_metric("share", share_of_good)
register_task("reviews", reviews, labels=["negative", "positive"], metrics=["share", "accuracy"])
"""


@pytest.fixture
def world(tmp_path):
    """The rows of a table, once as the table and once in a format that only the plugin reads."""
    tiny.write_task(tmp_path / "task", 24, 12)
    tiny.write_model(tmp_path / "model")
    (tmp_path / "own").mkdir()
    for split in ("train", "dev"):
        rows = (tmp_path / "task" / f"{split}.tsv").read_text().splitlines()[1:]
        lines = [f"{'15'[int(label)]};{text}" for text, label in (row.split("\t") for row in rows)]
        (tmp_path / "own" / f"{split}.reviews").write_text("\n".join(lines) + "\n")
    (tmp_path / "mine.py").write_text(TASK)
    return tmp_path


def write_recipe(folder: Path, **task) -> Path:
    tree = tiny.kd_recipe(folder / "own", folder / "model", steps=2)
    tree["plugins"] = ["mine.py"]
    tree["task"] = {"name": "reviews", "data": str(folder / "own"), "max_length": 16, **task}
    (folder / "recipe.yaml").write_text(json.dumps(tree))
    return folder / "recipe.yaml"


def test_its_rows_are_those_of_the_table(world):
    recipe = load_recipe(write_recipe(world))
    spec = resolve_task(recipe.task, recipe.registered)
    table = resolve_task(type(recipe.task)(name="sst-2", data=world / "task"))
    assert (spec.kind.name, spec.labels, spec.metrics) == ("classification", ("negative", "positive"), ("share", "accuracy"))
    for split in ("train", "dev"):
        own, other = (read_split(each, data, split) for each, data in ((spec, world / "own"), (table, world / "task")))
        assert list(own.texts) == list(other.texts)
        np.testing.assert_array_equal(own.labels, other.labels)
    assert load_recipe(write_recipe(world, labels=["positive", "negative"])).task.labels == ("positive", "negative")


WRONG = {
    "a key": ({}, ('"text": text', '"texte": text'), r"mine.py:8: task 'reviews', train, row 1: unknown key 'texte'; did"),
    "no text": ({}, ('"text": text', '"text": 3'), r"mine.py:8: task 'reviews', train, row 1: text: got 3, expected a text"),
    "no row": ({}, ("yield {", "yield text, {"), r"mine.py:8: task 'reviews', train, row 1: got .*, expected a mapping"),
    "no label": ({}, (', "label": STARS[stars]', ""), r"mine.py:8: task 'reviews', train, row 1: label: is missing"),
    "no rows": ({}, ("splitlines()", "splitlines()[:0]"), r"own: the task 'reviews' has no rows for the split 'train'"),
    "it fails": ({}, ("STARS[stars]", "STARS['3']"), r"mine.py:11: task 'reviews' fails for .*own, train: KeyError: '3'"),
    "another label": ({}, ('"5": "positive"', '"5": "positiv"'), r"train:\d+: .*'positiv'"),
    "no such data": ({"data": "nowhere"}, ("", ""), r"task.data: .*nowhere: no such file or folder"),
    "columns": ({"text": "sentence"}, ("", ""), r"task.text: is for tables, but the task 'reviews' is a plugin's"),
    "a kind": ({"kind": "regression"}, ("", ""), r"task.kind: the task 'reviews' of .*mine.py:19 is a classification"),
    "a near name": ({"name": "review"}, ("", ""), r"task.text: needed, because 'review' is not .*; did you mean 'reviews'"),
    "a metric": ({}, ('metrics=["share"', 'metrics=["shore"'), r"'shore' is no metric for this task; did you mean 'share'"),
    "GLUE's": ({}, ('"reviews", reviews', '"SST2", reviews'), r"mine.py:19: task 'SST2': is one of GLUE's"),
    "no dev": ({}, ("labels=[", "splits=['train'], labels=["), r"mine.py:19: task 'reviews': splits: .*, expected train and dev"),
    "a reader": ({}, ("def reviews(data, split)", "def reviews(data)"), r"task 'reviews': expected a function \(data, split\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_line(world, name):
    section, (before, after), message = WRONG[name]
    assert before in TASK
    (world / "mine.py").write_text(TASK.replace(before, after, 1) if before else TASK)
    with pytest.raises(CrossdistilError) as raised:
        recipe = load_recipe(write_recipe(world, **section))
        spec = resolve_task(recipe.task, recipe.registered)
        read_split(spec, recipe.task.data, "train")
    assert re.search(message, str(raised.value)) and len(str(raised.value).splitlines()) == 1, raised.value


@pytest.mark.only_backend("torch")
def test_a_run_on_it_is_the_run_on_the_table(world, said):
    code, printed, errors = said("run", write_recipe(world), "--out", world / "out", "--backend", "torch")
    assert code == 0 and "task reviews" in printed, errors
    table = {"name": "sst-2", "data": str(world / "task"), "max_length": 16}
    (world / "table.yaml").write_text(json.dumps(json.loads((world / "recipe.yaml").read_text()) | {"task": table}))
    code, _, errors = said("run", world / "table.yaml", "--out", world / "table", "--backend", "torch")
    assert code == 0, errors
    own, other = (json.loads((world / name / "result.json").read_text())["student"]["metrics"] for name in ("out", "table"))
    assert own == {"share": own["accuracy"], "accuracy": other["accuracy"]}
    assert "without texts" not in (world / "out" / "report.html").read_text()
    given = ["--data", world / "own", "--backend", "torch"]
    code, printed, errors = said("evaluate", world / "out", *given, "--plugin", world / "mine.py")
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(own), errors
    code, _, errors = said("evaluate", world / "out", *given)
    assert code == 2 and "'reviews' is not a GLUE task; a plugin's task needs --plugin FILE" in errors, errors
    plugin = ["--plugin", world / "mine.py"]
    (world / "out" / "latency.json").unlink()
    for more, count in (([], 2), (plugin, 0)):  # without it neither the latency nor the texts
        code, printed, errors = said("report", world / "out", *more)
        assert code == 0 and printed.count("needs --plugin FILE") == count, printed + errors
    assert "without texts" not in (world / "out" / "report.html").read_text() and (world / "out" / "latency.json").exists()
    for command in (["export", world / "out", world / "onnx"], ["latency", world / "out", "--rounds", 1, "--backend", "torch"]):
        code, printed, errors = said(*command, "--data", world / "own", *plugin)
        assert code == 0, errors
        assert "share on dev, points lost" in " ".join(printed.split()) or command[0] == "latency"
        again = [world / "again" if each == world / "onnx" else each for each in command]
        code, _, errors = said(*again, "--data", world / "own")
        assert code == 2 and "needs --plugin FILE" in errors, errors
