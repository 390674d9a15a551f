"""A file of answers teaches as the model that gave them: its first loss is the formula's on every backend, a whole run is that of
the teacher itself, what asks for more than answers is refused, and the result tells what the student keeps."""

from __future__ import annotations

import copy
import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console
from ruamel.yaml import YAML
from scipy.special import log_softmax

from crossdistil.core.app import teaching
from crossdistil.core.app.file_lines import file_warnings
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.app.run_sides import measure_later
from crossdistil.core.data.batches import evaluation_batches
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.registered import NOTHING
from crossdistil.tests import tiny

TEMPERATURE = 3.0


def logits_of(job, model, data, split):
    """What a model of a job answers to a split, by the reference in float64."""
    table, infer = data.tokens[split], logits_function(model.config)
    found = np.zeros((len(table.lengths), model.outputs))
    for rows, batch in evaluation_batches(table, None, 16, data.buckets):
        found[rows] = infer(ReferenceOps(), model.parameters, batch)[0][: len(rows)]
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A recipe, and beside it files of what its teacher answers."""
    root = tmp_path_factory.mktemp("filed")
    tiny.write_model(root / "model")
    tiny.write_task(root / "task")
    tree = tiny.kd_recipe(root / "task", root / "model", log_every=1, keep="last", evaluate_every=100)
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    rows = {"logits.jsonl": {}, "part.jsonl": {}}
    for split in ("train", "dev"):
        lines = (root / "task" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        logits = logits_of(job, job.teachers["teacher"], job.data, split).astype(np.float32)
        for number, (line, own) in enumerate(zip(lines, logits)):
            text = line.split("\t")[0]
            rows["logits.jsonl"].setdefault(text, {"text": text, "logits": own.tolist(), "cost": 0.001})
            share = float(np.exp(log_softmax(own.astype(np.float64)))[1])
            silent = number % 5 == 2 and split == "train"
            told = {"label": None} if silent else {"probabilities": {"positive": share}, "confidence": 0.5 + number / 100}
            rows["part.jsonl"].setdefault(text, {"text": text, **told})
    for name, found in rows.items():
        (root / name).write_text("".join(json.dumps(row) + "\n" for row in found.values()), encoding="utf-8")
    return tree


def by_file(tree, name="logits.jsonl", root=None, **options):
    """The same recipe with a file in place of its teacher."""
    found = copy.deepcopy(tree)
    folder = tree["teacher"]["model"].removesuffix("/model")
    found["teacher"] = {"file": {"path": f"{folder}/{name}", **options}}
    found["student"]["init"] = {"from": tree["teacher"]["model"], "layers": [0]}
    return found


def run(tree, out, backend="torch", **options):
    text = io.StringIO()
    settings = RunOptions(backend, EngineOptions("cpu", "fp32"), out, **options)
    result = execute(parse_recipe(tree, "test"), "test", settings, Console(file=text, width=1000))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [[line["loss"], *line["terms"].values()] for line in lines if "loss" in line], result, text.getvalue()


def test_the_first_loss_is_the_formula(engine, tree):
    """Over those texts that have an answer, each counting by its confidence, with the file's p^(1/T) as targets."""
    tree = by_file(tree, "part.jsonl", unanswered="leave_out", weigh_by="confidence", floor=1e-3, as_labels="always")
    terms = [{"loss": "kd_ce", "temperature": TEMPERATURE}, {"loss": "hard_label", "weight": 0.5}]
    tree["stages"][0]["objective"] = terms
    tree["stages"][0]["train"] |= {"dropout": 0.0}
    job = prepare(parse_recipe(tree, "test"), "test", engine.length_step)
    taught = teaching.Teaching(job, engine, Console(quiet=True))
    stage = taught.stage(0, False)
    assert stage.objective.cached and taught.frozen(stage) == {}
    step = engine.train_step(stage.objective.function, dict(job.student.parameters), {}, stage.optimizer(job.student.parameters))
    micro_batches = next(iter(stage.batches.epoch(0)))
    found = step.run(iter([Step(stage.objective.prepare(micro_batches), 1e-3, 0)]), 1).fetch()[0]
    batch = micro_batches[0]
    real = batch["example_mask"] > 0
    rows = {tuple(ids): row for row, ids in enumerate(_texts(job.data.tokens["train"]))}
    chosen = [rows[tuple(ids[: int(mask.sum())])] for ids, mask in zip(batch["input_ids"][real], batch["attention_mask"][real])]
    own = job.data.examples["train"]
    weights = own.weights[chosen].astype(np.float64)
    np.testing.assert_allclose(np.sort(batch["example_mask"][real]), np.sort(weights), rtol=1e-6)
    forward = make_forward(job.student.config.without_dropout(), frozenset({"logits"}))
    student = np.asarray(forward(ReferenceOps(), job.student.parameters, batch)["logits"], np.float64)[real]
    p = np.exp(log_softmax(own.taught["teacher"].logits[chosen].astype(np.float64), axis=1))
    soft = p ** (1 / TEMPERATURE)
    soft /= soft.sum(axis=1, keepdims=True)
    kd = -(soft * log_softmax(student / TEMPERATURE, axis=1)).sum(axis=1) * TEMPERATURE**2
    hard = -log_softmax(student, axis=1)[np.arange(len(chosen)), p.argmax(axis=1)]
    expected = [float((value * weights).sum() / weights.sum()) for value in (kd, hard)]
    np.testing.assert_allclose(found[1:3], expected, rtol=2e-5)
    assert found[0] == pytest.approx(expected[0] + 0.5 * expected[1], rel=2e-5)


def _texts(table):
    return [table.ids[start:end].tolist() for start, end in zip(table.offsets[:-1], table.offsets[1:])]


@pytest.mark.only_backend("torch", "oneflow")
def test_a_run_is_that_of_the_teacher_itself(backend_name, tmp_path, tree):
    expected, of_teacher, _ = run(tree, tmp_path / "model", backend_name, report=False, latency=False)
    losses, result, printed = run(by_file(tree), tmp_path / "file", backend_name)
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    assert result["teacher"]["metrics"] == pytest.approx(of_teacher["teacher"]["metrics"])
    kept = result["teacher"]["kept"]
    answers = {name: found for name, found in of_teacher["student"]["metrics"].items()}
    assert kept["student"] == pytest.approx(answers["accuracy"]) and kept["teacher"] == result["teacher"]["metrics"]["accuracy"]
    assert kept["retention"] == pytest.approx(kept["student"] / kept["teacher"]) and kept["texts"] == 21 == kept["labelled"]
    assert sum(group["texts"] for group in kept["by_class"]) == 21 == sum(group["texts"] for group in kept["by_confidence"])
    whole = sum(group["texts"] * group["agreement"] for group in kept["by_class"]) / 21
    assert kept["agreement"] == pytest.approx(whole)
    assert result["teacher"]["file"]["per_thousand_texts"]["cost"] == pytest.approx(1.0)
    assert f"the student says the same of {kept['agreement']:.1%} of 21 texts of dev" in printed
    page = (tmp_path / "file" / "report.html").read_text(encoding="utf-8")
    assert "What the student keeps of the file" in page and "logits.jsonl" in page and "1.00 a thousand texts" in page


REFUSED = {
    "hidden states": (
        {"stages.0.objective": [{"loss": "hidden_mse"}]},
        "hidden_mse compares what is inside a model, but 'teacher' is a file, which has answers alone; kd_ce and kd_mse learn",
    ),
    "pooled states": ({"stages.0.objective": [{"loss": "pkd"}]}, "pkd compares what is inside a model"),
    "attention": ({"stages.0.objective": [{"loss": "value_relation_kl"}]}, "value_relation_kl compares what is inside"),
    "layers of it": ({"student.init": {"from": "teacher"}}, "student.init.from is 'teacher', but a file of answers has no"),
    "its tokenizer": ({"student.init": {"from": "random"}}, "student.tokenizer: missing"),
    "modules of it": ({"stages.0.replacement": {}}, "a replacement needs its predecessor, and a file of answers has no layers"),
    "a cache": ({"teacher_cache": {"use": "always"}}, "teacher_cache.use: always, but the teacher is a file"),
    "its largest logits": ({"teacher_cache": {"use": "always", "top_k": 1}}, "answers are all there; leave use and top_k out"),
    "a model too": ({"teacher.model": "x"}, "give either model or file, not both"),
    "neither": ({"teacher.file": None}, "give either model or file"),
    "no term": ({"stages.0.objective": [{"loss": "hard_label"}]}, "teacher.file: no term learns from a teacher"),
    "an unknown column": ({"teacher.file.columns": {"lable": "x"}}, "got 'lable', expected names of what a record holds"),
    "no such file": ({"teacher.file.path": "/nowhere/x.jsonl"}, "teacher.file.path: /nowhere/x.jsonl: no such file"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_asks_for_more_than_answers_is_refused(tree, name):
    changes, message = REFUSED[name]
    tree = by_file(tree)
    for key, value in changes.items():
        *parts, last = key.split(".")
        place = tree
        for part in parts:
            place = place[int(part)] if part.isdigit() else place[part]
        place[last] = value
    with pytest.raises(CrossdistilError) as caught:
        prepare(parse_recipe(tree, "test"), "test", 1)
    assert message in str(caught.value)


def test_the_largest_logits_are_kept_of_a_model_alone(tree):
    both = by_file(tree)
    both["teachers"] = {"model": {"model": tree["teacher"]["model"]}, "file": both.pop("teacher")}
    both["teacher_cache"] = {"use": "always", "top_k": 1}
    prepare(parse_recipe(both, "test"), "test", 1)
    states = {"loss": "hidden_mse", "teacher": "model", "layers": [[2, 1]]}
    both["stages"][0]["objective"] = [{"loss": "kd_ce", "teacher": "file"}, states]
    with pytest.raises(CrossdistilError, match="teacher_cache.top_k: keeps a model's logits, but they are asked of a file"):
        prepare(parse_recipe(both, "test"), "test", 1)


@pytest.mark.only_backend("torch")
def test_a_bilstm_learns_from_a_file(tmp_path, tree):
    tree = by_file(tree)
    tree["student"] = {"architecture": {"model_type": "bilstm", "embedding_size": 8, "hidden_size": 8, "fully_connected_size": 8}}
    tree["stages"][0]["objective"] = [{"loss": "kd_mse"}]
    losses, result, _ = run(tree, tmp_path / "run", report=False, latency=False)
    assert losses[-1][0] < losses[0][0] and "agreement" in result["teacher"]["kept"]


@pytest.mark.only_backend("torch")
def test_a_file_and_a_model_teach_together(tmp_path, tree):
    model = tree["teacher"]["model"]
    both = by_file(tree)
    both["teachers"] = {"model": {"model": model}, "file": both.pop("teacher")}
    expected, _, _ = run(tree, tmp_path / "one", report=False, latency=False)
    losses, result, _ = run(both, tmp_path / "two", report=False, latency=False)
    np.testing.assert_allclose(losses, expected, rtol=2e-5)  # the mean of two that say the same
    assert set(result["teachers"]) == {"model", "file"} and "kept" in result["teachers"]["file"]


@pytest.mark.only_backend("torch")
def test_a_run_goes_on_with_the_same_data_alone(tmp_path, tree):
    """Other texts, labels or answers than it was begun with are refused; an earlier version wrote no digests of them."""
    own, out = by_file(tree), tmp_path / "run"
    shutil.copytree(own["task"]["data"], tmp_path / "data")
    shutil.copy(own["teacher"]["file"]["path"], tmp_path / "answers.jsonl")
    own["task"]["data"], own["teacher"]["file"]["path"] = str(tmp_path / "data"), str(tmp_path / "answers.jsonl")
    options = {"report": False, "latency": False}
    run(own, out, **options)
    (out / "result.json").unlink()
    answers, train = tmp_path / "answers.jsonl", tmp_path / "data" / "train.tsv"
    first = json.loads(answers.read_text(encoding="utf-8").splitlines()[0])
    row = train.read_text(encoding="utf-8").splitlines()[-1]
    text, label = row.split("\t")
    changes = [
        (answers, json.dumps(first["logits"]), json.dumps(first["logits"][::-1]), "answers of teacher"),
        (train, row, f"{text}\t{1 - int(label)}", "labels of train"),
        (train, f"{text}\t", f"  {text[::-1]}\t", "training texts"),
    ]
    for path, old, new, what in changes:
        before = path.read_text(encoding="utf-8")
        assert old in before
        path.write_text(before.replace(old, new), encoding="utf-8")
        answers.write_text(answers.read_text() + json.dumps({**first, "text": text[::-1]}) + "\n", encoding="utf-8")
        with pytest.raises(CrossdistilError, match=f"run: was started with other data: the {what} have changed since"):
            run(own, out, resume=True, **options)
        path.write_text(before, encoding="utf-8")
    marker = json.loads((out / "run.json").read_text())
    del marker["data"]
    (out / "run.json").write_text(json.dumps(marker))
    assert run(own, out, resume=True, **options)[1]["steps"] == 12


@pytest.mark.only_backend("torch")
def test_a_report_has_the_texts_that_the_file_labels(tmp_path, tree):
    own, data = by_file(tree, as_labels="where_missing"), tmp_path / "data"
    shutil.copytree(own["task"]["data"], data)
    for split in ("train", "dev"):
        lines = (data / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        (data / f"{split}.tsv").write_text("".join(line.split("\t")[0] + "\n" for line in lines), encoding="utf-8")
    own["task"]["data"] = str(data)
    _, result, printed = run(own, tmp_path / "run", latency=False)
    assert result["teacher"]["kept"]["texts"] == 21 and "without texts" not in printed
    page, found = (tmp_path / "run" / "report.html").read_text(encoding="utf-8"), measured_later(tmp_path / "run")
    assert "By the length of the text" in page and found == {"student"}


def measured_later(folder):
    """Whose latency is measured of a run that has ended."""
    tree = YAML(typ="safe").load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    result = json.loads((folder / "result.json").read_text())
    measure_later(folder, result, tree, "torch", NOTHING, print)
    return set(json.loads((folder / "latency.json").read_text())["models"])


def test_labels_alone_and_a_temperature_are_told(tmp_path, tree):
    name = "labels.jsonl"
    folder = tree["teacher"]["model"].removesuffix("/model")
    rows = [json.loads(line) for line in open(f"{folder}/logits.jsonl", encoding="utf-8")]
    with open(f"{folder}/{name}", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": row["text"], "label": int(np.argmax(row["logits"]))}) + "\n" for row in rows)
    job = prepare(parse_recipe(by_file(tree, name), "test"), "test", 1)
    [line] = file_warnings(job)
    assert line.startswith("stages[0].objective[0].temperature: 2, but 44 of 44 answers of 'teacher' are a label alone, of which")
