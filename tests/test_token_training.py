"""Models that label words: recipes that do not fit, the cuts of a step, a run on each backend, and transformers' classifiers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import TOKEN_LABELS
from crossdistil.core.models.answer_heads import TOKENS
from crossdistil.core.models.known_families import token_families
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.drawn_models import write_drawn
from crossdistil.tests.tagged_files import LABELS, ner_recipe, sentences, write_names


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The data, and an encoder of one layer."""
    folder = tmp_path_factory.mktemp("names")
    write_names(folder / "data")
    tiny.write_model(folder / "encoder", tiny.ONE_LAYER)
    return folder


def test_a_classifier_of_texts_is_no_teacher_of_words(names):
    tree = ner_recipe(names / "data", names / "encoder", teacher={"model": str(names / "encoder")})
    with pytest.raises(CrossdistilError, match="trained for a classification, but the task is a token classification"):
        prepare(parse_recipe(tree, "test"), "test", 1)


def test_an_encoder_is_told_the_recipe_of_token_labels(names, tmp_path):
    shutil.copytree(names / "encoder", tmp_path / "plain")
    weights = load_file(tmp_path / "plain" / "model.safetensors")
    save_file({name: weights[name] for name in weights if "pooler" not in name and "classifier" not in name},
              tmp_path / "plain" / "model.safetensors")  # fmt: skip
    tree = ner_recipe(names / "data", names / "encoder", teacher={"model": str(tmp_path / "plain")})
    with pytest.raises(CrossdistilError, match=r"plain\): has no classifier of tokens; fine-tune it .* \(recipes/ner.yaml\)"):
        prepare(parse_recipe(tree, "test"), "test", 1)


def test_a_teacher_with_another_head_is_told_the_head_that_is_wanted(names, tmp_path):
    shutil.copytree(names / "encoder", tmp_path / "reader")
    path = tmp_path / "reader" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["BertForQuestionAnswering"]}))
    tree = ner_recipe(names / "data", names / "encoder", teacher={"model": str(tmp_path / "reader")})
    with pytest.raises(CrossdistilError, match="a question answering model; expected a classifier of tokens"):
        prepare(parse_recipe(tree, "test"), "test", 1)


@pytest.mark.parametrize("overlap", [8, 14, 500])
def test_windows_with_too_much_in_common_are_refused(names, overlap):
    tree = ner_recipe(names / "data", names / "encoder")
    tree["task"]["tokens"] = {"overlap": overlap}
    message = f"task.tokens.overlap: got {overlap}, expected at most 7, half of the 14 tokens that task.max_length 16 leaves"
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(tree, "test"), "test", 1)


def test_a_scheme_by_its_name_is_told_that_it_is_found(names):
    tree = ner_recipe(names / "data", names / "encoder")
    tree["task"]["tokens"] = {"scheme": "BIOES"}
    with pytest.raises(CrossdistilError, match="task.tokens.scheme: got 'BIOES', expected auto, which finds out whether a file"):
        parse_recipe(tree, "test")


def test_a_family_whose_classifier_of_tokens_is_another_is_refused(names, monkeypatch):
    monkeypatch.setattr("crossdistil.core.student.token_families", lambda: ("albert",))
    with pytest.raises(CrossdistilError, match="model_type: a bert has no classifier of tokens here, expected one of albert"):
        prepare(parse_recipe(ner_recipe(names / "data", names / "encoder"), "test"), "test", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "kd_multi_label"}, "kd_multi_label needs several labels an example"),
        ({"loss": "kd_ce", "temperature_schedule": {"kind": "cwsm", "beta": 1}}, "needs one class an example"),
    ],
)
def test_losses_that_do_not_fit_are_refused(names, change, message):
    tree = ner_recipe(names / "data", names / "encoder", teacher={"model": str(names / "encoder")})
    tree["stages"][0]["objective"] = [change]
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(tree, "test"), "test", 1)


@pytest.mark.only_backend("torch")
def test_a_plugins_loss_over_logits_is_one_over_labelled_tokens(names, tmp_path, said):
    (tmp_path / "mine.py").write_text(
        "from typing import Literal\nfrom crossdistil import LossTerm, register_loss, sum_rows\n\n\n"
        "class Mine(LossTerm):\n    loss: Literal['mine']\n\n    def function(self, context, label):\n"
        "        def of(ops, params, student, teacher, batch):\n"
        "            own = ops.log_softmax(student['logits'])\n"
        "            return -sum_rows(ops, ops.pick(own, batch['labels']) * batch['label_mask'], batch)\n\n"
        "        return of\n\n\nregister_loss(Mine)\n"
    )
    losses = []
    for number, loss in enumerate(("mine", "hard_label")):
        tree = ner_recipe(names / "data", names / "encoder", 2, plugins=["mine.py"])
        tree["stages"][0]["objective"] = [{"loss": loss}]
        (tmp_path / "r.yaml").write_text(json.dumps(tree))
        code, _, errors = said("run", tmp_path / "r.yaml", "--out", tmp_path / str(number), "--backend", "torch")
        assert code == 0, errors
        losses.append(json.loads((tmp_path / str(number) / "metrics.jsonl").read_text().splitlines()[0])["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_accumulation_cuts_the_same_tokens(names):
    recipe = parse_recipe(ner_recipe(names / "data", names / "encoder"), "test")
    job = prepare(recipe, "test", 1)
    table = job.data.tokens["train"]
    for accumulation in (1, 2):
        batches = TrainBatches(table, None, 8, accumulation, (16,), 0)
        labelled = sum(float(part["label_mask"].sum()) for step in batches.epoch(0) for part in step)
        assert labelled == (table.targets >= 0).sum()


def test_a_run_a_student_and_its_spans(names, tmp_path, said, backend_name):
    """Fine-tuned, distilled and asked; where transformers is, its pipeline gives the same spans."""
    (tmp_path / "r.json").write_text(json.dumps(ner_recipe(names / "data", names / "encoder", 40)))
    (tmp_path / "r.yaml").write_text((tmp_path / "r.json").read_text())
    code, printed, errors = said("run", tmp_path / "r.yaml", "--out", tmp_path / "teacher", "--backend", backend_name)
    assert code == 0, errors
    result = json.loads((tmp_path / "teacher" / "result.json").read_text())["student"]["metrics"]
    assert result["word_accuracy"] > 0.75 and set(result) >= {"entity_f1", "entity_precision", "entity_recall"}
    tree = ner_recipe(names / "data", "teacher", 6, teacher={"model": str(tmp_path / "teacher")})
    tree["student"] = {"init": {"from": "random"}}
    tree["stages"][0]["objective"] = [{"loss": "kd_ce", "temperature": 2}, {"loss": "hidden_mse", "layers": [[1, 1]]}]
    tree["stages"][0]["train"]["gradient_accumulation"] = 2
    (tmp_path / "kd.yaml").write_text(json.dumps(tree))
    code, printed, errors = said("run", tmp_path / "kd.yaml", "--out", tmp_path / "kd", "--backend", backend_name)
    assert code == 0, errors
    code, printed, errors = said("compare", tmp_path / "teacher", tmp_path / "kd", "--json")
    assert code == 0, errors
    sides = [json.loads((tmp_path / name / "result.json").read_text())["student"]["metrics"] for name in ("teacher", "kd")]
    tested = {pair["metric"]: pair["difference"] for pair in json.loads(printed)["pairs"]}
    assert tested["entity_f1"] == pytest.approx(sides[0]["entity_f1"] - sides[1]["entity_f1"], abs=1e-12)
    own = load_model(tmp_path / "kd" / "student", classifier=TOKENS)
    assert own.kind == TOKEN_LABELS and own.labels == LABELS and own.parameters["classifier.weight"].shape == (5, 32)
    text = "the good film, bad plot " * 3
    code, printed, errors = said("predict", tmp_path / "teacher", text, "--backend", backend_name)
    assert code == 0, errors
    spans = json.loads(printed)["spans"]
    assert all(text[span["start"] : span["end"]] == span["text"] and 0 < span["score"] <= 1 for span in spans)
    code, printed, errors = said("evaluate", tmp_path / "teacher", "--data", names / "data", "--backend", backend_name)
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(result, abs=1e-6), errors
    file = names / "data" / "dev.conll"
    code, printed, errors = said("predict", tmp_path / "teacher", "--file", file, "--backend", backend_name)
    texts = [json.loads(line)["text"] for line in printed.splitlines()]
    assert code == 0 and texts == [" ".join(word for word, _ in row) for row in sentences(40, 2)], errors


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("family", token_families())
def test_transformers_computes_the_same(family, tmp_path):
    import torch
    from transformers import AutoModelForTokenClassification

    from crossdistil.core.model_answers import logits_function

    folder, ids, mask = write_drawn(tmp_path, family, lambda config: config.answering(TOKENS), 5, LABELS)
    theirs, told = AutoModelForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    with torch.no_grad():
        expected = theirs.eval()(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
    ours = load_model(folder, classifier=TOKENS)
    batch = {"input_ids": ids.astype(np.int32), "attention_mask": mask.astype(np.float32)}
    batch["token_type_ids"] = np.zeros_like(batch["input_ids"])
    found = logits_function(ours.config)(ReferenceOps(), ours.parameters, batch)[0]
    np.testing.assert_allclose(found[mask > 0], expected[mask > 0], atol=1e-5)
