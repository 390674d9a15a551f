"""What is said of the data before training and scoring: classes with their counts, what was left out, [UNK], and a model that
gives one answer to everything."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core.app.data_report import data_lines, data_warnings, one_answer
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.data.labels import one_letter
from crossdistil.core.data.task_specs import GLUE_TASKS
from crossdistil.core.engine import EngineOptions
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.tagged_files import columns, ner_recipe, sentences, write_names


def recipe(folder, train, dev=None, labels=None, **task):
    """A fine-tuning recipe on rows of (text, label)."""
    data = folder / "data"
    data.mkdir()
    for split, rows in {"train": train, "dev": dev or train}.items():
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)
        (data / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    tiny.write_model(folder / "model", labels=labels or ("a", "b"))
    tree = tiny.kd_recipe(data, folder / "model", steps=2)
    tree["task"] |= {"name": "mine", "text": "text", "label": "label", **task}
    del tree["teacher"]
    tree["student"] = {"init": {"from": str(folder / "model")}}
    tree["stages"][0]["objective"] = [{"loss": "hard_label"}]
    return parse_recipe(tree, "test")


def told(folder, *rows, **task):
    data = prepare(recipe(folder, *rows, **task), "test", 1).data
    return data_lines(data), data_warnings(data)


def test_classes_with_their_counts_and_the_share_of_unknown_tokens(tmp_path):
    rows = [("the film", "good"), ("good", "good"), ("bad", "bad"), ("bad film", "bad"), ("the", "good")]
    lines, warnings = told(tmp_path, rows, rows[:4])
    assert lines == [
        "train: bad 2, good 3",
        "dev: bad 2, good 2",
        "[UNK]: 0.0% of the tokens of train, 0.0% of the tokens of dev",
    ]
    assert warnings == []


def test_texts_that_the_vocabulary_cannot_read(tmp_path):
    rows = [("the film was very good", "a"), ("the 电影 很好", "b")] * 2
    lines, warnings = told(tmp_path, rows, [("the", "a"), ("film", "b")] * 2)
    assert lines[-1] == "[UNK]: 40.0% of the tokens of train, 0.0% of the tokens of dev"
    assert len(warnings) == 1 and warnings[0].startswith("40.0% of the tokens of train are [UNK]: the vocabulary of ")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a", "-", "-"], "'-' is a class here; .* task.skip_labels: \\[\"-\"\\]"),
        (["a", "a", float("nan"), "None"], "'NaN', 'None' is a class here|'None', 'NaN'"),
        ([0.0, 1.0, 0.0, 1.0], "decimal numbers \\('0.0', '1.0'\\); scores are for kind: regression"),
        (["a", "a", "b", "b", "c"], "'c' has one row in train"),
        ([*map(str, range(101))] * 2, "101 classes"),
    ],
)
def test_odd_classes(tmp_path, labels, message):
    import re

    warnings = told(tmp_path, [("the film", label) for label in labels])[1]
    assert any(re.search(message, warning) for warning in warnings), warnings


def test_rows_that_were_left_out_are_told(tmp_path):
    rows = [("the", "a"), ("film", "b"), ("was", "-"), ("a", "a"), ("the", "b")]
    lines, warnings = told(tmp_path, rows, skip_labels=["-"])
    assert lines[0] == "train: a 2, b 2"
    assert warnings[0] == "train.jsonl: 1 row is left out for task.skip_labels ('-')"


def test_one_answer_for_everything():
    spec = GLUE_TASKS["sst-2"]
    same, labels = np.array([[0.0, 1.0], [1.0, 2.0], [-1.0, 0.0]]), np.array([0, 1, 1])
    assert one_answer(spec.kind, spec.label_names, same, labels, "dev") == "'positive' is predicted for all 3 examples of dev"
    assert one_answer(spec.kind, spec.label_names, same * [[1], [-1], [1]], labels, "dev") is None
    assert one_answer(spec.kind, spec.label_names, same, labels * 0, "dev") is None  # then it may be right
    assert one_answer(GLUE_TASKS["sts-b"].kind, None, same[:, :1], labels, "dev") is None


@pytest.mark.only_backend("torch")
def test_a_run_says_all_of_it(backend_name, tmp_path, pytestconfig):
    rows = [("the film was good", "[b]ad"), ("the plot", "good"), ("电影 好", "good"), ("bad", "[b]ad")] * 2
    text = io.StringIO()
    console = Console(file=text, width=500)
    options = RunOptions(backend_name, EngineOptions(pytestconfig.getoption("--device")), tmp_path / "run")
    made = recipe(tmp_path, rows, labels=("[b]ad", "good"))
    tree = made.resolved()
    tree["stages"][0]["train"]["learning_rate"] = 1e-12
    parameters = tiny.write_model(tmp_path / "model", labels=("[b]ad", "good"))
    parameters.parameters["classifier.bias"][:] = [-100, 100]
    from crossdistil.core.checkpoint_saving import save_model
    from crossdistil.core.data.tokenize import load_tokenizer

    save_model(parameters, tmp_path / "model", load_tokenizer(tmp_path / "model"))
    execute(parse_recipe(tree, "test"), "test", options, console)
    lines = text.getvalue()
    for part in ("train: [b]ad 4, good 4", "are [UNK]", "warning: 'good' is predicted for all 8 examples of dev"):
        assert part in lines, lines


def test_settings_that_do_not_go_together(tmp_path):
    for task, message in {
        "columns": ({"columns": ["a"]}, "columns is for header: false"),
        "twice": ({"columns": ["a", "a"], "header": False}, "a name is there twice"),
        "encoding": ({"encoding": "gb1803"}, "'gb1803' is no encoding of text"),
        "bytes": ({"encoding": "zlib"}, "is no encoding of text"),
        "raw": ({"kind": "text", "bad_rows": "skip"}, "bad_rows is for the tables of a task"),
    }.values():
        with pytest.raises(ValueError, match=message):
            TaskSection(name="x", data=tmp_path, **task)
    assert TaskSection(name="x", data=tmp_path, skip_labels=[0, None]).skip_labels == ("0", "null")


MEANT = [("film", "positive")] * 22 + [("plot", "negative")] * 20


def test_a_class_that_may_be_a_misspelt_one_is_told_with_its_place(tmp_path):
    rows = [*MEANT, ("the film", "positve"), ("the plot", "positve!"), ("a", "neutral")]
    found = [line for line in told(tmp_path, rows, MEANT)[1] if "one letter" in line]
    assert found == [
        "train.jsonl:43: 'positve' is there once in train and not in dev, and is one letter from 'positive', which is there 22 "
        "times; mend it, or name all classes with task.labels, if that is meant"
    ]


@pytest.mark.parametrize(
    ("rows", "dev"),
    [
        ([*MEANT, ("a", "positve")], [*MEANT, ("a", "positve")]),  # it is in dev
        ([*MEANT[:19], *MEANT[22:], ("a", "positve")], MEANT),  # the other one is not so much more frequent
        ([("film", "level 1")] * 20 + [("plot", "level 2")], None),
    ],
)
def test_classes_that_may_be_meant_are_not(tmp_path, rows, dev):
    assert not any("one letter" in line for line in told(tmp_path, rows, dev)[1])


def test_a_type_of_names_that_may_be_a_misspelt_one(tmp_path):
    data = write_names(tmp_path / "data")
    rows = [*sentences(120, 1), [("the", "O"), ("good", "B-PRE"), ("film", "I-PRE")]]
    (data / "train.conll").write_text(columns(rows))
    tiny.write_model(tmp_path / "encoder")
    tree = ner_recipe(data, tmp_path / "encoder")
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    place = len(columns(rows).splitlines()) - 1
    found = [line for line in data_warnings(job.data) if "one letter" in line]
    assert len(found) == 1 and found[0].startswith(f"train.conll:{place}: 'PRE' is there once in train and not in dev, and")
    tree["task"]["labels"] = list(job.data.spec.labels)  # then a person means it
    assert not any("one letter" in line for line in data_warnings(prepare(parse_recipe(tree, "test"), "test", 1).data))


@pytest.mark.parametrize(
    ("name", "other", "near"),
    [
        ("positve", "positive", True),
        ("PRE", "PER", True),
        ("LOK", "LOC", True),
        ("Positve", "positive", True),
        ("NN", "NNS", False),
        ("cat", "dog", False),
        ("level 1", "level 2", False),
        ("3", "4", False),
        ("abcd", "badc", False),
    ],
)
def test_one_letter(name, other, near):
    assert one_letter(name, other) is one_letter(other, name) is near
