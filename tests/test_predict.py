"""What a finished model says: predictions and scores against the float64 reference, one text at a time and without any
padding, and against transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

import crossdistil
from crossdistil.core.app.predicting import predictions
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError, TrainingError
from crossdistil.core.models.encoder import make_forward
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.wrong_input_files import crossdistil as command

TOLERANCE = 1e-5
TEXTS = tiny.sentences(66, seed=3)[0]  # two batches of up to 64
PAIRS = tiny.sentences(66, seed=4)[0]


def reference_logits(folder, texts, pairs=None, max_length=40):
    """Each text alone: no padding, no order, no batches."""
    loaded, tokenizer = load_model(folder), load_tokenizer(folder)
    forward = make_forward(loaded.config.without_dropout())
    logits = []
    for index, text in enumerate(texts):
        table = tokenizer.encode_pairs([text], None if pairs is None else [pairs[index]], max_length)
        length = int(table.lengths[0])
        batch = {
            "input_ids": table.ids[None],
            "token_type_ids": (np.arange(length) >= table.first_lengths[0])[None].astype(np.int32),
            "attention_mask": np.ones((1, length)),
        }
        logits.append(forward(ReferenceOps(), loaded.parameters, batch)["logits"][0])
    return np.array(logits)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier that finds half of the texts positive, so that their order shows."""
    folder = tmp_path_factory.mktemp("texts") / "model"
    made = tiny.write_model(folder)
    logits = reference_logits(folder, TEXTS)
    made.parameters["classifier.bias"][0] -= np.median(logits[:, 0] - logits[:, 1])
    save_model(made, folder, load_tokenizer(folder))
    return folder


@pytest.fixture(scope="module")
def pair_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs") / "model"
    tiny.write_model(folder, labels=("entailment", "neutral", "contradiction"), seed=1)
    return folder


@pytest.fixture(scope="module")
def score_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score") / "model"
    tiny.write_model(folder, labels=None, seed=2)
    return folder


@pytest.fixture(scope="module")
def settings(backend_name, pytestconfig):
    return {"backend": backend_name, "device": pytestconfig.getoption("--device")}


@pytest.fixture(scope="module")
def options(settings):
    return ["--backend", settings["backend"], "--device", settings["device"]]


def assert_predicted(predictions, texts, pairs, labels, logits):
    expected = softmax(logits, axis=1)
    assert [each.text for each in predictions] == list(texts)
    assert [each.pair for each in predictions] == (list(pairs) if pairs else [None] * len(texts))
    found = np.array([list(each.probabilities.values()) for each in predictions])
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    for each, row in zip(predictions, expected):
        assert tuple(each.probabilities) == labels and each.score is None
        assert each.label == labels[row.argmax()] or np.diff(np.sort(row)[-2:]) < TOLERANCE


def test_predictions_are_those_of_each_text_alone(settings, model):
    predictions = crossdistil.predict(model, TEXTS, **settings)
    logits = reference_logits(model, TEXTS)
    assert [each.label for each in predictions].count("positive") == len(TEXTS) / 2
    assert_predicted(predictions, TEXTS, None, ("negative", "positive"), logits)


def test_predictions_of_pairs(settings, pair_model):
    predictions = crossdistil.predict(pair_model, TEXTS, PAIRS, **settings)
    labels = ("entailment", "neutral", "contradiction")
    assert_predicted(predictions, TEXTS, PAIRS, labels, reference_logits(pair_model, TEXTS, PAIRS))


def test_predictions_of_a_regression(settings, score_model):
    predictions = crossdistil.predict(score_model, TEXTS[:5], PAIRS[:5], **settings)
    logits = reference_logits(score_model, TEXTS[:5], PAIRS[:5])
    np.testing.assert_allclose([each.score for each in predictions], logits[:, 0], atol=TOLERANCE)
    assert all(each.label is None and each.probabilities == {} for each in predictions)


@pytest.mark.only_backend("torch")
def test_predictions_are_those_of_transformers(settings, pair_model):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pair_model)
    theirs = AutoModelForSequenceClassification.from_pretrained(pair_model).eval()
    inputs = tokenizer(TEXTS, PAIRS, padding=True, truncation=True, max_length=40, return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**inputs).logits.double().numpy()
    labels = tuple(theirs.config.id2label.values())
    assert_predicted(crossdistil.predict(pair_model, TEXTS, PAIRS, **settings), TEXTS, PAIRS, labels, logits)


def lines_of(answer):
    assert answer.code == 0, answer.stderr
    assert all(" are [UNK]: " in line for line in answer.stderr.splitlines()), answer.stderr
    return [json.loads(line) for line in answer.stdout.split("\n")[:-1]]


def assert_lines(lines, texts, logits, labels=("negative", "positive"), pairs=None):
    keys = ["text", "label", "probabilities"] if pairs is None else ["text", "pair", "label", "probabilities"]
    assert [list(line) for line in lines] == [keys] * len(texts)
    assert [line["text"] for line in lines] == texts
    assert pairs is None or [line["pair"] for line in lines] == pairs
    found = [[line["probabilities"][label] for label in labels] for line in lines]
    np.testing.assert_allclose(found, softmax(logits, axis=1), atol=TOLERANCE)


def test_texts_on_the_command_line(options, model, cli):
    texts = ["the film was good", "dull", "Ünïcode — „quoted“"]
    printed = cli("predict", model, *texts, *options)
    assert_lines([json.loads(line) for line in printed.split("\n")[:-1]], texts, reference_logits(model, texts))


def test_texts_from_files(options, model, tmp_path):
    # A quotation mark and a Unicode line separator are text, an empty line is an empty text, \r\n ends a line.
    texts = ['a "quoted film', "the\u2028plot", "", "was good"]
    logits = reference_logits(model, texts)
    (tmp_path / "lines.txt").write_bytes("\r\n".join(texts).encode() + b"\r\n")
    assert_lines(lines_of(command("predict", model, "--file", tmp_path / "lines.txt", *options)), texts, logits)
    (tmp_path / "table.tsv").write_text("id\tbody\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(texts)))
    table = ["--file", tmp_path / "table.tsv", "--text-column", "body"]
    assert_lines(lines_of(command("predict", model, *table, *options)), texts, logits)
    answer = command("predict", model, *table, *options, "--out", tmp_path / "new" / "out.jsonl")
    assert lines_of(answer) == []
    written = (tmp_path / "new" / "out.jsonl").read_text(encoding="utf-8").split("\n")
    assert written.pop() == ""
    assert_lines([json.loads(line) for line in written], texts, logits)


def test_pairs_from_files_and_arguments(options, pair_model, tmp_path):
    texts, pairs, labels = TEXTS[:4], PAIRS[:4], ("entailment", "neutral", "contradiction")
    logits = reference_logits(pair_model, texts, pairs)
    rows = [json.dumps({"premise": text, "hypothesis": pair, "id": 3}) for text, pair in zip(texts, pairs)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    columns = ["--text-column", "premise", "--pair-column", "hypothesis"]
    lines = lines_of(command("predict", pair_model, "--file", tmp_path / "pairs.jsonl", *columns, *options))
    assert_lines(lines, texts, logits, labels, pairs)
    lines = lines_of(command("predict", pair_model, texts[1], "--pair", pairs[1], *options))
    assert_lines(lines, texts[1:2], logits[1:2], labels, pairs[1:2])


def test_longer_texts_are_cut(options, model):
    text = "good " * 60
    [line] = lines_of(command("predict", model, text, "--max-length", "6", *options))
    assert_lines([line], [text], reference_logits(model, [text], max_length=6))
    [line] = lines_of(command("predict", model, text, *options))  # what the model has positions for
    assert_lines([line], [text], reference_logits(model, [text], max_length=40))


def test_answers_that_are_no_numbers_are_refused():
    """Of a model whose weights are numbers, and whose states are too large for float32."""
    model = Model(tiny.CONFIG, {}, 2, ("negative", "positive"))
    with pytest.raises(TrainingError, match="the logits of 1 texts are not finite"):
        list(predictions(model, ["a", "b"], None, np.array([[0.0, 1.0], [np.nan, np.inf]], np.float32)))


def test_the_score_on_a_task(settings, options, model, tiny_task, tmp_path):
    texts, labels = tiny.sentences(21, seed=1)  # the tiny task's dev split
    accuracy = np.mean(reference_logits(model, texts).argmax(axis=1) == labels)
    assert 0 < accuracy < 1
    found = crossdistil.evaluate(model, tiny_task, task="sst-2", **settings)
    assert found == {"accuracy": pytest.approx(accuracy)}
    answer = command("evaluate", model, "--task", "SST2", "--data", tiny_task, *options)
    assert answer.code == 0 and json.loads(answer.stdout) == found
    columns = {"text": "sentence", "label": "label"}
    with pytest.raises(CrossdistilError, match="its classes are negative, positive, in this order; the task's are 0, 1"):
        crossdistil.evaluate(model, tiny_task, task="mine", columns=columns, **settings)
    lines = (tiny_task / "dev.tsv").read_text().replace("\t0\n", "\tnegative\n").replace("\t1\n", "\tpositive\n")
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text(lines)
    own = crossdistil.evaluate(model, tmp_path, task="mine", columns=columns, **settings)
    assert own["accuracy"] == found["accuracy"]
    train = crossdistil.evaluate(model, tiny_task, task="sst-2", split="train", **settings)
    texts, labels = tiny.sentences(44, seed=0)
    assert train == {"accuracy": pytest.approx(np.mean(reference_logits(model, texts).argmax(axis=1) == labels))}


def test_the_score_on_a_regression_of_pairs(settings, score_model, tmp_path):
    gold = np.random.default_rng(1).uniform(0, 5, 30)
    rows = [f"{i}\t{a}\t{b}\t{score:.3f}\n" for i, (a, b, score) in enumerate(zip(TEXTS, PAIRS, gold))]
    (tmp_path / "dev.tsv").write_text("index\tsentence1\tsentence2\tscore\n" + "".join(rows))
    logits = reference_logits(score_model, TEXTS[:30], PAIRS[:30])[:, 0]
    expected = {"pearson": stats.pearsonr(logits, gold)[0], "spearman": stats.spearmanr(logits, gold)[0]}
    found = crossdistil.evaluate(score_model, tmp_path, task="sts-b", **settings)
    assert found == pytest.approx(expected, abs=1e-3)
