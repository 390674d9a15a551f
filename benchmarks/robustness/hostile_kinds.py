"""The wrong and hostile requests that `hostile_requests.py` sends, and the statuses that may answer them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

CLOSED = "closed"
"""The connection ends without an answer."""
BODY_KIB, TEXTS = 64, 16
"""The limits of the service that they are sent to."""


@dataclass(frozen=True)
class Kind:
    """What is sent, in parts with a pause before each but the first, and what may come back."""

    name: str
    parts: tuple[bytes, ...]
    statuses: frozenset[int | str]
    pause: float = 0.0
    half_close: bool = False
    """Close the sending side after the last part."""
    answers: int = 1
    """Of which the first `answers - 1` must be 200."""


def request(body: bytes = b'{"text": "a fine film"}', line: bytes = b"POST /predict HTTP/1.1", **changed: bytes | None) -> bytes:
    """A good request with one thing changed; a header that is None is left out. `_` in names stands for `-`."""
    headers = {b"Host": b"localhost", b"Content-Type": b"application/json", b"Content-Length": b"%d" % len(body)}
    headers |= {name.replace("_", "-").encode(): value for name, value in changed.items()}
    given = [b"%s: %s" % (name, value) for name, value in headers.items() if value is not None]
    return b"\r\n".join([line, *given, b"", body])


def chunked(*chunks: bytes, **changed: bytes | None) -> bytes:
    """A request whose body is these bytes, which should be chunks."""
    headers = {"Content_Length": None, "Transfer_Encoding": b"chunked", **changed}
    return request(b"", **{name.replace("_", "-"): value for name, value in headers.items()}) + b"".join(chunks)


def kinds(seed: int) -> Iterator[Kind]:
    """All kinds, which the seed changes in their random bytes only."""
    for group in (_lines, _headers, _lengths, _chunks, _json, _schemas, _texts, _connections, _noise):
        for name, given, *rest in group(random.Random(seed)):
            statuses, more = rest[0], rest[1] if len(rest) > 1 else {}
            parts = given if isinstance(given, tuple) else (given,)
            allowed = frozenset(statuses if isinstance(statuses, (tuple, set)) else (statuses,))
            yield Kind(f"{group.__name__[1:]}: {name}", parts, allowed, **more)


BAD = (400, CLOSED)


def _lines(choose: random.Random):
    """First lines."""
    for line in (b"", b" ", b"GET", b"GET /", b"GET / HTTP", b"GET / HTTP/1", b"GET / HTTP/x.y", b"GET / HTTP/9.9",
                 b"GET / HTTP/2.0", b"GET  / HTTP/1.1", b"GET / HTTP/1.1 x", b"\x00GET / HTTP/1.1",
                 b"GET /\x00 HTTP/1.1", b"GET /\xff HTTP/1.1", b"G\x01T / HTTP/1.1", b"GET\t/\tHTTP/1.1",
                 b"get / http/1.1", b"HTTP/1.1 200 OK", b"PRI * HTTP/2.0", b"GET / HTTP/-1.1", b"GET / HTTP/1.1\x0b",
                 b"<html>", b"{}", b"GET \xe2\x80\xae HTTP/1.1"):  # fmt: skip
        yield repr(line), line + b"\r\nHost: localhost\r\n\r\n", (*BAD, 404, 405, 505), {"half_close": True}
    for method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"BREW", b"A" * 500):
        yield f"{method[:20]!r} of /predict", request(line=method + b" /predict HTTP/1.1"), 405
    for method in (b"POST", b"HEAD", b"DELETE", b"OPTIONS"):
        for path in (b"/", b"/health", b"/metrics"):
            expected = 200 if method == b"HEAD" and path != b"/metrics" else 405
            yield f"{method!r} of {path!r}", request(line=b"%s %s HTTP/1.1" % (method, path)), expected
    yield "CONNECT", request(line=b"CONNECT example.org:443 HTTP/1.1"), (400, 404, 405, CLOSED)
    for path in (b"/predict/", b"//predict", b"/Predict", b"/predict/../health", b"/%2e%2e/etc/passwd",
                 b"/../../etc/passwd", b"/predict%00", b"/%ff%fe", b"/%zz", b"/predict;x", b"/static", b"/docs",
                 b"/redoc", b"/.git/config", b"/" + b"a" * 9000, b"*", b"x", b"/" + b"%41" * 3000, b"/\\..\\",
                 b"/health%0d%0aX:1", b"/openapi.json/", b"http://localhost/no"):  # fmt: skip
        yield f"path {path[:40]!r}", request(line=b"POST %s HTTP/1.1" % path), (400, 404, 405)
    yield "an absolute address", request(line=b"POST http://evil.example/predict HTTP/1.1"), (200, 400, 403, 404)
    yield "a long query", request(line=b"POST /predict?" + b"a=1&" * 5000 + b" HTTP/1.1"), 200
    yield "a line without end", b"GET /" + b"a" * 100_000, (431, *BAD)
    yield "HTTP/0.9", b"GET /\r\n", BAD, {"half_close": True}
    yield "TLS", bytes.fromhex("16030100f8010000f40303") + choose.randbytes(240), BAD
    yield "SSH", b"SSH-2.0-OpenSSH_9.9\r\n", BAD, {"half_close": True}
    yield "HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (505, *BAD)
    yield "newlines alone", b"\n" * 50_000, (431, *BAD), {"half_close": True}


def _headers(choose: random.Random):
    """Headers."""
    for header in (b"no colon", b": no name", b"Bad Name: x", b"X\x00: y", b"X: a\x00b", b"X: a\rb", b" folded: x",
                   b"X : y", b"\xff: x", b"X(: y", b"Host: a\r\nHost: b", b"Content-Length: 23\r\nContent-Length: 5",
                   b"X: \x7f\x01"):  # fmt: skip
        yield repr(header), b"POST /predict HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n", (*BAD, 403, 415, 422)
    yield "no Host", request(Host=None), BAD
    for host in (b"evil.example", b"localhost.evil.example", b"169.254.169.254", b"0.0.0.0", b"[::", b"]",
                 b"localhost@evil.example", b"\xff", b"", b"127.0.0.1.nip.io:80", b"0x7f000001", b"2130706433",
                 b"a" * 9000, b"::1", b"localhost/evil", b"[::1].evil.example"):  # fmt: skip
        yield f"Host {host[:30]!r}", request(Host=host), (400, 403)
    for origin in (b"http://evil.example", b"null", b"http://localhost.evil.example", b"", b"file://", b"http://localhost:1"):
        yield f"Origin {origin!r}", request(Origin=origin), 403
    for kind in (None, b"", b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=x",
                 b"application/jsonx", b"application/json; charset=utf-16", b"json", b"\xff", b"text/json",
                 b"application/json, text/plain"):  # fmt: skip
        yield f"Content-Type {kind!r}", request(Content_Type=kind) if kind is None else request(**{"Content-Type": kind}), 415
    yield "two types", request(X=b"1\r\nContent-Type: text/plain"), (200, 415)
    yield "many headers", request(**{f"X-{number}": b"y" for number in range(2000)}), (200, 431, *BAD)
    yield "a huge header", request(X=b"y" * 100_000), (431, *BAD)
    yield "a huge name", request(**{"X" * 60_000: b"y"}), (431, *BAD)
    yield "headers without end", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000, (431, *BAD)
    for name, value in {"Upgrade": b"websocket", "Expect": b"nonsense", "TE": b"trailers", "Range": b"bytes=0-9",
                        "Accept": b"text/plain", "Content-Encoding": b"gzip", "Accept-Encoding": b"\xff",
                        "Cookie": b"a" * 8000, "Authorization": b"Bearer \xff", "X-Forwarded-For": b"1.1.1.1",
                        "X-HTTP-Method-Override": b"DELETE", "If-Match": b"*"}.items():  # fmt: skip
        yield f"{name}: {value[:20]!r}", request(**{name: value}), (200, 417, *BAD)
    yield "an upgrade", request(Connection=b"upgrade", Upgrade=b"websocket"), (200, *BAD)
    yield "an upgrade to HTTP/2", request(Connection=b"Upgrade, HTTP2-Settings", Upgrade=b"h2c", HTTP2_Settings=b""), (200, *BAD)
    yield "compressed", request(b"\x1f\x8b\x08\x00" + choose.randbytes(60), **{"Content-Encoding": b"gzip"}), 400


def _lengths(choose: random.Random):
    """Lengths of bodies."""
    odd = (b"-1", b"+23", b"0x17", b"23.0", b"1e3", b"23,23,5", b"", b" ", b"a", b"\xb2\xb3", b"9" * 30, b"9" * 5000, b"23 5")
    for length in odd:
        yield f"of {length[:20]!r}", request(**{"Content-Length": length}), (413, *BAD)
    huge = {"Content-Length": b"99999999999"}
    yield "said to be huge", request(**huge), 413
    yield "said to be huge, and asked whether to send", request(b"", **huge, Expect=b"100-continue"), 413
    yield "one byte too many", request(b'{"text": "' + b"a" * ((BODY_KIB << 10) - 11) + b'"}'), 413
    yield "none", request(**{"Content-Length": None}), (400, 200)
    yield "longer than what comes", request(**{"Content-Length": b"500"}), CLOSED, {"half_close": True}
    yield "shorter than what comes", request(**{"Content-Length": b"5"}), 400
    yield "zero", request(b"", **{"Content-Length": b"0"}), 400
    yield "both kinds", request(**{"Transfer-Encoding": b"chunked"}), BAD
    for size in (100_000, 1_000_000, 6_000_000):
        yield f"{size:,} bytes", request(b"a" * size), (413, CLOSED)


def _chunks(choose: random.Random):
    """Chunked bodies."""
    text, end = b'17\r\n{"text": "a fine film"}\r\n', b"0\r\n\r\n"
    good, cut = text + end, {"half_close": True}
    yield "good", chunked(good), 200
    yield "one byte each", chunked(*(b"1\r\n%c\r\n" % byte for byte in b'{"text": "a"}'), end), 200
    for size in (b"", b"-1", b"g", b"0x17", b"17 17", b"+17", b"f" * 40, b"\x00", b"17\n", b"1_7"):
        yield f"of the size {size[:20]!r}", chunked(size + good[2:]), (413, 431, *BAD), cut
    yield "with a long extension", chunked(b"17;" + b"a" * 60_000 + good[2:]), (200, 413, 431, *BAD)
    yield "without the end of a chunk", chunked(text[:-2] + b"xx" + end), BAD
    yield "without the last", chunked(text), CLOSED, cut
    yield "with trailers", chunked(text, b"0\r\nX: y\r\n\r\n"), 200
    yield "with endless trailers", chunked(text, b"0\r\n", b"X: y\r\n" * 20_000), (431, *BAD), cut
    yield "with an extension", chunked(b"17;a=b" + good[2:]), 200
    yield "too many", chunked(*[b"400\r\n" + b"a" * 1024 + b"\r\n"] * 200), (413, CLOSED), cut
    yield "a large one", chunked(b"ffffff\r\n" + b"a" * 300_000), (413, CLOSED), cut
    yield "10,000 empty words", chunked(*[b"1\r\n \r\n"] * 10_000, end), 400
    for coding in (b"gzip", b"chunked, chunked", b"gzip, chunked", b"identity", b"Chunked", b"chunked;q=1", b"xchunked", b"\xff"):
        expected = 200 if coding == b"Chunked" else (501, *BAD)
        yield f"coded as {coding!r}", chunked(good, **{"Transfer-Encoding": coding}), expected


def _json(choose: random.Random):
    """Bodies that are not the JSON of a request."""
    for body in (b"", b" ", b"{", b"}", b"{]", b"null", b"true", b"1", b'"a"', b"[]", b"[{}]", b"{'text': 'a'}", b'{text: "a"}',
                 b'{"text": "a",}', b'{"text": "a"} x', b'{"text": "a"}{"text": "b"}', b'{"text": "a" "b"}',
                 b'{"text": "\x00"}', b'{"text": "\n"}', b'{"text": "\\x"}', b'{"text": "\\u12"}', b'{"text": "a"',
                 b'{"text": "a', b'{"text": ', b"{1: 2}", b"\xef\xbb\xbf", b"\xff\xfe{\x00}\x00",
                 '{"text": "a"}'.encode("utf-16"), '{"text": "a"}'.encode("utf-32"), b'{"text": "\xc3"}',
                 b'{"text": "\xed\xa0\x80"}', b'{"text": "\xf8\x88\x80\x80\x80"}', b'{"text": "\xc0\x80"}', b"NaN",
                 b"-Infinity", b'{"text": NaN}', b'{"text": 1e999}', b'{"text": -}', b'{"text": 01}',
                 b'{"text": ' + b"9" * 5000 + b"}", b'{"text": -' + b"9" * 60_000 + b"}", b"text=a", b"<text>a</text>",
                 b'{"text": "a", "text": "b"}', b'{"text": "a", "\\u0074ext": "b"}', b"/* */{}", b"\x1f\x8b",
                 b"\x00" * 1000, b"[" * 60_000, b'{"a":' * 10_000, b"[" * 20_000 + b"]" * 20_000,
                 b'{"text":' + b"[" * 150 + b"]" * 150 + b"}"):  # fmt: skip
        yield repr(body[:40]), request(body), (400, 422)
    yield "a mark before", request(b'\xef\xbb\xbf{"text": "a"}'), 200
    for number in range(12):
        yield f"noise {number}", request(choose.randbytes(300)), 400


def _schemas(choose: random.Random):
    """JSON that is not what is asked for."""
    for tree in ({}, {"txt": "a"}, {"text": None}, {"text": 1}, {"text": 1.5}, {"text": True}, {"text": []},
                 {"text": ["a"]}, {"text": {}}, {"texts": "a"}, {"texts": {}}, {"texts": []}, {"texts": [1]},
                 {"texts": [None]}, {"texts": [["a"]]}, {"texts": ["a", {}]}, {"text": "a", "texts": ["a"]},
                 {"text": "a", "pair": 1}, {"text": "a", "pair": []}, {"text": "a", "pairs": ["b"]}, {"pair": "a"},
                 {"texts": ["a"], "pair": "b"}, {"texts": ["a"], "pairs": "b"}, {"texts": ["a"], "pairs": []},
                 {"texts": ["a"], "pairs": ["a", "b"]}, {"texts": ["a"], "pairs": [None]}, {"text": "a", "": 1},
                 {"text": "a", "__proto__": {}}, {"text": "a", "x" * 5000: 1}, {"TEXT": "a"}, {"text ": "a"},
                 {"text": "a", "max_length": 5}, {f"k{number}": 1 for number in range(3000)}):  # fmt: skip
        yield json.dumps(tree)[:60], request(json.dumps(tree).encode()), 422
    yield "17 texts", request(json.dumps({"texts": ["a"] * 17}).encode()), 413
    yield "20,000 texts", request(json.dumps({"texts": [""] * 10_000}).encode()), 413
    for text in ("\\ud800", "\\udfff\\ud800", "a\\udc00b", "\\ud83d", "\\uD800\\uD800"):
        yield f"half a character {text}", request(b'{"text": "%s"}' % text.encode()), 422
        yield f"half a character among texts {text}", request(b'{"texts": ["a", "%s"]}' % text.encode()), 422


def _texts(choose: random.Random):
    """Texts that are texts, however strange."""
    for text in ("", " ", "\x00", "\x00" * 1000, "\u202e evil", "a" * 60_000, "a " * 30_000, "。" * 15_000,
                 "🙂" * 10_000, "\ufeff", "\uffff", "\U0010ffff", "e" + "\u0301" * 20_000,
                 "[CLS] [SEP] [PAD] [MASK] [UNK]", "[CLS]" * 8000, "##a", "\r\n" * 20_000, "\u2028", "\t" * 50_000,
                 "ﷺ" * 15_000, "<script>alert(1)</script>", "' OR 1=1 --", "${jndi:ldap://x}", "{{7*7}}", "%s%n%x",
                 "../../etc/passwd", "\x1b[2J\x07", "़" * 10_000, "ẛ̣" * 5000, "𝕳𝖊𝖑𝖑𝖔", "a\u200bb", "\ue000", "[",
                 "[" * 50_000, "-" * 50_000, "a-" * 25_000):  # fmt: skip
        body = json.dumps({"text": text}, ensure_ascii=False).encode()
        yield f"{text[:12]!r}, {len(text):,} characters", request(body if len(body) < BODY_KIB << 10 else b'{"text": ""}'), 200
    yield "16 of the longest", request(json.dumps({"texts": ["a " * 2000] * 16}, ensure_ascii=False).encode()), 200
    yield "escaped", request(b'{"text": "\\ud83d\\ude42 \\u0000 \\/"}'), 200


def _connections(choose: random.Random):
    """Ways of sending."""
    good = request()
    yield "nothing", b"", CLOSED, {"half_close": True}
    yield "half a request", good[:40], CLOSED, {"half_close": True}
    yield "headers alone", good[:-23], CLOSED, {"half_close": True}
    yield "half-closed after a request", good, 200, {"half_close": True}
    for at in (1, 10, 25, 60, len(good) - 23, len(good) - 1):
        yield f"in two parts, cut at {at}", (good[:at], good[at:]), 200, {"pause": 0.1}
    yield "a byte at a time", tuple(good[at : at + 1] for at in range(len(good))), 200, {"pause": 0.001}
    yield "too slow a head", (good[:30], *[b"X"] * 14), (408, CLOSED), {"pause": 1.0}
    yield "nothing for long", (b"", b""), CLOSED, {"pause": 12.0}
    for count in (2, 5, 30):
        yield f"{count} requests at once", good * count, 200, {"answers": count}
    yield "a bad one after a good one", good + b"\x00\x00\r\n\r\n", BAD, {"answers": 2}
    yield "another method after a good one", good + request(line=b"GET /predict HTTP/1.1"), 405, {"answers": 2}
    yield "one hidden in the body of another", request(request(b"{}")), 400
    yield "one hidden behind two lengths", request(good, **{"Transfer-Encoding": b"chunked"}), BAD
    yield "one hidden behind a length of 0", request(good, **{"Content-Length": b"0"}), 400
    yield "newlines before it", b"\r\n\r\n" + good, (200, *BAD)
    yield "newlines without returns", good.replace(b"\r\n", b"\n"), (200, *BAD)
    yield "HTTP/1.0", request(line=b"POST /predict HTTP/1.0"), 200
    yield "HTTP/1.0 without a Host", request(line=b"POST /predict HTTP/1.0", Host=None), 200
    yield "closed by wish", request(Connection=b"close"), 200


def _noise(choose: random.Random):
    """A good request with some bytes changed, left out or twice."""
    for number in range(60):
        data = bytearray(request())
        for _ in range(choose.randrange(1, 6)):
            at = choose.randrange(len(data) - 30)
            how = choose.randrange(3)
            if how == 0:
                data[at] = choose.randrange(256)
            elif how == 1:
                del data[at : at + choose.randrange(1, 8)]
            else:
                data[at:at] = data[at : at + choose.randrange(1, 30)]
        yield str(number), bytes(data), (200, 403, 404, 405, 413, 415, 422, 431, 501, 505, *BAD), {"half_close": True}
    for number in range(15):
        yield f"bytes {number}", choose.randbytes(choose.randrange(1, 5000)), (431, *BAD), {"half_close": True}
