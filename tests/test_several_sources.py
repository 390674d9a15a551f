"""Several teachers, and the texts of several tasks: whose answers are learned, and from whose labels. By hand, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny


def first_batch(job, stage=0):
    """Function, all tensors and the first prepared batch of a stage."""
    made = job.stage(stage)
    frozen = {f"{who}/{name}": array for who, model in job.teachers.items() for name, array in model.parameters.items()}
    [batch] = made.objective.prepare(next(made.batches.epoch(0)))
    return made.objective.function, frozen, batch


def logits_of(model, batch):
    return make_forward(model.config.without_dropout())(ReferenceOps(), model.parameters, batch)["logits"]


def test_several_teachers_speak_with_their_weights(engine, tmp_path, tiny_task, tiny_model):
    tiny.write_model(tmp_path / "other", tiny.CONFIG.model_copy(update={"num_hidden_layers": 3}), seed=9)
    tree = tiny.kd_recipe(tiny_task, tiny_model, dropout=0.0)
    del tree["teacher"]
    tree["teachers"] = {"one": {"model": str(tiny_model), "weight": 3}, "other": {"model": str(tmp_path / "other")}}
    tree["stages"][0]["objective"] = [
        {"loss": "kd_ce", "temperature": 2},
        {"loss": "kd_mse", "weight": 0.25, "teacher": "other"},
        {"loss": "kd_mse", "weight": 0.5},
    ]
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    assert job.teacher_options.weights == {"one": 0.75, "other": 0.25}
    function, frozen, batch = first_batch(job)
    real = batch["example_mask"] > 0
    own, one, other = (logits_of(model, batch)[real] for model in (job.student, *job.teachers.values()))
    mean = 0.75 * one + 0.25 * other
    cross_entropy = -4 * (softmax(mean / 2, axis=1) * log_softmax(own / 2, axis=1)).sum(axis=1).mean()
    by_hand = [cross_entropy, np.square(own - other).mean(), np.square(own - mean).mean()]
    values, gradients = engine.gradients(function, job.student.parameters, frozen, batch)
    assert values[:4] == pytest.approx([by_hand[0] + 0.25 * by_hand[1] + 0.5 * by_hand[2], *by_hand], rel=1e-5)
    assert np.abs(gradients["classifier.weight"]).max() > 1e-3
    # A term that names its teacher does not run the other one.
    tree["stages"][0]["objective"] = [{"loss": "kd_mse", "teacher": "other"}]
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    assert set(job.stage(0).objective.teacher_outputs) == {"other"}


def write_other_task(folder):
    """Sentences whose labels mean something else: CoLA's, with the files that it has."""
    folder.mkdir()
    for split, count in (("train", 15), ("dev", 3)):
        texts, labels = tiny.sentences(count, seed=50 + count)
        rows = [f"source\t{label}\t*\tthe {text} story\n" for text, label in zip(texts, labels)]
        (folder / f"{split}.tsv").write_text("".join(rows))
    return folder


def mixed_job(task, teacher, **other):
    tree = tiny.kd_recipe(task, teacher, dropout=0.0, batch_size=59)
    tree["aux_data"] = [other]
    return prepare(parse_recipe(tree, "test"), "test", 1)


@pytest.mark.only_backend("torch", "oneflow")  # a mask of labels enters the same graph (test_hard_label)
def test_the_texts_of_another_task_teach_without_their_labels(engine, tmp_path, tiny_task, tiny_model):
    job = mixed_job(tiny_task, tiny_model, name="cola", data=str(write_other_task(tmp_path / "cola")))
    train = job.data.examples["train"]
    assert len(train) == len(job.data.tokens["train"].lengths) == 44 + 15
    assert train.label_mask.tolist() == [1.0] * 44 + [0.0] * 15
    assert len(job.data.examples["dev"]) == 21
    function, frozen, batch = first_batch(job)
    labelled = batch["label_mask"] > 0
    assert labelled.sum() == 44 and batch["example_mask"].sum() == 59
    own, taught = logits_of(job.student, batch), logits_of(job.teachers["teacher"], batch)
    soft = -4 * (softmax(taught / 2, axis=1) * log_softmax(own / 2, axis=1)).sum(axis=1).mean()
    hard = -log_softmax(own, axis=1)[np.arange(59), batch["labels"]][labelled].mean()
    values, _ = engine.gradients(function, job.student.parameters, frozen, batch)
    assert values[:3] == pytest.approx([0.5 * soft + 0.5 * hard, soft, hard], rel=1e-5)


def test_labels_of_the_same_classes_stay_labels(tmp_path, tiny_task, tiny_model):
    more = tiny.write_task(tmp_path / "more", train=9)
    job = mixed_job(tiny_task, tiny_model, name="sst-2", data=str(more))
    assert job.data.examples["train"].label_mask.tolist() == [1.0] * 53
    assert job.data.examples["train"].labels[44:].tolist() == tiny.sentences(9, seed=0)[1]
    # A task with a name of its own has the classes that the recipe says it has.
    own = {"name": "mine", "data": str(more), "text": "sentence", "label": "label"}
    assert mixed_job(tiny_task, tiny_model, **own).data.examples["train"].label_mask.all()
    other = mixed_job(tiny_task, tiny_model, **own, labels=["1", "0"])
    assert other.data.examples["train"].label_mask.tolist() == [1.0] * 44 + [0.0] * 9


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"name": "mine"}, "aux_data[0].text: needed, because 'mine' is not a GLUE task; a plugin's task needs --plugin FILE"),
        ({"name": "rte"}, "aux_data[0]: has pairs of texts, the task single texts"),
    ],
    ids=["no columns", "pairs"],
)
def test_a_task_that_cannot_be_mixed_in_is_named(tmp_path, tiny_task, tiny_model, other, message):
    (tmp_path / "train.tsv").write_text("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tentailment\n")
    with pytest.raises(CrossdistilError) as caught:
        mixed_job(tiny_task, tiny_model, data=str(tmp_path), **other)
    assert str(caught.value) == message
