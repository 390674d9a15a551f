"""Models that embed texts and that answer questions where they are used: exported with names and gates of their own, served at
/embed, /v1/embeddings and /answer, and timed; sentence-transformers, transformers and `predict` over NumPy are the referees."""

from __future__ import annotations

import base64
import dataclasses
import json

import numpy as np
import pytest

from crossdistil.core.app.export_targets import TARGETS
from crossdistil.core.app.exported import runtime_of
from crossdistil.core.app.exporting import ExportOptions, GateError, export
from crossdistil.core.app.finished_model import load_user_model
from crossdistil.core.app.question_answers import answers_in
from crossdistil.core.app.service_model import Item, ServedModel, read_classifier
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.batches import length_buckets
from crossdistil.core.data.row_batches import RowBatches
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CheckpointError
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.answer_heads import SPANS
from crossdistil.core.models.pooling import MODES, Pooling
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.world import World
from crossdistil.tests import tiny
from crossdistil.tests.answer_files import paragraphs, squad, write_questions
from crossdistil.tests.service_process import service
from crossdistil.tests.test_export import SHAPES, random_batch
from crossdistil.tests.tiny_sentences import write_embedder, write_sentences

pytestmark = pytest.mark.environment_of("torch")  # whose environment has ONNX Runtime and transformers
LENGTH = 16
TEXTS = ["", "a great film", "bad", "it is a great film " * 9]
CONTEXTS = ["the film is great and the plot is bad " * 4, "the actor was good", "a dull scene"]
QUESTIONS = ["it was", "the film", "actor " * 70]


def write_reader(folder, **task):
    """A folder with random weights that answers questions."""
    vocabulary = tiny.write_vocabulary(folder.parent / f"{folder.name}-vocabulary")
    config = tiny.CONFIG.answering(SPANS)
    about = {"name": "words", "kind": "question_answering", "max_length": LENGTH}
    about = {"task": about | {"answers": {"stride": 4, "question_length": 6}, **task}, "max_length": LENGTH}
    model = Model(config, tiny.random_parameters(config, 2, 3), 2, about=about)
    save_model(model, folder, load_tokenizer(vocabulary))
    return folder


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("embedder") / "vectors"
    write_embedder(folder, Pooling("mean", True))
    return folder


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    return write_reader(tmp_path_factory.mktemp("reader") / "answers")


@pytest.fixture(scope="module")
def exported(embedder, reader):
    """Folder of each of the two -> (its export to ONNX, the report)."""
    found = {}
    for folder, data in ((embedder, None), (reader, write_questions(reader.parent / "data"))):
        place = folder.parent / f"{folder.name}-onnx"
        found[folder] = place, export(folder, place, ExportOptions(data=data), print)
    return found


def expected_answers(folder, questions, contexts):
    """By NumPy in float64."""
    model = load_model(folder, classifier=SPANS)
    function = logits_function(model.config)

    def infer(batch):
        return function(ReferenceOps(), model.parameters, batch)

    given = (questions, contexts, LENGTH, length_buckets(LENGTH, 1), World())
    return answers_in(model, load_tokenizer(folder), infer, *given)


def expected_vectors(folder, texts):
    """By sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(list(texts), convert_to_numpy=True)


def assert_answers(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one["answer"], one["start"], one["end"]) == (other["answer"], other["start"], other["end"])
        for name in ("score", "null_score", "probability"):
            assert one[name] == pytest.approx(other[name], abs=1e-4)


def test_limits_of_a_dev_of_one_question_are_limits(reader, tmp_path):
    data = write_questions(tmp_path / "data")
    (data / "dev.json").write_text(json.dumps(squad(paragraphs(1, 2))))
    gates = export(reader, tmp_path / "exported", ExportOptions(data=data), lambda text: None)["gates"]
    limits = {gate["name"]: gate["limit"] for gate in gates}
    assert limits["same answers on dev, %"] == 0 and limits["exact_match on dev, points lost"] == 100


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_graphs_of_every_pooling_and_of_answers(precision, tmp_path):
    """Their outputs have the names and shapes of others' exports, and are NumPy's in float64."""
    import onnx
    import onnxruntime

    heads = {mode: tiny.CONFIG.embedding(Pooling(mode, mode != "cls")) for mode in MODES} | {"": tiny.CONFIG.answering(SPANS)}
    limit = {"fp32": 2e-6, "fp16": 5e-3, "int8": 0.2}[precision]
    for mode, config in heads.items():
        model = Model(config, tiny.random_parameters(config, 2, 3), None if mode else 2)
        path, target = tmp_path / f"{mode}.onnx", TARGETS["onnx"]
        target.write(model, path, precision, precision == "fp32")
        onnx.checker.check_model(str(path), full_check=True)
        names = [port.name for port in onnxruntime.InferenceSession(str(path)).get_outputs()]
        assert names[:2] == (["sentence_embedding", "token_embeddings"] if mode else ["start_logits", "end_logits"])
        assert ("hidden/1" in names) == (precision == "fp32") and "pooled" not in names
        infer, generator = target.load(path, config), np.random.default_rng(4)
        for rows, length in SHAPES:
            batch = random_batch(config, rows, length, generator)
            [expected] = logits_function(config)(ReferenceOps(), model.parameters, batch)
            [found] = infer(batch)
            assert found.shape == expected.shape
            assert np.abs(found - expected).max() <= limit * max(1.0, np.abs(expected).max()), (mode, rows, length)


def test_what_an_export_of_vectors_shows(embedder, exported):
    import onnxruntime
    import torch
    from transformers import AutoModel

    folder, report = exported[embedder]
    assert [gate["name"] for gate in report["gates"]] == ["parity with float64", "alone and in a batch"]
    assert (folder / "modules.json").is_file() and "sentence-similarity" in (folder / "README.md").read_text()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    batch = random_batch(tiny.CONFIG, 3, 7, np.random.default_rng(1))
    vectors, states = session.run(["sentence_embedding", "token_embeddings"], batch)
    given = {name: torch.from_numpy(array).long() for name, array in batch.items()}
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(embedder).eval()(**given).last_hidden_state.numpy()
    np.testing.assert_allclose(states[batch["attention_mask"] > 0], theirs[batch["attention_mask"] > 0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    served = read_classifier(folder, "onnx", None, print).load(8, EngineOptions("cpu"))
    found = {}
    for numbers, answers in served.answers([Item(text) for text in TEXTS]):
        found |= zip(numbers, answers, strict=True)
    ours = np.stack([found[number].fields["embedding"] for number in range(len(TEXTS))])
    np.testing.assert_allclose(ours, expected_vectors(embedder, TEXTS), atol=1e-5)
    assert [found[number].truncated for number in range(len(TEXTS))] == [False, False, False, True]


def test_vectors_are_judged_by_their_cosines(embedder, tmp_path, monkeypatch):
    from crossdistil.core.app import exporting

    data = write_sentences(tmp_path / "data")
    model, tokenizer = load_user_model(embedder, "export", print)
    about = {"task": {"name": "alike", "kind": "embeddings", "text": "a", "text_pair": "b", "label": "alike",
                      "embeddings": {"scores": [0, 4]}}, "max_length": LENGTH}  # fmt: skip
    source = tmp_path / "source"
    save_model(dataclasses.replace(model, about=about), source, tokenizer)
    report = export(source, tmp_path / "int8", ExportOptions("int8", data=data, max_drop=20.0), print)
    gates = {gate["name"]: gate for gate in report["gates"]}
    assert gates["mean cosine on dev, %"]["limit"] == 99 and 99 < gates["mean cosine on dev, %"]["value"] < 100
    assert {"spearman on dev, points lost"} <= gates.keys() and report["dev"].keys() == {"spearman", "pearson"}
    onnx = TARGETS["onnx"]

    def load(path, config):
        infer, turned = onnx.load(path, config), np.random.default_rng(0).normal(0, 0.05, config.hidden_size)
        return lambda batch: [(infer(batch)[0] + turned).astype(np.float32)]

    monkeypatch.setitem(exporting.TARGETS, "onnx", dataclasses.replace(onnx, load=load))
    monkeypatch.setattr(exporting, "_plain", lambda model, target: onnx.load(tmp_path / "int8" / "model.onnx", model.config))
    with pytest.raises(GateError, match="mean cosine on dev, %: got 9.*, expected at least 99"):
        export(source, tmp_path / "out", ExportOptions("int8", data=data, max_drop=100.0), print)
    assert not (tmp_path / "out").exists()


def test_what_an_export_of_answers_shows(reader, exported):
    import onnxruntime
    import torch
    from transformers import AutoModelForQuestionAnswering

    folder, report = exported[reader]
    gates = {gate["name"] for gate in report["gates"]}
    assert gates == {"parity with float64", "alone and in a batch", "same answers on dev, %", "exact_match on dev, points lost"}
    batch = random_batch(tiny.CONFIG, 3, 7, np.random.default_rng(1))
    found = onnxruntime.InferenceSession(str(folder / "model.onnx")).run(["start_logits", "end_logits"], batch)
    given = {name: torch.from_numpy(array).long() for name, array in batch.items()}
    with torch.no_grad():
        theirs = AutoModelForQuestionAnswering.from_pretrained(reader).eval()(**given)
    real = batch["attention_mask"] > 0
    for own, other in zip(found, (theirs.start_logits, theirs.end_logits), strict=True):
        np.testing.assert_allclose(own[real], other.numpy()[real], atol=1e-5)


@pytest.mark.parametrize("step", [1, None])
def test_served_answers_are_those_of_predict(reader, step):
    """In batches of two rows, over several windows; also by engines with fixed shapes, which fill a batch up."""
    model, tokenizer = load_user_model(reader, "serve", print)
    function, found = logits_function(model.config), {}
    served = ServedModel(model, tokenizer, lambda batch: function(ReferenceOps(), model.parameters, batch), step, LENGTH, 2)
    items = [Item(question, context) for question, context in zip(QUESTIONS, CONTEXTS)]
    for numbers, answers in served.answers(items):
        found |= zip(numbers, answers, strict=True)
    assert_answers([found[number].fields for number in range(3)], expected_answers(reader, QUESTIONS, CONTEXTS))
    assert [found[number].truncated for number in range(3)] == [False, False, True]
    assert found[0].tokens > 3 * LENGTH


def test_a_question_may_have_no_answer(tmp_path):
    folder = write_reader(tmp_path / "reader", answers={"stride": 4, "unanswerable": True, "null_threshold": -1e9})
    served = read_classifier(folder, "onnx", None, print).load(8, EngineOptions("cpu"))
    [(_, [answer])] = list(served.answers([Item("it was", "a great film")]))
    assert (answer.fields["answer"], answer.fields["start"], answer.fields["end"]) == ("", -1, -1)


@pytest.fixture(scope="module")
def of_vectors(exported, embedder):
    with service(exported[embedder][0], "--max-texts", 3) as found:
        yield found


@pytest.fixture(scope="module")
def of_answers(exported, reader):
    with service(exported[reader][0]) as found:
        yield found


def test_a_service_of_vectors(of_vectors, embedder):
    assert "(onnx, sentence embedding, 16 tokens)" in of_vectors.told
    expected = expected_vectors(embedder, TEXTS[1:])
    status, one, _ = of_vectors.request("POST", "/embed", {"text": TEXTS[1]})
    assert status == 200 and one["truncated"] is False
    np.testing.assert_allclose(one["embedding"], expected[0], atol=1e-5)
    status, many, _ = of_vectors.request("POST", "/embed", {"texts": TEXTS[1:]})
    np.testing.assert_allclose(many["embeddings"], expected, atol=1e-5)
    assert many["truncated"] == [False, False, True]
    status, found, _ = of_vectors.request("POST", "/v1/embeddings", {"input": TEXTS[1:3], "model": "vectors-onnx"})
    assert status == 200 and (found["object"], found["model"]) == ("list", "vectors-onnx")
    assert [each["index"] for each in found["data"]] == [0, 1] and found["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    np.testing.assert_allclose([each["embedding"] for each in found["data"]], expected[:2], atol=1e-5)
    status, coded, _ = of_vectors.request("POST", "/v1/embeddings", {"input": TEXTS[1], "encoding_format": "base64"})
    numbers = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), "<f4")
    np.testing.assert_array_equal(numbers, np.float32(found["data"][0]["embedding"]))
    assert of_vectors.counted("crossdistil_requests_total", 'path="/v1/embeddings",status="200"') == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("/predict", {"text": "a"}, 404, "vectors-onnx is a model of sentence embedding; ask POST /embed with text or texts"),
        ("/answer", {"question": "a", "context": "b"}, 404, "ask POST /embed"),
        ("/embed", {"text": "a", "pair": "b"}, 422, "pair: unknown key"),
        ("/embed", {"text": "a", "texts": ["b"]}, 422, "give either text or texts, not both"),
        ("/embed", {"texts": []}, 422, "texts: is empty"),
        ("/embed", {"texts": ["a"] * 4}, 413, "texts: has 4, at most 3"),
        ("/v1/embeddings", {"input": [1, 2]}, 422, "input: .*numbers of tokens are not taken"),
        ("/v1/embeddings", {"model": "vectors-onnx"}, 422, "input: "),
        ("/v1/embeddings", {"input": "a", "model": "gpt"}, 404, "model: 'gpt' is not here, expected 'vectors-onnx'"),
        ("/v1/embeddings", {"input": "a", "dimensions": 8}, 422, "dimensions: got 8, but the vectors of vectors-onnx have 32"),
        ("/v1/embeddings", {"input": "a", "encoding_format": "hex"}, 422, "encoding_format: "),
        ("/v1/embeddings", {"input": "a", "encoding_format": None}, 422, "encoding_format: unknown value null; known: float"),
    ],
)
def test_wrong_requests_for_vectors(of_vectors, path, body, status, told):
    import re

    found = of_vectors.request("POST", path, body)
    assert found[0] == status and re.search(told, found[1]["error"]) and "\n" not in found[1]["error"]


def test_a_service_of_answers(of_answers, reader):
    expected = expected_answers(reader, QUESTIONS, CONTEXTS)
    status, one, _ = of_answers.request("POST", "/answer", {"question": QUESTIONS[0], "context": CONTEXTS[0]})
    assert status == 200 and one.pop("truncated") is False
    assert_answers([one], expected[:1])
    status, many, _ = of_answers.request("POST", "/answer", {"questions": QUESTIONS, "contexts": CONTEXTS})
    assert status == 200
    assert_answers(many["answers"], expected)
    assert [each["truncated"] for each in many["answers"]] == [False, False, True]
    status, many, _ = of_answers.request("POST", "/answer", {"questions": QUESTIONS[:2], "context": CONTEXTS[0]})
    assert_answers(many["answers"], expected_answers(reader, QUESTIONS[:2], [CONTEXTS[0]] * 2))
    paths = of_answers.request("GET", "/openapi.json")[1]["paths"]
    assert "/answer" in paths and not {"/predict", "/embed", "/v1/embeddings"} & paths.keys()


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        ({"question": "a"}, 422, "give either context or contexts"),
        ({"question": "a", "context": "a", "contexts": ["a"]}, 422, "contexts: belongs to questions"),
        ({"questions": ["a"], "contexts": ["a", "b"]}, 422, "contexts: has 2, expected one for each of 1 questions"),
        ({"question": "a", "context": ""}, 422, "its context '' has no tokens"),
        ({"question": "a", "context": "\ud800"}, 422, "context: holds half a surrogate pair"),
        ({"text": "a"}, 422, "text: unknown key"),
    ],
)
def test_wrong_questions(of_answers, body, status, told):
    found = of_answers.request("POST", "/answer", body)
    assert found[0] == status and told in found[1]["error"] and "\n" not in found[1]["error"]


def test_the_page_asks_for_what_the_model_answers(of_vectors, of_answers):
    _, page, _ = of_vectors.request("GET", "/")
    assert 'fetch("embed"' in page and "Another text" in page and "data-optional" in page
    _, page, _ = of_answers.request("GET", "/")
    assert 'fetch("answer"' in page and ">Question</label>" in page and "windows of 16 tokens" in page


def test_the_times_of_vectors_and_answers(exported, embedder, reader, tmp_path, said):
    """Of questions as many rows as they have windows."""
    file = tmp_path / "questions.jsonl"
    lines = [{"question": one, "context": other} for one, other in zip(QUESTIONS, CONTEXTS)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, output, errors = said("latency", exported[reader][0], "--file", file, "--rounds", 1, "--warm-up", 0, "--json")
    assert code == 0, errors
    found = json.loads(output)
    assert found["settings"]["texts"] == 3 and found["models"]["answers-onnx"]["mean_tokens"] > LENGTH
    code, _, errors = said("latency", exported[reader][0], exported[embedder][0], "--file", file)
    assert code == 2 and "models are measured on the same texts, but answers-onnx of question answering" in errors
    texts = tmp_path / "texts.txt"
    texts.write_text("a great film\nbad\n")
    code, _, errors = said("latency", exported[reader][0], "--file", texts)
    assert code == 2 and "answers questions from a text: give it beside the question" in errors


def test_a_graph_without_its_output_is_refused(exported, embedder, tmp_path):
    from crossdistil.core.app.onnx_runtime import load_session

    with pytest.raises(CheckpointError, match="has no output logits"):
        load_session(exported[embedder][0] / "model.onnx", ["logits"])
    model = load_model(exported[embedder][0], classifier=None)
    table = load_tokenizer(embedder).encode_pairs(TEXTS, None, LENGTH)
    batch = RowBatches(table, None, length_buckets(LENGTH, 1)).batch(np.arange(len(TEXTS)))
    assert runtime_of(model).infer(None, None)(batch)[0].shape == (4, 32)
