"""Models that label words where they are used: exported with the gates of classifiers, and served with spans in characters of a
text; transformers, and `predict` over NumPy, are the referees."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from crossdistil.core.app.exporting import ExportOptions, GateError, export
from crossdistil.core.app.finished_model import load_user_model
from crossdistil.core.app.service_model import Item, ServedModel, read_classifier
from crossdistil.core.app.text_spans import spans_in
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.batches import length_buckets
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CheckpointError
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.answer_heads import TOKENS
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.world import World
from crossdistil.tests import tiny
from crossdistil.tests.tagged_files import write_names

pytestmark = pytest.mark.environment_of("torch")  # whose environment has ONNX Runtime and transformers
LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
LENGTH = 16
TEXTS = ["", "a", "The great film, bad plot", "🙂 great 这家店 bad", "it is a great film " * 30]


def write_tagger(folder, **task):
    """A folder with random weights that label words."""
    vocabulary = tiny.write_vocabulary(folder.parent / f"{folder.name}-vocabulary")
    config = tiny.CONFIG.answering(TOKENS)
    about = {"task": {"name": "names", "kind": "tokens", "max_length": LENGTH, **task}, "max_length": LENGTH}
    model = Model(config, tiny.random_parameters(config, len(LABELS), 3), len(LABELS), LABELS, about=about)
    save_model(model, folder, load_tokenizer(vocabulary))
    return folder


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return write_tagger(tmp_path_factory.mktemp("tagger") / "model")


@pytest.fixture(scope="module")
def exported(tagger):
    """(folder, report) of it in ONNX."""
    folder = tagger.parent / "exported"
    return folder, export(tagger, folder, ExportOptions(data=write_names(tagger.parent / "data")), print)


def expected_spans(folder, texts):
    """By NumPy in float64."""
    model = load_model(folder, classifier=TOKENS)
    function = logits_function(model.config)

    def infer(batch):
        return function(ReferenceOps(), model.parameters, batch)

    return spans_in(model, load_tokenizer(folder), infer, texts, LENGTH, length_buckets(LENGTH, 1), World(), print)


def assert_spans(found, expected):
    for spans, others in zip(found, expected, strict=True):
        assert [{**one, "score": None} for one in spans] == [{**one, "score": None} for one in others]
        assert [one["score"] for one in spans] == pytest.approx([one["score"] for one in others], abs=1e-5)


def test_an_export_is_judged_by_its_tokens(exported):
    folder, report = exported
    gates = {gate["name"]: gate for gate in report["gates"]}
    assert set(gates) >= {"parity with float64", "alone and in a batch", "same answers on dev, %"}
    assert all(gate["passed"] for gate in report["gates"]) and {"entity_f1", "word_accuracy"} <= report["dev"].keys()
    assert "token-classification" in (folder / "README.md").read_text()


def test_the_graph_gives_transformers_logits(tagger, exported):
    import onnxruntime
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(tagger)(["a great film", "bad"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = AutoModelForTokenClassification.from_pretrained(tagger).eval()(**tokens).logits.numpy()
    kinds = {"input_ids": np.int32, "token_type_ids": np.int32, "attention_mask": np.float32}
    given = {name: tokens[name].numpy().astype(kind) for name, kind in kinds.items()}
    [found] = onnxruntime.InferenceSession(str(exported[0] / "model.onnx")).run(["logits"], given)
    real = given["attention_mask"] > 0
    assert found.shape == theirs.shape
    np.testing.assert_allclose(found[real], theirs[real], atol=1e-5)


def test_one_that_answers_otherwise_is_not_written(tagger, tmp_path, monkeypatch):
    from crossdistil.core.app import export_targets, exporting

    onnx = export_targets.TARGETS["onnx"]

    def load(path, config):
        infer = onnx.load(path, config)
        return lambda batch: [infer(batch)[0] + 0.01 * batch["attention_mask"][..., None]]

    monkeypatch.setitem(exporting.TARGETS, "onnx", dataclasses.replace(onnx, load=load))
    with pytest.raises(GateError, match="parity with float64"):
        export(tagger, tmp_path / "out", ExportOptions(), print)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("batch", [2, 32])
def test_served_spans_are_those_of_predict(tagger, exported, batch):
    from crossdistil.core.app.service_requests import PredictAnswer

    for folder in (tagger, exported[0]):
        served = read_classifier(folder, "onnx", None, print).load(batch, EngineOptions("cpu"))
        found = {}
        for numbers, answers in served.answers([Item(text, None) for text in TEXTS]):
            found |= zip(numbers, answers, strict=True)
        assert sorted(found) == list(range(len(TEXTS)))
        assert_spans([found[number].fields["spans"] for number in range(len(TEXTS))], expected_spans(tagger, TEXTS))
        for number, text in enumerate(TEXTS):
            answer = PredictAnswer.model_validate(found[number].as_json())
            assert all(text[span.start : span.end] == span.text for span in answer.spans) and not answer.truncated
        assert found[4].tokens > 5 * LENGTH  # in windows


def test_engines_with_fixed_shapes_answer_the_same(tagger):
    """As MindSpore's, which fill a batch with rows of nothing."""
    model, tokenizer = load_user_model(tagger, "serve", print)
    function = logits_function(model.config)
    served = ServedModel(
        model, tokenizer, lambda batch: function(ReferenceOps(), model.parameters, batch), None, LENGTH, 4
    )
    found = {}
    for numbers, answers in served.answers([Item(text, None) for text in TEXTS]):
        found |= zip(numbers, answers, strict=True)
    assert_spans([found[number].fields["spans"] for number in range(len(TEXTS))], expected_spans(tagger, TEXTS))


def test_texts_without_a_word_have_no_spans(tagger, exported, said):
    for texts in ([""], [" ", ""]):
        assert expected_spans(tagger, texts) == [()] * len(texts)
    for folder in (tagger, exported[0]):
        code, printed, errors = said("predict", folder, "")
        assert (code, json.loads(printed)) == (0, {"text": "", "spans": []}), errors


def test_legal_sequences_and_overlaps_are_those_of_the_training(tmp_path):
    folder = write_tagger(tmp_path / "model", tokens={"constrained": True, "overlap": 2})
    served = read_classifier(folder, "onnx", None, print).load(8, EngineOptions("cpu"))
    [(_, [answer])] = list(served.answers([Item(TEXTS[4], None)]))[-1:]
    assert_spans([answer.fields["spans"]], expected_spans(folder, TEXTS[4:]))


def test_the_page_marks_spans(exported):
    from crossdistil.core.app.service_app import render_page
    from crossdistil.core.app.service_bodies import About
    from crossdistil.core.kinds.known_kinds import TOKEN_LABELS

    page, _ = render_page(About("names", False, LENGTH, False, 1.0, 8, TOKEN_LABELS))
    assert "windows of 16 tokens" in page and "Find</button>" in page and 'id="pair"' not in page
    page, _ = render_page(About("plain", False, LENGTH, False, 1.0, 8))
    assert "Up to 16 tokens are read." in page and "Classify</button>" in page


def test_a_kind_that_is_not_used_is_refused(tagger, monkeypatch):
    from crossdistil.core.kinds.token_labels import TokenLabels

    monkeypatch.setattr(TokenLabels, "is_used", False)
    with pytest.raises(CheckpointError, match="is a model of token classification, which serve does not take"):
        load_user_model(tagger, "serve", print)
