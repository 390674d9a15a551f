"""Training by masked words and by a teacher's words, on each backend: the objective against a plain formula over whole logits in
NumPy float64, runs from text and records to a student that transformers loads, what is frozen stays, and wrong input."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file

from crossdistil.core.app.compare import compare
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.checkpoint import load_model
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.models.masked_lm import make_masked_lm
from crossdistil.core.models.outputs import DECODER_BIAS, DECODER_WEIGHT, WORDS, output_name
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.runs import RunFolder
from crossdistil.tests import tiny
from crossdistil.tests.tiny_masked_lm import write_masked_lm
from crossdistil.tests.word_runs import WEIGHTS, plain_losses, run, word_recipe, write_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A masked language model, and texts of one to three dozen words."""
    root = tmp_path_factory.mktemp("words")
    write_masked_lm(root / "teacher")
    write_texts(root, 90, 3, 14)
    return root


tree = functools.partial(word_recipe, "distilbert", "mlm", "masked_lm", 16)
"""`tree(folder, **train)`: a recipe."""


def metrics_of(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_the_objective_is_the_plain_formula(engine, folder):
    job = prepare(parse_recipe(tree(folder), "recipe"), "recipe", engine.length_step)
    stage = job.stage(0)
    (batch,) = stage.objective.prepare(next(stage.batches.epoch(0)))
    frozen = {f"teacher/{name}": array for name, array in job.teachers["teacher"].parameters.items()}
    values, gradients = engine.gradients(stage.objective.function, job.student.parameters, frozen, batch)
    expected = plain_losses(job, batch)
    np.testing.assert_allclose(values[1:], expected, rtol=1e-5)
    np.testing.assert_allclose(values[0], expected @ np.array(WEIGHTS), rtol=1e-5)

    # The gradient along a random direction, by central differences of the plain formula.
    generator, step, params = np.random.default_rng(0), 1e-4, job.student.parameters
    direction = {name: generator.normal(size=array.shape) for name, array in params.items()}
    moved = []
    for sign in (1, -1):
        job.student.parameters = {n: np.float64(a) + sign * step * direction[n] for n, a in params.items()}
        moved.append(plain_losses(job, batch) @ np.array(WEIGHTS))
    slope = sum(float((np.float64(gradients[name]) * direction[name]).sum()) for name in params)
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), rtol=1e-4)
    untouched = [name for name, gradient in gradients.items() if "pooler" not in name and not np.abs(gradient).max() > 0]
    assert untouched == []


def test_a_student_of_text(folder, tmp_path, backend_name):
    content = tree(folder, epochs=4, steps=None, evaluate_every=12, keep="best", dropout=0.1)
    content["stages"][0]["freeze"] = ["position_embeddings", "token_type_embeddings"]
    result = run(content, tmp_path / "run", backend_name)
    lines = metrics_of(tmp_path / "run")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    scores = [line["evaluation"]["dev"]["mlm_loss"] for line in lines if "evaluation" in line]
    assert len(scores) == 4 and result["student"]["metrics"]["mlm_loss"] == pytest.approx(min(scores), rel=1e-5)
    student, teacher = (load_model(path, words=True) for path in (tmp_path / "run/student", folder / "teacher"))
    assert student.missing_words == () and student.words and student.decoder is None
    changed = {
        n for n, a in student.parameters.items() if n in teacher.parameters and not np.array_equal(a, teacher.parameters[n])
    }
    for table in ("position", "token_type"):
        assert f"bert.embeddings.{table}_embeddings.weight" not in changed
    assert {"bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "cls.predictions.transform.dense.weight"} <= changed


@pytest.mark.only_backend("torch")
def test_an_interrupted_run_goes_on_with_the_same_masks(folder, tmp_path, monkeypatch):
    content = tree(folder, steps=30, save_every=4, evaluate_every=10, keep="best", dropout=0.1)
    run(content, tmp_path / "whole", "torch")
    save = RunFolder.save_state

    def stop(run_folder, state):
        save(run_folder, state)
        if state.step >= 16:  # within the second epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", stop)
    with pytest.raises(KeyboardInterrupt):
        run(content, tmp_path / "broken", "torch")
    monkeypatch.setattr(RunFolder, "save_state", save)
    options = RunOptions("torch", EngineOptions("cpu"), tmp_path / "broken", resume=True)
    execute(parse_recipe(content, "recipe"), "recipe", options, Console(quiet=True))
    whole, broken = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("whole", "broken"))
    assert whole.keys() == broken.keys() and all(np.array_equal(whole[name], broken[name]) for name in whole)


@pytest.mark.only_backend("torch")
def test_runs_are_compared_without_predictions(folder, tmp_path):
    for name in ("torch", "mindspore"):
        options = RunOptions("torch", EngineOptions("cpu"), tmp_path / name, probe=True)
        content = tree(folder, learning_rate=1e-3 if name == "torch" else 2e-3)
        execute(parse_recipe(content, "recipe"), "recipe", options, Console(quiet=True))
    found = compare(tmp_path, ["torch", "mindspore"])
    (pair,) = found["pairs"]
    assert pair["prediction_agreement"] is None and pair["steps_compared"] == 8
    assert pair["gradient_max_relative_difference"] == 0  # of the same first weights
    assert not pair["agree"] and pair["loss_max_relative_difference"] > 1e-3


@pytest.mark.only_backend("torch")
def test_transformers_loads_the_students(folder, tmp_path):
    import torch
    from transformers import AutoModelForMaskedLM

    for kind in ("bert", "distilbert"):
        content = tree(folder)
        content["student"]["architecture"]["model_type"] = kind
        run(content, tmp_path / kind, "torch")
        theirs, info = AutoModelForMaskedLM.from_pretrained(tmp_path / kind / "student", output_loading_info=True)
        unexpected = {name for name in info["unexpected_keys"] if "pooler" not in name}
        assert not info["missing_keys"] and not unexpected and not info["mismatched_keys"]
        ours = load_model(tmp_path / kind / "student", words=True)
        batch = tiny.random_batch(fill=0) | {"masked_rows": np.arange(60, dtype=np.int32)}
        (logits,) = make_masked_lm(ours.config)(ReferenceOps(), ours.parameters, batch)
        inputs = {name: torch.tensor(batch[name]).long() for name in ("input_ids", "attention_mask", "token_type_ids")}
        if kind == "distilbert":
            del inputs["token_type_ids"]
        with torch.no_grad():
            expected = theirs.eval()(**inputs).logits.reshape(60, -1).numpy()
        np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_distilbert_starts_as_the_bert_that_it_is_taken_from(folder):
    content = tree(folder)
    content["student"] = {"architecture": {"model_type": "distilbert", "num_hidden_layers": 2}, "init": {"from": "teacher"}}
    job = prepare(parse_recipe(content, "recipe"), "recipe", 1)
    assert job.student.new == ()
    batch = tiny.random_batch() | {"token_type_ids": np.zeros((5, 12), np.int32)}  # a single text: all of type 0
    names = [output_name("hidden", layer) for layer in range(3)] + [WORDS, DECODER_WEIGHT, DECODER_BIAS]
    made = []
    for model in (job.student, job.teachers["teacher"]):
        made.append(make_forward(model.config.without_dropout(), frozenset(names))(ReferenceOps(), model.parameters, batch))
    for name in names:
        np.testing.assert_allclose(made[0][name], made[1][name], atol=1e-6, err_msg=name)


def test_masks_are_those_of_the_seed_and_not_of_the_batches(folder):
    def drawn(**train):
        job = prepare(parse_recipe(tree(folder, **train), "recipe"), "recipe", 1)
        batches = [batch for step in job.stage(0).batches.epoch(1) for batch in step]
        rows = [
            row[mask > 0].tolist()
            for b in batches
            for row, mask in zip(b["input_ids"], b["attention_mask"] * b["example_mask"][:, None])
        ]
        return sorted(row for row in rows if row)

    assert drawn() == drawn(gradient_accumulation=4) == drawn(batch_size=32)


EVERYTHING = ["embeddings", "encoder", "words"]
WRONG = {
    "a teacher without the head": (
        {"teacher": {"model": "{plain}"}},
        "teacher.model ({plain}): has no cls.predictions.transform.dense.weight: it predicts no words",
    ),
    "a task without masks": (
        {"task": {"name": "corpus", "kind": "text", "data": "{folder}/train.txt", "max_length": 16}},
        "stages[0].objective[1].loss: masked_lm needs masked texts, but task.kind is not 'mlm'",
    ),
    "masking of something else": (
        {"task": {"name": "corpus", "kind": "text", "data": "{folder}/train.txt", "masking": {"probability": 0.2}}},
        "task: masking is for kind: mlm",
    ),
    "labels": (
        {"stages": [{"name": "a", "objective": [{"loss": "hard_label"}], "train": {"steps": 1}}]},
        "hard_label needs labels, but the task is raw text",
    ),
    "nothing left": (
        {"stages": [{"name": "a", "objective": [{"loss": "masked_lm"}], "freeze": EVERYTHING, "train": {"steps": 1}}]},
        "freeze: nothing is left to train",
    ),
    "a BiLSTM": (
        {"student": {"architecture": {"model_type": "bilstm"}}},
        "student: a BiLSTM learns labels or logits of whole texts, but task.kind is 'mlm'",
    ),
    "a dev file that is not there": (
        {"task": {"name": "c", "kind": "mlm", "data": "{folder}/train.txt", "max_length": 16, "files": {"dev": "none.txt"}}},
        "{folder}/none.txt",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input(folder, tiny_model, name):
    change, message = WRONG[name]
    places = {"{plain}": str(tiny_model), "{folder}": str(folder)}
    text = json.dumps(change)
    for place, path in places.items():
        text, message = text.replace(place, path), message.replace(place, path)
    with pytest.raises(CrossdistilError) as error:
        prepare(parse_recipe(tree(folder) | json.loads(text), "recipe"), "recipe", 1)
    assert message in str(error.value)
