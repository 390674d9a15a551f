"""Data that a Python program holds: rows of every kind are the same folder, and a run takes them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import crossdistil
from crossdistil.core.app.given_data import GivenData
from crossdistil.core.cache_folder import kind_folder
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny

ROWS = [{"text": "a good film", "label": "yes"}, {"text": 'a "dull" one\n', "label": "no"}]


class Frame:
    """As much of a pandas frame as is used, with its NumPy numbers."""

    columns = ("text", "label")

    def to_dict(self, orient):
        assert orient == "records"
        return [{"text": row["text"], "label": np.str_(row["label"])} for row in ROWS]


class Labels:
    names = ["no", "yes"]


class Dataset:
    """As much of datasets.Dataset as is used."""

    features = {"text": object(), "label": Labels()}

    def __iter__(self):
        return iter({"text": row["text"], "label": np.int64(row["label"] == "yes")} for row in ROWS)


def task_recipe(model, **task):
    tree = tiny.kd_recipe("nowhere", model, steps=2)
    tree["task"] |= {"name": "mine", "text": "text", "label": "label", **task}
    return parse_recipe(tree, "test")


def lines(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_rows_of_every_kind_are_one_folder(tiny_model):
    given = GivenData({"train": ROWS, "dev": ROWS[:1]})
    folder = given.folder
    given.placed(task_recipe(tiny_model))
    assert lines(folder, "train") == ROWS and lines(folder, "dev") == ROWS[:1]
    assert (
        folder
        == GivenData({"dev": iter(ROWS[:1]), "train": Frame()}).folder
        == GivenData({"train": Dataset(), "validation": ROWS[:1]}).folder
    )
    assert folder != GivenData({"train": ROWS, "dev": ROWS}).folder


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1], "expected a mapping of train and dev"),
        ({"trian": ROWS}, "'trian': expected splits named train, dev, test"),
        ({"train": "text"}, "train: got 'text', expected rows"),
        ({"train": ROWS[0]}, "train: got .*, expected rows"),
        ({"train": []}, "train: holds no rows"),
        ({"train": [ROWS[0], ["a", "b"]]}, "train: row 2: got .*expected a mapping"),
        ({"train": [{"text": "a", "label": float("nan")}]}, "row 1: column 'label': got nan, expected text, a number"),
        ({"train": [{"text": b"a"}]}, "row 1: column 'text': got b'a'"),
    ],
)
def test_what_are_no_rows_is_told(data, message):
    with pytest.raises(DataError, match=message):
        GivenData(data)


LATE = [*ROWS * 20, {"text": "a good film", "lable": "yes"}]


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        ({"train": ROWS}, {}, "data: dev: missing; a run needs train and dev, got train"),
        ({"dev": ROWS}, {}, "data: train: missing; a run needs train and dev, got dev"),
        ({}, {}, "data: train: missing; a run needs train and dev, got nothing"),
        (
            {"train": LATE, "dev": ROWS},
            {},
            "data: train: row 41: no column 'label'; did you mean 'lable'? the columns are text, lable",
        ),
        ({"train": ROWS, "dev": [{"label": "no"}]}, {}, "data: dev: row 1: no column 'text'; the columns are label"),
        (
            {"train": ROWS, "dev": ROWS},
            {"name": "sst-2", "text": None, "label": None},
            "data: train: row 1: no column 'sentence'; the columns are text, label",
        ),
        (
            {"train": ROWS, "dev": ROWS},
            {"kind": "text"},
            "data: holds rows, but a task of kind: text reads files of text; give task.data",
        ),
    ],
    ids=["no dev", "no train", "neither", "late row", "no text", "glue", "kind"],
)
def test_what_a_task_misses_is_told_before_anything_is_written(tiny_model, data, task, message):
    given = GivenData(data)
    with pytest.raises(DataError) as caught:
        given.placed(task_recipe(tiny_model, **task))
    assert str(caught.value) == message and not given.folder.exists()


def test_a_test_split_may_be_without_labels_and_bad_rows_may_be_skipped(tiny_model):
    splits = {"train": ROWS, "dev": ROWS, "test": [{"text": "a"}]}
    assert GivenData(splits).placed(task_recipe(tiny_model)).task.files == {}
    GivenData({"train": LATE, "dev": ROWS[:1]}).placed(task_recipe(tiny_model, bad_rows="skip"))
    named = GivenData(splits).placed(task_recipe(tiny_model, files={"train": "reviews.tsv"}))
    assert named.task.files == {split: f"{split}.jsonl" for split in splits}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.data=x", "--set task.data=x: sets task.data, and data gives the rows; leave one of the two out"),
        ("task={name: mine, data: x}", "--set task={name: mine, data: x}: sets task.data, and data gives the rows"),
        ("task.files.dev=x.tsv", "sets task.files, and data gives the rows"),
    ],
)
def test_a_second_source_of_data_is_refused(tmp_path, override, message):
    with pytest.raises(CrossdistilError) as caught:
        crossdistil.run("kd", out=tmp_path / "run", data={"train": ROWS, "dev": ROWS}, overrides=[override])
    assert message in str(caught.value)
    assert len(GivenData({"train": ROWS}).beside(["task={name: mine}", "seed=1"])) == 3


def test_errors_of_the_files_name_the_data():
    given = GivenData({"train": ROWS})
    with pytest.raises(DataError) as caught, given.named():
        raise CrossdistilError(f"{given.folder}/dev.jsonl:3: got label 'x'\n{given.folder}/train.jsonl: every row")
    assert str(caught.value) == "data: dev: row 3: got label 'x'\ndata: train: every row"
    assert given.folder.parent == kind_folder("tables")


@pytest.mark.only_backend("torch")
def test_a_run_takes_them(tmp_path, tiny_model, backend_name):
    splits = {"train": tiny.sentences(24, 0), "dev": tiny.sentences(8, 1)}
    names = ("negative", "positive")
    data = {split: [{"t": text, "y": names[label]} for text, label in zip(*found)] for split, found in splits.items()}
    tree = tiny.kd_recipe(tmp_path / "nowhere", tiny_model, steps=2)
    tree["task"] |= {"name": "mine", "text": "t", "label": "y"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    options = {"backend": backend_name, "device": "cpu", "quiet": True, "report": False}
    result = crossdistil.run(tmp_path / "recipe.yaml", out=tmp_path / "run", data=data, **options)
    assert result["steps"] == 2 and 0 <= result["student"]["metrics"]["accuracy"] <= 1
    wrong = {**data, "dev": [{"t": "a film", "y": "neutral"}]}
    with pytest.raises(crossdistil.CrossdistilError, match="^data: dev: row 1: got label 'neutral', expected one of"):
        crossdistil.run(tmp_path / "recipe.yaml", out=tmp_path / "other", data=wrong, **options)
    with pytest.raises(crossdistil.CrossdistilError, match="the run is complete"):  # the same data, hence the same recipe
        crossdistil.run(tmp_path / "recipe.yaml", out=tmp_path / "run", data=data, resume=True, **options)
