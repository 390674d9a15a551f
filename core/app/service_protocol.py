"""uvicorn's HTTP, with limits where it has none: how many connections there are, and how long a client may take.

A connection that sends no request, or only a part of one, or that does not take its answer, is ended after some seconds. A client
that closes its sending side after a request still gets the answer, and one that is gone costs no computation. What is no HTTP is
answered as the endpoints answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from .service_guard import error_body
from .service_metrics import Metrics

_ON_ITS_WAY = 0.25
"""Seconds in which requests still come from connections after the last was accepted."""
_PROBE = 0.05
"""Seconds in which a client that is gone resets the connection."""
JOB = "job"
"""Under which name the state of a request has the job that computes it."""


@dataclass(frozen=True)
class Limits:
    """Of connections; in seconds but for the first."""

    connections: int
    head: float
    """Until a request's headers are there, from the connection or the answer before."""
    request: float
    """From the headers until the answer is taken."""


class BoundedProtocol(H11Protocol):
    """One connection."""

    limits: Limits
    metrics: Metrics
    _timer: asyncio.TimerHandle | None = None
    _watched: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._say(503, "there are too many connections", [(b"retry-after", b"1")])
        else:
            self._watch(self.limits.head)

    def data_received(self, data: bytes) -> None:
        """Some bytes of it."""
        if self.transport.is_closing():
            return
        try:
            super().data_received(data)
        except Exception as error:  # a number of thousands of digits, for one
            self._say(400, f"this is no HTTP that is read here: {type(error).__name__}")

    def handle_events(self) -> None:
        """What the bytes mean."""
        super().handle_events()
        if self.cycle is not self._watched and not self.cycle.response_complete:
            self._watched = self.cycle
            self._watch(self.limits.request)

    def on_response_complete(self) -> None:
        """The answer is on its way; the next request may come."""
        self._watch(self.limits.head)
        super().on_response_complete()

    def eof_received(self) -> bool:
        """The client sends nothing more. Returns whether it is still to be answered."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        self._probe(2)
        return True

    def _probe(self, times: int) -> None:
        """Learn whether the client still listens: one that is gone resets the connection when something comes, which the next
        writing tells. What is written says nothing, and HTTP/1.1 allows it at any time before the answer."""
        if self.transport.is_closing() or self.cycle.response_started or self.scope["http_version"] != "1.1":
            return
        self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if times > 1:
            self.loop.call_later(_PROBE, self._probe, times - 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: nobody waits for what is not computed yet."""
        if self._timer is not None:
            self._timer.cancel()
        if self.cycle is not None and not self.cycle.response_complete:
            job = self.cycle.scope["state"].get(JOB)
            if job is not None:
                job.give_up()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """The bytes are no HTTP, which is being handled as an exception."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        if self.cycle is not None and not self.cycle.response_complete and self.cycle.response_started:
            self.transport.abort()
            return
        self._say(status if status in STATUS_PHRASES else 400, f"this is no HTTP that is read here: {error}")

    def _say(self, status: int, why: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Answer by oneself, and close."""
        self.metrics.request("connection", status)
        body = error_body(why)
        given = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
        response = h11.Response(status_code=status, headers=given + (headers or []), reason=STATUS_PHRASES[status])
        with contextlib.suppress(h11.LocalProtocolError):  # an answer was given already
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._watch(self.limits.head)
        self.transport.close()

    def _watch(self, seconds: float) -> None:
        """End the connection after some seconds, unless something else is watched for by then."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._over)

    def _over(self) -> None:
        is_slow_head = not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete)
        if is_slow_head and self.conn.trailing_data[0]:
            self._say(408, f"the request's headers did not come within {self.limits.head:g} seconds")
        else:
            self.transport.abort()


class BoundedServer(uvicorn.Server):
    """A server that a signal ends in peace, with exit code 0."""

    def __init__(self, config: uvicorn.Config, told: Callable[[], None]):
        """`told()` is called once clients are taken."""
        super().__init__(config)
        self._told = told

    async def startup(self, sockets=None) -> None:
        """Take clients."""
        await super().startup(sockets)
        self._told()

    async def shutdown(self, sockets=None) -> None:
        """Take no new clients, and answer what those that are there have asked."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(_ON_ITS_WAY)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM ask for the end; uvicorn's own would raise them once more after it."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal asks, a second does not wait for what is unfinished."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
