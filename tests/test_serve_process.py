"""`crossdistil serve` as a process: how it ends, what it refuses to begin with, and what it can run."""

from __future__ import annotations

import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.special import softmax

from crossdistil.core import extras
from crossdistil.core.app.inference import trained_length
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.batches import length_buckets
from crossdistil.core.data.row_batches import RowBatches
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.engine import EngineOptions
from crossdistil.core.model_answers import logits_function
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.service_process import service, until, write_exported

TEXTS = ["", "a", "a fine film", *tiny.sentences(20, 5)[0], "it is " * 40, "word" * 500, "\U0001f642 na\xefve \x00 caf\xe9"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported folder."""
    return write_exported(tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_is_answered_before_the_end(model, number):
    with service(model, "--max-wait-ms", 700) as running, ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(running.predict, {"text": text}) for text in tiny.sentences(20, 1)[0]]
        until(lambda: running.counted("crossdistil_queue_texts") == 20)
        code, output, errors = running.stop(number)
        assert code == 0 and not errors
        assert [each.result()[0] for each in asked] == [200] * 20
        assert output.startswith("stopped after ")


def test_killed_and_started_again_on_the_same_port(model):
    with service(model) as running:
        port = running.port
        client = socket.create_connection(("127.0.0.1", port), timeout=30)
        running.process.kill()
        running.process.wait()
    with service(model, "--port", port) as running:
        assert running.port == port and running.predict({"text": "a"})[0] == 200
        client.close()


REFUSED = {
    "port in use": (["--port", "{port}"], "cannot listen there: Address already in use"),
    "open without a token": (["--host", "0.0.0.0", "--port", "0"], "--host 0.0.0.0: others than this machine could ask"),
    "an address of another machine": (["--host", "no.such.invalid"], "--host no.such.invalid: is no address"),
    "a short token": (["--token-file", "{folder}/short"], "expected 16 or more"),
    "no token file": (["--token-file", "{folder}/none"], "cannot be read: No such file"),
    "a device": (["--device", "cpu"], "--device: "),
    "more texts than the queue": (["--queue", "3", "--max-texts", "4"], "--max-texts 4: "),
    "a length": (["--max-length", "4000", "--port", "0"], "has only 40 positions"),
}


@pytest.mark.parametrize(("options", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_before_it_serves(said, model, tmp_path, monkeypatch, options, told):
    monkeypatch.delenv("CROSSDISTIL_TOKEN", raising=False)
    (tmp_path / "short").write_text("secret\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        given = [each.format(port=other.getsockname()[1], folder=tmp_path) for each in options]
        code, output, errors = said("serve", model, *given)
    assert code == 2 and not output
    assert told in errors and errors.startswith("crossdistil: error: ") and errors.count("\n") == 1


def test_without_the_packages_one_line_says_what_to_install(said, model, monkeypatch):
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    code, _, errors = said("serve", model)
    assert code == 2 and "pip install 'crossdistil[serve]'" in errors


def test_a_model_folder_and_a_regression(tmp_path, said):
    tiny.write_model(tmp_path / "model", labels=None)
    with service(tmp_path / "model", "--queue", 3) as running:
        status, answer, _ = running.predict({"text": "a film", "pair": "a story"})
        page = running.request("GET", "/")[1]
        too_many = running.predict({"texts": ["a"] * 4, "pairs": ["b"] * 4})
        _, _, errors = running.stop()
    assert status == 200 and answer.keys() == {"score", "truncated"}
    assert ">Score</button>" in page and not re.search("classif", page, re.I)
    assert too_many[0] == 413 and "at most 3" in too_many[1]["error"], "a short queue bounds a request too"
    assert "is run as ONNX in float32, from a temporary file" in errors
    expected = json.loads(said("predict", tmp_path / "model", "a film", "--pair", "a story")[1])
    assert expected["score"] == pytest.approx(answer["score"], abs=1e-5)


def test_a_backend_of_ones_choice(tiny_model, backend_name):
    """Beside NumPy's float64, since only one of the environments has ONNX Runtime."""
    from crossdistil.core.app.service_model import Item, read_classifier

    model, tokenizer = load_model(tiny_model), load_tokenizer(tiny_model)
    loaded = read_classifier(tiny_model, backend_name, None, print).load(8, EngineOptions("cpu"))
    answers = {}
    for numbers, given in loaded.answers([Item(text) for text in TEXTS]):
        answers.update(zip(numbers, given, strict=True))
    length = trained_length(model)
    batches = RowBatches(tokenizer.encode_pairs(TEXTS, None, length), None, length_buckets(length, 1))
    logits = logits_function(model.config)(ReferenceOps(), model.parameters, batches.batch(np.arange(len(TEXTS))))[0]
    expected = softmax(logits, axis=1)
    for number, wanted in enumerate(expected):
        assert list(answers[number].fields["probabilities"].values()) == pytest.approx(wanted.tolist(), abs=1e-5)


def test_an_answer_waits_for_no_acknowledgement():
    """Its head and its body are sent apart: with Nagle's algorithm the second waits 40 ms on a connection that is kept."""
    from crossdistil.core.app.service import listen

    with listen("127.0.0.1", 0, None) as listening, socket.create_connection(listening.getsockname(), timeout=30):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
