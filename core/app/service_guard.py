"""What stands before a service's endpoints: who may ask, and how much of a request is read.

A request is refused for its Host (a name that an attacker's DNS turned to loopback), its Origin (a page of another site), its
token, its length, or the time that it takes to come. Its body is read here, whole and within the limits, also where it does not
say how long it is; endpoints find it complete.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..shown import plain
from .service_metrics import Metrics

OPEN_PATHS = frozenset({"/", "/health", "/ready"})
"""Need no token: the page has nothing of the model in it, and probes can give none."""
_ENDS = (b"content-length", b"transfer-encoding")
"""Headers that say where a body ends."""
PATHS = OPEN_PATHS | {"/predict", "/answer", "/embed", "/v1/embeddings", "/metrics", "/openapi.json"}
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]
HEAD_BYTES = 1 << 15
"""Of a request's address and headers."""
_LEFT = 1 << 22
_LEFT_SECONDS = 1.0
"""How much of a refused request is still read, and thrown away: a client that is cut off while it sends sees no answer."""


@dataclass(frozen=True)
class Rules:
    """Who may ask, and how much."""

    hosts: frozenset[str] | None
    """Names that requests may be for; None is any."""
    token: str | None
    body_bytes: int
    all_bodies_bytes: int
    """Of the requests that are read at the same time."""
    body_seconds: float
    access_log: bool


class Refusal(Exception):
    """Why a request is not taken; `status` is HTTP's."""

    def __init__(self, status: int, why: str, **headers: str):
        super().__init__(why)
        self.status, self.headers = status, headers


def error_body(why: str) -> bytes:
    """An answer that is an error."""
    return json.dumps({"error": why}).encode()


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: Callable, rules: Rules, metrics: Metrics, is_stopping: Callable[[], bool]):
        self._app, self._rules, self._metrics, self._is_stopping = app, rules, metrics, is_stopping
        self._held = 0

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        started, status, taken = time.perf_counter(), 0, 0
        path = scope["path"] if scope["path"] in PATHS else "other"

        async def answer(message: dict) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *_HEADERS, self._timing(started)]
                if self._is_stopping():
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            headers = _headers(scope)
            try:
                _check_form(scope, headers)
                self._check(scope["path"], headers)
                body = await self._body(headers, receive)
            except Refusal as refusal:
                await self._refuse(refusal, headers, receive, answer)
                return
            if body is None:
                return  # the client is gone
            taken = len(body)
            await self._app(scope, _given(body, receive), answer)
        finally:
            self._held -= taken
            seconds = time.perf_counter() - started
            self._metrics.request(path, status or 499, seconds)
            if self._rules.access_log:
                line = f"{scope['method']} {scope['path']} {status or 499} {seconds * 1000:.1f} ms"
                print(plain(line, 300), file=sys.stderr, flush=True)

    def _timing(self, started: float) -> tuple[bytes, bytes]:
        return b"server-timing", f"total;dur={(time.perf_counter() - started) * 1000:.2f}".encode()

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        rules, host = self._rules, headers.get(b"host", b"").decode("latin-1")
        if rules.hosts is not None and b"host" in headers and not _is_allowed(host_name(host), rules.hosts):
            raise Refusal(403, f"Host {plain(host, 60)}: is none of this service's names")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2].lower() != host.lower():
            raise Refusal(403, "a page of another site may not ask")
        if rules.token is None or path in OPEN_PATHS:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), rules.token.encode()):
            why = "needs the header `Authorization: Bearer TOKEN` with this service's token"
            raise Refusal(401, why, **{"www-authenticate": "Bearer"})

    async def _body(self, headers: dict[bytes, bytes], receive: Callable) -> bytes | None:
        """The whole body, or None if the client went away. What it takes is counted until the request is answered."""
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            return b""
        if length is not None and int(length) > self._rules.body_bytes:  # the protocol lets no other text through
            raise self._too_long()
        try:
            return await asyncio.wait_for(self._read(receive), self._rules.body_seconds)
        except asyncio.TimeoutError:
            raise Refusal(408, f"the request did not come within {self._rules.body_seconds:g} seconds") from None

    async def _read(self, receive: Callable) -> bytes | None:
        parts, taken = [], 0
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    break
                part = message.get("body", b"")
                taken += len(part)
                self._held += len(part)
                parts.append(part)
                if taken > self._rules.body_bytes:
                    raise self._too_long()
                if self._held > self._rules.all_bodies_bytes:
                    raise Refusal(503, "too many long requests at the same time", **{"retry-after": "1"})
                if not message.get("more_body", False):
                    body, taken = b"".join(parts), 0
                    return body
            return None
        finally:
            self._held -= taken

    def _too_long(self) -> Refusal:
        return Refusal(413, f"the request is longer than {self._rules.body_bytes:,} bytes")

    async def _refuse(self, refusal: Refusal, headers: dict[bytes, bytes], receive: Callable, answer: Callable) -> None:
        ends = [name for name in _ENDS if name in headers]
        is_read = not ends
        if len(ends) == 1 and b"expect" not in headers and refusal.status != 408:
            is_read = await _thrown_away(receive)
        body = error_body(str(refusal))
        given = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        given += [(name.encode(), value.encode()) for name, value in refusal.headers.items()]
        if not is_read:
            given.append((b"connection", b"close"))
        await answer({"type": "http.response.start", "status": refusal.status, "headers": given})
        await answer({"type": "http.response.body", "body": body})


def _check_form(scope: dict, headers: dict[bytes, bytes]) -> None:
    """What the protocol lets through and nobody needs. Raises Refusal."""
    if scope["http_version"] not in ("1.0", "1.1"):
        raise Refusal(505, f"HTTP/{scope['http_version']}: expected HTTP/1.1")
    if len(scope["raw_path"]) + sum(len(name) + len(value) for name, value in scope["headers"]) > HEAD_BYTES:
        raise Refusal(431, f"address and headers are longer than {HEAD_BYTES:,} bytes")
    if all(name in headers for name in _ENDS):  # a proxy may have believed the other one
        raise Refusal(400, "has both Content-Length and Transfer-Encoding")


async def _thrown_away(receive: Callable) -> bool:
    """Whether the rest of a request has come, and was thrown away."""

    async def read() -> bool:
        taken = 0
        while taken < _LEFT:
            message = await receive()
            taken += len(message.get("body", b""))
            if not message.get("more_body", False):
                return True
        return False

    try:
        return await asyncio.wait_for(read(), _LEFT_SECONDS)
    except asyncio.TimeoutError:
        return False


def _given(body: bytes, receive: Callable) -> Callable:
    """`receive` of a request whose body was read."""
    is_given = False

    async def give() -> dict:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return give


def _headers(scope: dict) -> dict[bytes, bytes]:
    """By name; of one that stands twice, all values with commas between them."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        found[name] = found[name] + b"," + value if name in found else value
    return found


def host_name(host: str) -> str:
    """The name in a Host header, without the port; empty where there is none."""
    if host.startswith("["):
        name, _, port = host[1:].partition("]")
        return "" if port and not port.startswith(":") else name.lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_allowed(name: str, allowed: frozenset[str]) -> bool:
    return name in allowed or name == "localhost" or is_loopback(name)


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
