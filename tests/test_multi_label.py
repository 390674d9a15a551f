"""Tasks in which an example has any number of labels: from the file's cell to a distilled student, its folder, its scores
and its predictions."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import expit, log_expit

import crossdistil
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.checkpoint import load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import ONE_CLASS, SEVERAL_LABELS
from crossdistil.core.metrics import compute_metrics
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.test_predict import reference_logits

LABELS = ("actor", "film", "plot")
"""The labels of a sentence are those of these words that are in it."""


def section(folder, **changes):
    given = {"name": "topics", "data": folder, "kind": "multi_label", "text": "text", "label": "topics", "max_length": 16}
    return TaskSection(**{**given, **changes})


def read(folder, split="train", **changes):
    found = section(folder, **changes)
    return read_split(resolve_task(found), found.data, split)


def write_topics(folder, train=44, dev=21):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (split, count) in enumerate({"train": train, "dev": dev}.items()):
        texts = tiny.sentences(count, seed)[0]
        rows = [f"{text}\t{'|'.join(label for label in LABELS if label in text.split())}\n" for text in texts]
        (folder / f"{split}.tsv").write_text("text\ttopics\n" + "".join(rows))
    return folder


def write_teacher(folder, multi_label=True):
    model = tiny.write_model(folder, labels=LABELS, seed=5)
    model = dataclasses.replace(model, kind=SEVERAL_LABELS if multi_label else ONE_CLASS)
    save_model(model, folder, load_tokenizer(folder))
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_topics(tmp_path_factory.mktemp("several") / "topics")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("several") / "teacher")


def recipe_of(task, teacher, objective, **train):
    tree = tiny.kd_recipe(task, teacher, **train)
    tree["task"] = section(task).model_dump(mode="json", exclude_none=True)
    tree["stages"][0]["objective"] = objective
    return parse_recipe(tree, "test")


BOTH = [{"loss": "kd_multi_label", "temperature": 2, "weight": 0.5}, {"loss": "hard_label", "weight": 0.5}]


# ---------------------------------------------------------------------------------------------- the data

def test_cells_hold_any_number_of_labels(tmp_path):
    (tmp_path / "train.tsv").write_text("text\ttopics\na\tplot|film\nb\t\nc\tactor\nd\tfilm | actor|plot\n")
    examples = read(tmp_path)
    assert resolve_task(section(tmp_path)).labels == LABELS
    assert examples.labels.dtype == np.float32
    assert examples.labels.tolist() == [[0, 1, 1], [0, 0, 0], [1, 0, 0], [1, 1, 1]]
    given = read(tmp_path, labels=["plot", "actor", "film", "sound"])
    assert given.labels.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 0]]


def test_json_lines_hold_lists(tmp_path):
    cells = [["plot", "film"], [], "actor|plot", "", [10], [9, "film"], True]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": "a", "topics": cell}) + "\n" for cell in cells))
    labels = ["9", "10", "actor", "film", "plot", "true"]
    assert sorted(resolve_task(section(tmp_path)).labels) == sorted(labels)
    found = read(tmp_path, labels=labels).labels
    expected = [{"plot", "film"}, set(), {"actor", "plot"}, set(), {"10"}, {"9", "film"}, {"true"}]
    assert [{label for label, there in zip(labels, row) if there} for row in found] == expected


BAD_CELLS = {
    "unknown": ("train.tsv", "text\ttopics\na\tplot\nb\tplot|plott\n", r"train\.tsv:3: got label 'plott', expected one of"),
    "twice": ("train.tsv", "text\ttopics\na\tplot|film|plot\n", r"train\.tsv:2: a label is there twice: 'plot', 'film', 'plot'"),
    "nothing between": ("train.tsv", "text\ttopics\na\tplot||film\n", r"train\.tsv:2: 'topics' holds \"\", expected a label"),
    "null": ("train.jsonl", '{"text": "a", "topics": null}\n', r"train\.jsonl:1: 'topics' is null, expected a label"),
    "list in list": ("train.jsonl", '{"text": "a", "topics": [["plot"]]}\n', r"train\.jsonl:1: 'topics' holds \[\"plot\"\]"),
}


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_bad_cell_is_named_with_its_line(tmp_path, case):
    name, content, message = BAD_CELLS[case]
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path, labels=list(LABELS))


def test_labels_that_make_no_task(tmp_path):
    (tmp_path / "train.tsv").write_text("text\ttopics\na\tplot\nb\t\n")
    with pytest.raises(DataError, match=r"every row has the label 'plot', expected two"):
        resolve_task(section(tmp_path))
    (tmp_path / "train.tsv").write_text("text\ttopics\na\t\n")
    with pytest.raises(DataError, match=r"every row is without a label"):
        resolve_task(section(tmp_path))
    with pytest.raises(DataError, match=r"task\.kind: 'sst-2' is a classification task, got 'multi_label'"):
        resolve_task(section(tmp_path, name="sst-2"))


# ---------------------------------------------------------------------------------------------- the metrics

def test_metrics_by_hand():
    # By column: (2 hits, 1 false, 0 missed), (1, 0, 2), (0, 1, 0); rows 0 and 3 are right.
    labels = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    logits = np.array([[2.0, 0.1, -1.0], [3.0, -0.5, -2.0], [0.5, 0.0, 1.0], [-1.0, -1.0, -0.1]])
    found = compute_metrics(["micro_f1", "macro_f1", "exact_match"], logits, labels)
    assert found == pytest.approx(
        {"micro_f1": 2 * 3 / (2 * 3 + 2 + 2), "macro_f1": (4 / 5 + 2 / 4 + 0.0) / 3, "exact_match": 2 / 4}
    )


def test_metrics_are_those_of_scikit_learn():
    from sklearn.metrics import accuracy_score, f1_score

    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(50, 7)), (generator.random((50, 7)) < 0.4).astype(np.float32)
    labels[:, 3], logits[:, 3] = 0.0, -1.0  # a label that is neither there nor predicted
    found = compute_metrics(["micro_f1", "macro_f1", "exact_match"], logits, labels)
    predicted = logits > 0
    assert found == pytest.approx(
        {
            "micro_f1": f1_score(labels, predicted, average="micro"),
            "macro_f1": f1_score(labels, predicted, average="macro", zero_division=0),
            "exact_match": accuracy_score(labels, predicted),
        }
    )
    assert all(type(value) is float for value in found.values())
    nothing = compute_metrics(["micro_f1", "macro_f1", "exact_match"], np.full((2, 3), -1.0), np.zeros((2, 3)))
    assert nothing == {"micro_f1": 0.0, "macro_f1": 0.0, "exact_match": 1.0}


def test_metrics_that_do_not_fit(task):
    with pytest.raises(DataError, match="'accuracy' does not fit several labels an example; the metrics are micro_f1"):
        compute_metrics(["accuracy"], np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(DataError, match="'exact_match'"):
        compute_metrics(["exact_match"], np.ones((2, 3)), np.ones(2))
    assert resolve_task(section(task)).metrics == ("micro_f1", "macro_f1", "exact_match")
    assert resolve_task(section(task, metrics=["exact_match"])).metrics == ("exact_match",)
    with pytest.raises(DataError, match=r"task\.metrics: 'accuracy' is no metric for this task"):
        resolve_task(section(task, metrics=["accuracy"]))


# ---------------------------------------------------------------------------------------------- the model and the job

def test_the_folder_says_it(teacher):
    assert json.loads((teacher / "config.json").read_text())["problem_type"] == "multi_label_classification"
    loaded = load_model(teacher)
    assert loaded.kind == SEVERAL_LABELS and loaded.labels == LABELS


def test_losses_and_teachers_that_do_not_fit_are_refused_with_a_hint(task, teacher, tiny_task, tiny_model, tmp_path):
    with pytest.raises(CrossdistilError, match=r"objective\[0\]\.loss: kd_ce needs one class an example.*use kd_multi_label"):
        prepare(recipe_of(task, teacher, [{"loss": "kd_ce"}]), "test", 1)
    with pytest.raises(CrossdistilError, match=r"objective\[0\]\.probability_shift: needs one class an example"):
        prepare(recipe_of(task, teacher, [{"loss": "kd_mse", "probability_shift": True}]), "test", 1)
    plain = tiny.kd_recipe(tiny_task, tiny_model)
    plain["stages"][0]["objective"] = [{"loss": "kd_multi_label"}]
    with pytest.raises(CrossdistilError, match=r"kd_multi_label needs several labels an example; for this task use kd_ce"):
        prepare(parse_recipe(plain, "test"), "test", 1)
    other = write_teacher(tmp_path / "other", multi_label=False)
    with pytest.raises(CrossdistilError, match=r"trained for a classification, but the task is a multi-label classification"):
        prepare(recipe_of(task, other, BOTH), "test", 1)


def test_the_head_of_another_kind_is_not_kept(task, teacher, tmp_path):
    """The same labels, but logits that were trained for a softmax over them."""
    start = write_teacher(tmp_path / "start", multi_label=False)
    for folder, new in ((start, ("classifier.weight", "classifier.bias")), (teacher, ())):
        tree = recipe_of(task, teacher, BOTH).model_dump(mode="json", by_alias=True)
        tree["student"]["init"]["from"] = str(folder)
        assert prepare(parse_recipe(tree, "test"), "test", 1).student.new == new


def test_a_second_task_must_have_the_same_labels_in_the_same_way(task, teacher, tmp_path):
    job = {}
    for name, kind, label in (("same", "multi_label", "plot|film"), ("single", "classification", "plot")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.tsv").write_text(f"text\ttopics\na film\t{label}\n")
        tree = recipe_of(task, teacher, BOTH).model_dump(mode="json", by_alias=True)
        more = section(folder, name=name, kind=kind, labels=list(LABELS))
        tree["aux_data"] = [more.model_dump(mode="json", exclude_none=True)]
        job[name] = prepare(parse_recipe(tree, "test"), "test", 1).data.examples["train"]
    assert job["same"].labels[-1].tolist() == [0, 1, 1] and job["same"].label_mask[-1] == 1
    assert job["single"].labels.shape == (45, 3) and job["single"].label_mask[-1] == 0


# ---------------------------------------------------------------------------------------------- a distillation

@pytest.fixture(scope="module")
def distilled(backend_name, pytestconfig, task, teacher, tmp_path_factory):
    """A finished run of one step per log line, without dropout: its folder and result."""
    from rich.console import Console

    recipe = recipe_of(task, teacher, BOTH, steps=6, dropout=0.0, log_every=1)
    options = RunOptions(backend_name, EngineOptions(pytestconfig.getoption("--device")), tmp_path_factory.mktemp("run") / "out")
    return options.out, execute(recipe, "test", options, Console(quiet=True)), recipe


def test_the_first_loss_is_the_formula(distilled, teacher):
    folder, _, recipe = distilled
    job = prepare(recipe, "test", 1)
    [batch] = next(job.stage(0).batches.epoch(0))
    texts = read(recipe.task.data).texts
    # The rows of the first batch by their tokens, each alone.
    tokens = job.data.tokens["train"]
    rows = [
        next(
            row
            for row, start in enumerate(tokens.offsets[:-1])
            if tokens.ids[start : tokens.offsets[row + 1]].tolist() == ids[mask > 0].tolist()
        )
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"])
    ]
    labels = job.data.examples["train"].labels[rows]
    np.testing.assert_array_equal(batch["labels"], labels)
    save_model(job.student, folder.parent / "first", job.data.tokenizer)
    own = reference_logits(folder.parent / "first", [texts[row] for row in rows])
    taught = reference_logits(teacher, [texts[row] for row in rows])
    hard = -(labels * log_expit(own) + (1 - labels) * log_expit(-own)).mean()
    p = expit(taught / 2)
    soft = -4 * (p * log_expit(own / 2) + (1 - p) * log_expit(-own / 2)).mean()
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.5 * soft + 0.5 * hard, rel=1e-5)


def test_the_result_and_the_student(distilled, task):
    folder, result, _ = distilled
    assert set(result["student"]["metrics"]) == {"micro_f1", "macro_f1", "exact_match"} == set(result["teacher"]["metrics"])
    loaded = load_model(folder / "student")
    assert loaded.kind == SEVERAL_LABELS and loaded.labels == LABELS
    examples = read(task, "dev")
    expected = compute_metrics(["micro_f1", "exact_match"], reference_logits(folder / "student", examples.texts), examples.labels)
    for name, value in expected.items():
        assert result["student"]["metrics"][name] == pytest.approx(value), name


def test_evaluate_and_predict(distilled, task, backend_name, pytestconfig):
    folder, result, _ = distilled
    settings = {"backend": backend_name, "device": pytestconfig.getoption("--device")}
    assert crossdistil.evaluate(folder / "student", task, **settings) == pytest.approx(result["student"]["metrics"])
    texts = read(task, "dev").texts
    predictions = crossdistil.predict(folder / "student", texts, **settings)
    probabilities = expit(reference_logits(folder / "student", texts))
    assert np.abs(probabilities.sum(axis=1) - 1).max() > 0.1
    for prediction, row in zip(predictions, probabilities):
        assert list(prediction.probabilities.values()) == pytest.approx(row, abs=1e-5)
        assert tuple(prediction.probabilities) == LABELS and prediction.label is None and prediction.score is None
        likely = tuple(label for label, probability in zip(LABELS, row) if probability > 0.5)
        assert prediction.labels == likely or np.abs(row - 0.5).min() < 1e-5
        assert list(prediction.as_json()) == ["text", "probabilities", "labels"]


@pytest.mark.only_backend("torch")
def test_transformers_reads_the_same(distilled, task):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    student, texts = distilled[0] / "student", list(read(task, "dev").texts)
    tokenizer, theirs = AutoTokenizer.from_pretrained(student), AutoModelForSequenceClassification.from_pretrained(student)
    assert theirs.config.problem_type == "multi_label_classification"
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        given = theirs.eval()(**inputs, labels=torch.from_numpy(read(task, "dev").labels))
    logits = reference_logits(student, texts)
    np.testing.assert_allclose(given.logits.numpy(), logits, atol=1e-5)
    labels = read(task, "dev").labels
    assert float(given.loss) == pytest.approx(-(labels * log_expit(logits) + (1 - labels) * log_expit(-logits)).mean(), rel=1e-5)
