"""`crossdistil serve`: the answers are those of predict and of ONNX Runtime, and each wrong request gets its status."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from crossdistil.core.app.predicting import predict
from crossdistil.core.app.sessions import session
from crossdistil.core.engine import EngineOptions
from crossdistil.tests import tiny
from crossdistil.tests.service_process import service, until, write_exported

LENGTH = 24
TOKEN = {"Authorization": "Bearer a-token-of-some-length"}
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
TEXTS = ["", "a", "a fine film", *tiny.sentences(30, 5)[0], "it is " * 40, "word" * 500, "这家店的面膜", "🙂 naïve \x00 café"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported folder."""
    return write_exported(tmp_path_factory.mktemp("served"), LENGTH)


@pytest.fixture(scope="module")
def served(model):
    with service(model, "--max-texts", 64, "--max-body-kib", 64, "--max-connections", 40) as running:
        yield running


@pytest.fixture(scope="module")
def tight(model):
    """One that waits for texts longer than its clients do for answers, and has a queue of four."""
    options = ("--queue", 4, "--max-texts", 4, "--max-wait-ms", 1500, "--timeout", 1, "--allowed-host", "api.example.org")
    with service(model, *options, CROSSDISTIL_TOKEN="a-token-of-some-length") as running:
        yield running


def expected_answers(model, texts):
    with session("onnx", EngineOptions()) as processes:
        return [found.as_json() for found in predict(model, texts, None, processes)]


def test_the_answers_are_those_of_predict(served, model):
    status, found, _ = served.predict({"texts": TEXTS})
    assert status == 200
    for one, other in zip(found["predictions"], expected_answers(model, TEXTS), strict=True):
        assert one.keys() == {"label", "probabilities", "truncated"} and one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    for text, among_others in zip(TEXTS[:8], found["predictions"]):
        status, alone, headers = served.predict({"text": text})
        assert status == 200 and alone["truncated"] is among_others["truncated"]
        assert alone["probabilities"] == pytest.approx(among_others["probabilities"], abs=1e-5)
        assert float(headers["server-timing"].removeprefix("total;dur=")) > 0


def test_the_answers_are_those_of_onnx_runtime_run_by_hand(served, model):
    import onnxruntime
    from transformers import BertTokenizerFast

    tokenizer = BertTokenizerFast.from_pretrained(model)
    run = onnxruntime.InferenceSession(str(model / "model.onnx")).run
    found = served.predict({"texts": TEXTS})[1]["predictions"]
    for text, answer in zip(TEXTS, found):
        given = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="np")
        names = {"input_ids": np.int32, "token_type_ids": np.int32, "attention_mask": np.float32}
        logits = run(None, {name: given[name].astype(kind) for name, kind in names.items()})[0][0].astype(np.float64)
        odds = np.exp(logits - logits.max())
        assert list(answer["probabilities"].values()) == pytest.approx(odds / odds.sum(), abs=1e-5)
        assert answer["truncated"] is (len(tokenizer(text)["input_ids"]) > LENGTH)


def test_many_clients_at_once_get_their_own_answers(served, model):
    texts = tiny.sentences(120, 9)[0]
    expected = expected_answers(model, texts)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: served.predict({"text": text}), texts))
    for (status, answer, _), other in zip(found, expected, strict=True):
        assert status == 200 and answer["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


WRONG = {
    "no JSON": (b"{", 400, "no JSON"),
    "empty": (b"", 400, "no JSON"),
    "not UTF-8": (b'{"text": "\xff"}', 400, "not UTF-8"),
    "a key twice": (b'{"text": "a", "text": "b"}', 400, "'text' is there twice"),
    "deep": (b"[" * 30000, 400, "no JSON"),
    "NaN": (b'{"text": NaN}', 400, "has NaN"),
    "a huge number": (b'{"text": ' + b"9" * 6000 + b"}", 400, "6,000 digits"),
    "a list": ([], 422, "expected a JSON object"),
    "nothing": ({}, 422, "give either text or texts"),
    "both": ({"text": "a", "texts": ["a"]}, 422, "not both"),
    "a number": ({"text": 1}, 422, "text: "),
    "a number among texts": ({"texts": ["a", 1]}, 422, "texts[1]: "),
    "an unknown key": ({"txet": "a"}, 422, "did you mean 'text'?"),
    "an empty key": ({"text": "a", "": 1}, 422, "'': unknown key"),
    "a list as the text": ({"text": ["a"]}, 422, "text: "),
    "half a character": (b'{"text": "a \\ud800"}', 422, "half a surrogate pair"),
    "no texts": ({"texts": []}, 422, "texts: is empty"),
    "too many texts": ({"texts": ["a"] * 65}, 413, "at most 64"),
    "a pair": ({"text": "a", "pair": "b"}, 422, "takes single texts"),
    "pairs of a text": ({"text": "a", "pairs": ["b"]}, 422, "pairs: belongs to texts"),
    "a pair of texts": ({"texts": ["a"], "pair": "b"}, 422, "pair: belongs to text"),
    "fewer pairs": ({"texts": ["a", "b"], "pairs": ["b"]}, 422, "pairs: has 1"),
    "too long": (b'{"text": "' + b"a" * 70_000 + b'"}', 413, "longer than 65,536 bytes"),
}


@pytest.mark.parametrize(("body", "status", "told"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_says_what_is_wrong(served, body, status, told):
    found, answer, _ = served.predict(body)
    assert (found, list(answer)) == (status, ["error"]) and told in answer["error"]
    assert "\n" not in answer["error"] and len(answer["error"]) < 1000


@pytest.mark.parametrize(
    ("body", "key"),
    [({"text": "\ud800", "pair": "b"}, "text"), ({"text": "a", "pair": "\ud800"}, "pair")]
    + [({"texts": ["a", "a"], "pairs": ["b", "\ud800"]}, "pairs"), ({"texts": ["\ud800"], "pairs": ["b"]}, "texts")],
)
def test_half_a_character_is_told_of_the_key_that_has_it(body, key):
    from fastapi import HTTPException

    from crossdistil.core.app.service_bodies import About
    from crossdistil.core.app.service_requests import PredictRequest

    about = About("pairs", takes_pairs=True, length=16, needs_token=False, timeout=1.0, max_texts=4)
    with pytest.raises(HTTPException, match=f"^422: {key}: holds half a surrogate pair"):
        PredictRequest(**body).items(about)


def test_other_wrong_requests(served):
    assert served.request("POST", "/predict", {"text": "a"}, {})[0] == 415
    assert served.predict({"text": "a"}, **{"Content-Type": "application/json; charset=latin-1"})[0] == 415
    assert served.request("GET", "/predict")[0] == 405 and served.request("GET", "/no-such")[0] == 404
    assert served.request("GET", "/docs")[0] == 404, "FastAPI's page loads its scripts from elsewhere"
    for host in ("evil.example", "127.0.0.1.evil.example", "[::2]:80", "0.0.0.0"):
        assert served.predict({"text": "a"}, Host=host)[0] == 403
    for host in ("localhost:1", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert served.predict({"text": "a"}, Host=host)[0] == 200
    assert served.predict({"text": "a"}, Origin="http://evil.example")[0] == 403
    assert served.predict({"text": "a"}, Origin="null")[0] == 403
    assert served.predict({"text": "a"}, Origin=f"http://127.0.0.1:{served.port}")[0] == 200


def test_a_body_of_unknown_length_is_cut_off_while_it_is_read(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(100):
            client.sendall(b"400\r\n" + b"a" * 1024 + b"\r\n")
        client.sendall(b"0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_closes_its_side_gets_its_answer(served):
    body = b'{"text": "a fine film"}'
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        client.shutdown(socket.SHUT_WR)
        assert b"HTTP/1.1 200 OK" in b"".join(iter(lambda: client.recv(1000), b"")), "and the connection ends"


def test_there_are_only_so_many_connections(served):
    clients = [socket.create_connection(("127.0.0.1", served.port), timeout=30) for _ in range(45)]
    try:
        until(lambda: sum(_is_refused(client) for client in clients[40:]) == 5)
        assert not any(_is_refused(client) for client in clients[:5])
    finally:
        for client in clients:
            client.close()
    until(lambda: served.request("GET", "/health")[0] == 200)


def _is_refused(client):
    client.setblocking(False)
    try:
        return client.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 503"
    except BlockingIOError:
        return False


def test_what_it_counts(served):
    before = {name: served.counted(name) for name in ("crossdistil_tokens_total", "crossdistil_truncated_texts_total")}
    answered = served.counted("crossdistil_requests_total")
    assert served.predict({"texts": ["a fine film", "it is " * 60]})[0] == 200
    assert served.counted("crossdistil_tokens_total") - before["crossdistil_tokens_total"] == 5 + LENGTH
    assert served.counted("crossdistil_truncated_texts_total") - before["crossdistil_truncated_texts_total"] == 1
    assert served.counted("crossdistil_requests_total") - answered >= 3
    assert served.counted("crossdistil_queue_texts") == 0
    assert served.request("GET", "/ready")[1] == {"status": "ready"}
    described = served.request("GET", "/openapi.json")[1]
    assert {"/predict", "/health", "/ready", "/metrics"} == described["paths"].keys()


def test_head_is_answered_as_get_without_a_body(served):
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        for path in ("/health", "/ready", "/"):
            _, _, expected = served.request("GET", path)
            client.sendall(f"HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            head = client.recv(1 << 16)
            assert head.startswith(b"HTTP/1.1 200 ") and head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
            assert f"content-length: {expected['content-length']}\r\n".encode() in head.lower()
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")  # nothing of a body was left in between
    assert served.request("HEAD", "/predict")[0] == 405


def test_the_page_loads_nothing_from_elsewhere(served):
    import base64
    import hashlib
    import re

    status, page, headers = served.request("GET", "/")
    assert status == 200 and "exported" in page
    assert not re.findall(r"(?:src|href)\s*=|https?:|//[a-z]|@import|url\(", page.replace("// Whatever", ""))
    policy = headers["content-security-policy"]
    for tag in ("script", "style"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_a_full_queue_and_the_end_of_patience(tight):
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(tight.predict, {"texts": ["a", "b"]}, **TOKEN) for _ in range(2)]
        until(lambda: tight.request("GET", "/ready")[0] == 503)
        status, answer, headers = tight.predict({"text": "a"}, **TOKEN)
        assert status == 503 and headers["retry-after"] == "1" and "queue is full: 4 texts" in answer["error"]
        assert [each.result()[0] for each in waiting] == [504, 504]
    until(lambda: tight.request("GET", "/ready")[0] == 200)


def test_a_request_whose_client_is_gone_is_not_computed(tight):
    body, before = b'{"texts": ["a", "b", "a"]}', tight.counted("crossdistil_tokens_total", **TOKEN)
    with socket.create_connection(("127.0.0.1", tight.port), timeout=30) as client:
        client.sendall(HEAD + b"Authorization: Bearer a-token-of-some-length\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: tight.counted("crossdistil_queue_texts", **TOKEN) == 3)
    until(lambda: tight.counted("crossdistil_requests_total", 'status="499"', **TOKEN) == 1)
    until(lambda: tight.counted("crossdistil_queue_texts", **TOKEN) == 0)
    assert tight.counted("crossdistil_tokens_total", **TOKEN) == before


def test_names_of_a_proxy(tight):
    for host, status in {"api.example.org": 200, "API.example.org:443": 200, "localhost": 200, "example.org": 403}.items():
        assert tight.request("GET", "/health", headers={"Host": host})[0] == status
        assert tight.request("GET", "/health", headers={"Host": host, "Origin": f"https://{host}"})[0] == status


def test_a_token_is_asked_for(tight):
    for path in ("/health", "/ready", "/"):
        assert tight.request("GET", path)[0] == 200
    for path in ("/metrics", "/openapi.json", "/no-such"):
        assert tight.request("GET", path)[0] == 401
    for given in (None, "Bearer", "Bearer a-token-of-some-lengtH", "Basic eA=="):
        status, answer, headers = tight.predict({"text": "a"}, **({} if given is None else {"Authorization": given}))
        assert status == 401 and headers["www-authenticate"] == "Bearer" and "Bearer TOKEN" in answer["error"]
    assert tight.request("GET", "/metrics", headers={"Authorization": "bearer a-token-of-some-length"})[0] == 200
    assert 'type="password"' in tight.request("GET", "/")[1] and "with a token" in tight.told
