"""Data that a Python program holds: rows of every kind are the same folder, and a run takes them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import crossdistil
from crossdistil.core.app.given_data import data_folder
from crossdistil.core.errors import DataError
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


def lines(folder, split):
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_rows_of_every_kind_are_one_folder():
    folder = data_folder({"train": ROWS, "dev": ROWS[:1]})
    assert lines(folder, "train") == ROWS and lines(folder, "dev") == ROWS[:1]
    assert (
        folder
        == data_folder({"dev": iter(ROWS[:1]), "train": Frame()})
        == data_folder({"train": Dataset(), "validation": ROWS[:1]})
    )
    assert folder != data_folder({"train": ROWS, "dev": ROWS})


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
        data_folder(data)


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
    with pytest.raises(crossdistil.CrossdistilError, match="the run is complete"):  # the same data, hence the same recipe
        crossdistil.run(tmp_path / "recipe.yaml", out=tmp_path / "run", data=data, resume=True, **options)
