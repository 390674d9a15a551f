"""A head is used as what `architectures` says that it is: every class of transformers, as a classifier and as first weights."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.converters.convert import ConvertOptions, convert
from crossdistil.core.app.finished_model import load_classifier
from crossdistil.core.app.model_notes import all_notes
from crossdistil.core.app.models import model_folder
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.task_specs import glue_task
from crossdistil.core.errors import CheckpointError
from crossdistil.core.fit import teacher_problems
from crossdistil.core.model_sections import StudentSection
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.models.head_classes import other_head, unknown_class
from crossdistil.core.student import build_student
from crossdistil.tests import tiny
from crossdistil.tests.predicting import predicted
from crossdistil.tests.test_config_keys import MODELS, change_config, options, our_probabilities, their_probabilities, written
from crossdistil.tests.tiny_families import ABSENT, class_of, named_tensors

__all__ = ["options"]
OTHERS = {
    "ForTokenClassification": "a token classifier",
    "ForMultipleChoice": "a multiple-choice model",
    "ForQuestionAnswering": "a question answering model",
}
WITHOUT = {
    "bert": ["Model", "ForMaskedLM", "ForPreTraining", "ForNextSentencePrediction"],
    "distilbert": ["Model", "ForMaskedLM"],
    "albert": ["Model", "ForMaskedLM", "ForPreTraining"],
    "electra": ["Model", "ForMaskedLM", "ForPreTraining"],
}
"""Family -> its classes that have no classifier."""
UNKNOWN_TO_CONVERSIONS = {("electra", "ForMultipleChoice")}
"""Heads of other tasks that no conversion knows."""
FORMATS = ["safetensors", "bin"]


def as_pickle(folder) -> None:
    """The weights as older versions wrote them."""
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def written_as(folder, family, kind, container):
    """A model of a class of transformers."""
    theirs = written(folder, MODELS[family], kind)
    if container == "bin":
        as_pickle(folder)
    return theirs


def assert_same_encoder(ours, theirs) -> None:
    """Every weight of the encoder, by transformers' own names."""
    root = ours.config.family.root
    state = named_tensors(theirs, copies=True)
    state = {name if name.startswith(root) else root + name: array for name, array in state.items()}
    encoder = [name for name in tensor_shapes(ours.config, None) if name in state]
    assert len(encoder) >= 14 and set(encoder) <= ours.parameters.keys()
    for name in encoder:
        np.testing.assert_array_equal(ours.parameters[name], state[name])


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(("family", "kind"), sorted(ABSENT))
def test_transformers_does_not_have_what_is_left_out(family, kind):
    with pytest.raises(AttributeError, match=kind):
        class_of(MODELS[family], kind)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize(("family", "kind"), [(one, kind) for one in MODELS for kind in OTHERS if (one, kind) not in ABSENT])
def test_other_heads_are_no_classifiers_of_sentences_and_are_left_out(family, kind, container, tmp_path):
    folder = tmp_path / "model"
    theirs = written_as(folder, family, kind, container)
    if container == "bin" and (family, kind) in UNKNOWN_TO_CONVERSIONS:
        title = CONFIGURATIONS[family].family.title
        with pytest.raises(CheckpointError, match=f"architectures is {title}{kind}: its head cannot have"):
            model_folder(folder)
        return
    found = model_folder(folder)
    ours = load_model(found)
    assert_same_encoder(ours, theirs)
    assert ours.outputs is None and ours.labels is None
    notes = all_notes(ours.notes, (folder, found))
    assert len([note for note in notes if OTHERS[kind] in note and "left out" in note]) >= 1
    assert all(str(found) not in note for note in notes) or found == folder
    with pytest.raises(CheckpointError, match="expected a classifier of sentences|so it cannot classify"):
        load_classifier(folder)
    section = StudentSection(init={"from": str(found)})
    student, problems = build_student(section, None, 2, ("LABEL_0", "LABEL_1"), seed=0)
    assert not problems and {"classifier.bias", "classifier.out_proj.bias", "score.weight"} & set(student.new)
    assert set(notes) == set(all_notes(student.notes, (folder, found)))


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize(("family", "kind"), [(family, kind) for family, kinds in WITHOUT.items() for kind in kinds])
def test_pretrained_models_cannot_classify_and_are_first_weights(family, kind, container, tmp_path):
    folder = tmp_path / "model"
    theirs = written_as(folder, family, kind, container)
    ours = load_model(model_folder(folder))
    assert_same_encoder(ours, theirs)
    assert ours.outputs is None and ours.notes == ()
    with pytest.raises(CheckpointError, match="so it cannot classify; fine-tune it first"):
        load_classifier(folder)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize("family", MODELS)
def test_sentence_classifiers_give_their_logits(family, container, tmp_path, options):
    written(tmp_path / "model", MODELS[family], num_labels=3)
    expected = their_probabilities(tmp_path / "model")
    if container == "bin":
        as_pickle(tmp_path / "model")
    np.testing.assert_allclose(our_probabilities(tmp_path / "model", options), expected, atol=2e-5)


@pytest.mark.only_backend("torch")
def test_a_decoder_is_refused_by_each_reader(tmp_path, options):
    for kind, reason in (
        ("ForMaskedLM", "is_decoder is True: a decoder"),
        ("LMHeadModel", "architectures is BertLMHeadModel: a causal"),
    ):
        for container in FORMATS:
            folder = tmp_path / kind / container
            written(folder, tiny.CONFIG, kind, **({"is_decoder": True} if kind == "ForMaskedLM" else {}))
            if container == "bin":
                as_pickle(folder)
            with pytest.raises(CheckpointError, match=f"config.json: {reason}"):
                predicted(folder, ["a"], options)
            with pytest.raises(CheckpointError, match=f"config.json: {reason}"):
                convert(folder, tmp_path / "out", ConvertOptions("mindspore"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"architectures": ["TFBertForTokenClassification"]}, "ForTokenClassification"),
        ({"architectures": ["BertCrfForNer"]}, "ForTokenClassification"),
        ({"architectures": ["BertForSwag"]}, "ForMultipleChoice"),
        ({"architectures": ["BertForSQuAD"]}, "ForQuestionAnswering"),
        ({"id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}}, "ForTokenClassification"),
        ({"architectures": ["BertModel"], "id2label": {"0": "O", "1": "B-PER"}}, None),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "O", "1": "B-PER"}}, None),
        ({"problem_type": "regression", "id2label": {"0": "valence", "1": "arousal"}}, "ForSequenceClassification"),
        ({"problem_type": "regression", "id2label": {"0": "score"}}, None),
        ({"id2label": {"0": "O", "1": "no"}}, None),
        ({"architectures": ["BertForEmotion"]}, None),
        ({"architectures": "BertForTokenClassification"}, None),
        ({"architectures": [None]}, None),
        ({}, None),
    ],
)
def test_what_is_said_of_a_head(raw, kind):
    head = other_head(raw)
    assert (None if head is None else head.head.ending) == kind


def test_a_class_that_nobody_knows_is_told(tmp_path):
    tiny.write_model(tmp_path / "model")
    change_config(tmp_path / "model", architectures=["BertForEmotion"])
    model = load_model(tmp_path / "model")
    (note,) = model.notes
    assert "architectures is BertForEmotion, which is not known here" in note and model.outputs == 2
    assert unknown_class({"architectures": ["BertForPreTraining"]}) == ""


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"architectures": ["BertForTokenClassification"]}, "a token classifier"),
        ({"problem_type": "regression"}, "problem_type is regression, of 2 numbers: only one is computed here"),
    ],
)
def test_such_a_teacher_is_refused_for_what_it_is(tmp_path, keys, reason):
    tiny.write_model(tmp_path / "model")
    change_config(tmp_path / "model", **keys)
    (problem,) = teacher_problems(load_model(tmp_path / "model"), glue_task("sst-2"), "teacher.model")
    assert problem.startswith("teacher.model: ") and reason in problem


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("kind", ["ForTokenClassification", "ForMultipleChoice"])
def test_a_conversion_keeps_the_class(kind, tmp_path):
    """Whose tensors are those of a classifier: no other class, no labels that are none, no regression."""
    written(tmp_path / "model", tiny.CONFIG, kind)
    before = json.loads((tmp_path / "model" / "config.json").read_text())
    convert(tmp_path / "model", tmp_path / "out", ConvertOptions("pytorch"))
    after = json.loads((tmp_path / "out" / "config.json").read_text())
    assert after["architectures"] == before["architectures"] and "problem_type" not in after
