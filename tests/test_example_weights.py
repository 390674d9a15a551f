"""Examples that count more or less than others: a row of weight 2 is that row twice, in every loss; texts without labels as
training texts; and a limit on the examples."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.data.limits import limited
from crossdistil.core.data.mixing import mixed
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import CrossdistilError, DataError, RecipeError
from crossdistil.core.job import prepare
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.task_section import AuxSection, TaskSection
from crossdistil.tests import test_attention_losses, test_hard_label, test_hidden_losses, test_losses, tiny

CASES = {
    name: case
    for module in (test_losses, test_hard_label, test_hidden_losses, test_attention_losses)
    for name, case in module.CASES.items()
}


def value(case, rows, weights):
    """The term over these rows, in float64."""
    parts = [{name: array[rows] for name, array in part.items()} for part in (case.inputs[0], case.inputs[1], case.inputs[3])]
    student, teacher, batch = ({n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in part.items()} for part in parts)
    params = {name: array.astype(np.float64) for name, array in case.inputs[2].items()}
    batch["example_mask"] = batch["example_mask"] * np.array(weights, float)
    total = case.term.bound(case.context, case.label)(ReferenceOps(), params, student, teacher, batch)
    return float(total) / case.term.counter(case.context)(batch)


@pytest.mark.parametrize("name", CASES)
def test_a_row_of_weight_two_is_that_row_twice(name):
    case = CASES[name]
    weighted = value(case, [0, 1, 2, 3], [2, 1, 1, 1])
    assert weighted == pytest.approx(value(case, [0, 0, 1, 2, 3], [1] * 5), rel=1e-9)
    assert weighted == pytest.approx(value(case, [0, 1, 2, 3], [0.5, 0.25, 0.25, 7]), rel=1e-9)  # a fill row stays one


@pytest.fixture
def unlabelled(tmp_path):
    """The same texts in a file of lines, and in a table's column."""
    texts = ["the film was good", "a cold plot", 'a "quoted" line, with commas']
    (tmp_path / "lines.txt").write_text("\n".join([texts[0], "", *texts[1:]]) + "\n")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "train.jsonl").write_text("".join(json.dumps({"review": text}) + "\n" for text in texts))
    return tmp_path, texts


@pytest.mark.parametrize(("data", "text"), [("lines.txt", None), ("table", "review"), ("table/train.jsonl", "review")])
def test_texts_without_labels_follow_the_task_s(unlabelled, tiny_task, data, text):
    folder, texts = unlabelled
    spec = resolve_task(TaskSection(name="sst-2", data=tiny_task))
    train = read_split(spec, tiny_task, "train")
    found = mixed(train, spec, AuxSection(name="reviews", data=folder / data, text=text, weight=0.25), "aux_data[0]")
    assert list(found.texts) == [*train.texts, *texts] and len(found) == len(train) + 3
    assert found.label_mask.tolist() == [1] * len(train) + [0] * 3
    assert found.weights.tolist() == [1] * len(train) + [0.25] * 3
    np.testing.assert_array_equal(found.labels[: len(train)], train.labels)


def recipe(task, teacher, aux, **more):
    tree = tiny.kd_recipe(task, teacher, epochs=1, batch_size=64, length_buckets=[32], **more)
    del tree["stages"][0]["train"]["steps"]
    tree["aux_data"] = [aux]
    return tree


def test_they_count_in_what_sums_are_divided_by(unlabelled, tiny_task, tiny_model):
    tree = recipe(tiny_task, tiny_model, {"name": "more", "data": str(unlabelled[0] / "lines.txt"), "weight": 0.5})
    job = prepare(parse_recipe(tree, "test"), "test", 8)
    stage = job.stage(0)
    [[batch]] = [stage.objective.prepare(step) for step in stage.batches.epoch(0)]
    assert batch["denominators"].tolist()[:2] == [44 + 1.5, 44]  # kd_ce over examples, hard_label over labelled ones
    assert sorted(batch["example_mask"].tolist(), reverse=True)[:47] == [1] * 44 + [0.5] * 3


def test_what_cannot_work_is_told(unlabelled, tiny_task, tiny_model):
    aux = {"name": "more", "data": str(unlabelled[0] / "lines.txt")}
    tree = recipe(tiny_task, tiny_model, aux)
    tree["stages"][0]["objective"] = [{"loss": "hard_label"}]
    with pytest.raises(RecipeError, match=r"aux_data\[0\]: names no label, and every term needs labels"):
        parse_recipe(tree, "test")
    two = [{**aux, "data": str(unlabelled[0] / "gone.txt")}, {"name": "mine", "data": str(unlabelled[0])}]
    tree = recipe(tiny_task, tiny_model, two[0]) | {"aux_data": two}
    with pytest.raises(CrossdistilError) as caught:
        prepare(parse_recipe(tree, "test"), "test", 8)
    assert "gone.txt" in str(caught.value) and "aux_data[1].text: needed" in str(caught.value)
    assert f"aux_data[0].data: {unlabelled[0] / 'gone.txt'}: no such file or folder" in str(caught.value)
    with pytest.raises(RecipeError, match=r"aux_data\[0\].weight: .*greater than 0"):
        parse_recipe(recipe(tiny_task, tiny_model, {**aux, "weight": 0}), "test")


@pytest.mark.parametrize(
    ("data", "key", "message"),
    [
        ("lines.txt", {"text": "review"}, "aux_data[0].text: {} has no columns: a text a line"),
        ("lines.txt", {"text_pair": "review"}, "aux_data[0].text_pair: {} has no columns: a text a line"),
        ("lines.txt", {"separator": ";"}, "aux_data[0].separator: {} has no columns: a text a line"),
        (
            "table",
            {"text": "review", "text_pair": "review"},
            "aux_data[0].text_pair: names the column 'review', but the task has single texts",
        ),
    ],
)
def test_columns_that_nothing_reads_are_refused(unlabelled, tiny_task, data, key, message):
    spec = resolve_task(TaskSection(name="sst-2", data=tiny_task))
    section = AuxSection(name="reviews", data=unlabelled[0] / data, **key)
    with pytest.raises(DataError) as caught:
        mixed(read_split(spec, tiny_task, "train"), spec, section, "aux_data[0]")
    assert str(caught.value) == message.format(section.data)


def test_a_limit_draws_rows_in_their_order(tiny_task):
    spec = resolve_task(TaskSection(name="sst-2", data=tiny_task))
    train = read_split(spec, tiny_task, "train")
    found = limited(train, 10, "train")
    assert len(found) == 10 and (np.diff(found.line_numbers) > 0).all() and found.line_numbers[-1] > 11
    rows = np.searchsorted(train.line_numbers, found.line_numbers)
    assert list(found.texts) == [train.texts[row] for row in rows]
    np.testing.assert_array_equal(found.labels, train.labels[rows])
    assert found.notes[-1] == "train.tsv: 10 of 44 rows are used (task.limit), drawn at random"
    again = limited(train, {"train": 10, "dev": 3}, "train")
    assert list(again.texts) == list(found.texts)
    for limit in (None, 44, 100, {"dev": 3}):
        assert limited(train, limit, "train") is train


def test_a_run_is_trained_and_scored_on_so_many(tiny_task, tiny_model):
    tree = tiny.kd_recipe(tiny_task, tiny_model)
    tree["task"]["limit"] = {"train": 9, "dev": 5}
    data = prepare(parse_recipe(tree, "test"), "test", 8).data
    assert [len(data.examples[split]) for split in ("train", "dev")] == [9, 5]
    assert [len(data.tokens[split].lengths) for split in ("train", "dev")] == [9, 5]


@pytest.mark.parametrize("limit", [0, -1, True, "many", {"test": 3}, {"train": 0}, {"train": "all"}])
def test_what_is_no_limit_is_told(limit):
    with pytest.raises(RecipeError, match="limit: "):
        load_recipe("kd", [f"task.limit={json.dumps(limit)}"])


def test_recipes_without_them_have_the_digest_they_had():
    plain = load_recipe("kd")
    assert load_recipe("kd", ["task.limit=null"]).digest() == plain.digest() != load_recipe("kd", ["task.limit=5"]).digest()
    aux = "aux_data=[{name: m, data: d, text: t, label: l%s}]"
    assert load_recipe("kd", [aux % ""]).digest() == load_recipe("kd", [aux % ", weight: 1"]).digest()
