"""Serves one model over HTTP until it is asked to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from ..engine import EngineOptions
from ..errors import CrossdistilError
from .service_app import make_app
from .service_batches import Batcher
from .service_bodies import About
from .service_guard import HEAD_BYTES, Guard, Rules, is_loopback
from .service_metrics import Metrics
from .service_model import Classifier, pairs_of
from .service_protocol import BoundedProtocol, BoundedServer, Limits

TOKEN_VARIABLE = "CROSSDISTIL_TOKEN"
SHORTEST_TOKEN = 16
_HEAD_SECONDS, _BODY_SECONDS = 10.0, 20.0
_SPARE_SECONDS = 10.0
"""For a client to take its answer."""
_ALL_BODIES = 64
"""Requests of the greatest length that are held at the same time."""
_BACKLOG = 1024


@dataclass(frozen=True)
class ServiceOptions:
    """How a model is served."""

    hosts: tuple[str, ...] = ()
    """Names that requests may be for, beside those of loopback."""
    token: str | None = None
    max_batch: int = 32
    max_wait: float = 0.0
    """Seconds."""
    queue: int = 1024
    timeout: float = 30.0
    max_texts: int = 128
    body_bytes: int = 1 << 20
    connections: int = 512
    access_log: bool = False


def read_token(path: Path | None) -> str | None:
    """The token of a file, or else of the environment. Raises CrossdistilError for one that is too short or no header's text."""
    where, token = f"environment variable {TOKEN_VARIABLE}", os.environ.get(TOKEN_VARIABLE)
    if path is not None:
        where = f"--token-file {path}"
        try:
            token = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise CrossdistilError(f"{where}: cannot be read: {getattr(error, 'strerror', None) or 'no text'}") from error
    if token is None:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise CrossdistilError(f"{where}: expected {SHORTEST_TOKEN} or more printable ASCII characters without spaces")
    return token


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that clients can connect to. Raises CrossdistilError where that cannot be, or must not be without a token."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = next((each for each in found if each[0] == socket.AF_INET), found[0])
    except (OSError, UnicodeError, IndexError) as error:
        why = getattr(error, "strerror", None) or error
        raise CrossdistilError(f"--host {host}: is no address of this machine ({why})") from error
    if not is_loopback(address[0]) and token is None:
        raise CrossdistilError(
            f"--host {host}: others than this machine could ask; give a token with --token-file or in {TOKEN_VARIABLE}"
        )
    try:
        listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
        # Connections inherit it. asyncio sets it on sockets of its own alone, and without it the second part of an answer
        # waits for the client to acknowledge the first, which clients put off by 40 ms.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as error:
        raise CrossdistilError(f"--host {host} --port {port}: cannot listen there: {error.strerror}") from error


def serve(
    classifier: Classifier, options: ServiceOptions, engine: EngineOptions, sock: socket.socket, say: Callable[[str], None]
) -> None:
    """Answer requests on a socket until Ctrl-C or SIGTERM, then finish what was accepted. Raises CrossdistilError."""
    started, metrics = time.monotonic(), Metrics()
    batcher = Batcher(options.queue, options.max_batch, options.max_wait, metrics)
    metrics.watch_queue(lambda: batcher.waiting)
    batcher.start(lambda: classifier.load(options.max_batch, engine))
    model = classifier.model
    has_token, name = options.token is not None, classifier.source.resolve().name
    width = model.config.hidden_size if model.kind.embeds else None
    about = About(name, pairs_of(model), classifier.length, has_token, options.timeout, options.max_texts, model.kind, width)
    limits = Limits(options.connections, _HEAD_SECONDS, _BODY_SECONDS + options.timeout + _SPARE_SECONDS)
    protocol = type("Protocol", (BoundedProtocol,), {"limits": limits, "metrics": metrics})
    address, port = sock.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}/"

    def told() -> None:
        batcher.serve(asyncio.get_running_loop())
        what = f"{len(model.labels)} labels" if model.kind.has_classes else model.kind.title
        opened = ", with a token" if has_token else ""
        ready = f"ready after {time.monotonic() - started:.1f} s"
        say(f"{name} ({classifier.runs_in}, {what}, {about.length} tokens) on {url}{opened}; {ready}; Ctrl-C stops")

    def is_stopping() -> bool:
        return server.should_exit

    hosts, most = _hosts(options, address), options.body_bytes
    rules = Rules(hosts, options.token, most, _ALL_BODIES * most, _BODY_SECONDS, options.access_log)
    config = uvicorn.Config(
        Guard(make_app(about, batcher, metrics, is_stopping), rules, metrics, is_stopping),
        interface="asgi3",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(_HEAD_SECONDS),
        timeout_graceful_shutdown=int(options.timeout + _SPARE_SECONDS),
        h11_max_incomplete_event_size=HEAD_BYTES,
        backlog=_BACKLOG,
    )
    server = BoundedServer(config, told)
    _only_faults_are_logged()
    try:
        server.run([sock])
    finally:
        batcher.stop()
    say(f"stopped after {metrics.answered:,} requests")


def _hosts(options: ServiceOptions, address: str) -> frozenset[str] | None:
    """The names that requests may be for; behind a token, where none are named, any."""
    if not options.hosts and not is_loopback(address):
        return None
    return frozenset(name.lower() for name in options.hosts)


def _only_faults_are_logged() -> None:
    """What clients do wrong is counted, and told to them."""
    logger = logging.getLogger("uvicorn")
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.StreamHandler(sys.stderr))
