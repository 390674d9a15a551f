"""The endpoints of a service: what its model is asked (`service_requests`), the page at /, and what watches over it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from ... import __version__
from ..errors import CrossdistilError, DataError
from ..json_files import parse_json
from ..recipe_errors import describe
from .service_batches import Batcher, QueueFull
from .service_bodies import About
from .service_bodies import Request as Asked
from .service_metrics import CONTENT_TYPE, Metrics
from .service_model import Answer, Item
from .service_protocol import JOB
from .service_requests import REQUESTS, requests_of

_RETRY = {"retry-after": "1"}
_GONE = 499  # what nginx says of a client that did not wait


class Problem(BaseModel):
    """Why there is no answer."""

    error: str


_STATUSES = {
    400: "No JSON, or no HTTP.",
    401: "The token is missing or wrong.",
    403: "The Host or the Origin is not this service's.",
    408: "The request came too slowly.",
    413: "The request is too long, or has too many texts.",
    415: "The body is not said to be application/json.",
    422: "The JSON is not what is expected.",
    431: "Address and headers are too long.",
    503: "The queue is full; Retry-After says when to ask again.",
    504: "The answer took too long.",
    505: "No HTTP/1.1.",
}


def make_app(about: About, batcher: Batcher, metrics: Metrics, is_stopping: Callable[[], bool]) -> FastAPI:
    """The application of a model."""
    # FastAPI's own pages of documentation load their scripts from elsewhere.
    app = FastAPI(title=f"crossdistil: {about.name}", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    page, policy = render_page(about)
    problems = {status: {"model": Problem, "description": text} for status, text in _STATUSES.items()}

    @app.exception_handler(AnyHTTPException)
    async def refuse(request: Request, error: Any) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "this service has a fault; its log says more"}, 500)

    def asking(kind: type[Asked]) -> Callable:
        async def ask(request: Request) -> Response:
            asked = _parsed(kind, request.headers.get("content-type", ""), await request.body())
            found = asked.shown(about, await _answers(request, asked.items(about)))
            return Response(json.dumps(found, ensure_ascii=False, allow_nan=False), media_type="application/json")

        return ask

    async def _answers(request: Request, items: list[Item]) -> list[Answer]:
        try:
            job = batcher.submit(items)
        except QueueFull:
            raise HTTPException(503, f"the queue is full: {batcher.waiting} texts wait", _RETRY) from None
        request.scope["state"][JOB] = job
        await asyncio.wait({job.answered}, timeout=about.timeout)
        if job.answered.cancelled():
            raise HTTPException(_GONE, "nobody waits for this")
        if not job.answered.done():
            job.give_up()
            raise HTTPException(504, f"no answer within {about.timeout:g} seconds")
        try:
            return job.answered.result()
        except CrossdistilError as error:
            raise HTTPException(422 if isinstance(error, DataError) else 500, str(error)) from error

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the process is worth keeping."""
        if not batcher.is_alive:
            raise HTTPException(503, "the thread that computes has ended")
        return {"status": "live"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """Whether a request would be taken now."""
        if is_stopping() or not batcher.is_alive or batcher.is_full:
            raise HTTPException(503, "the service stops" if is_stopping() else "the queue is full", _RETRY)
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response)
    async def count() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return HTMLResponse(page, headers={"content-security-policy": policy})

    own = requests_of(about.kind)
    for kind in own:
        schema = {"required": True, "content": {"application/json": {"schema": kind.model_json_schema()}}}
        app.add_api_route(
            kind.path, asking(kind), methods=["POST"], response_model=kind.answer, responses=problems, summary=kind.summary,
            operation_id=kind.path.strip("/").replace("/", "_"), openapi_extra={"requestBody": schema},
        )  # fmt: skip

    async def elsewhere(request: Request) -> Response:
        raise HTTPException(404, f"{about.name} is a model of {about.kind.title}; ask POST {own[0].path} with {own[0].keys}")

    for kind in {*REQUESTS} - {*own}:
        app.add_api_route(kind.path, elsewhere, methods=["POST"], include_in_schema=False)
    for path, answer in (("/health", health), ("/ready", ready), ("/", show)):  # the protocol leaves its body out
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)
    return app


def _parsed(kind: type[Asked], content_type: str, body: bytes) -> Asked:
    of_type, _, parameters = content_type.partition(";")
    if of_type.strip().lower() != "application/json":  # a form of another site's page cannot say this
        raise HTTPException(415, "expected the header `Content-Type: application/json`")
    charset = re.fullmatch(r'charset="?([\w-]+)"?', parameters.strip().lower())
    if charset and charset[1] not in ("utf-8", "utf8"):
        raise HTTPException(415, "expected JSON in UTF-8")
    try:
        tree = parse_json(body, "the request")
    except CrossdistilError as error:
        raise HTTPException(400, str(error)) from error
    if not isinstance(tree, dict):
        raise HTTPException(422, f"expected a JSON object with {kind.keys}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = describe(error, kind)
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise HTTPException(422, "; ".join(lines[:5]) + more) from error


@dataclass(frozen=True)
class _Page:
    """What the page says, and what it asks for: JavaScript, of `text` and `second`."""

    lead: str
    text: str
    pair: str
    act: str
    does: str
    asked: str
    example: str = '{"text": "..."}'
    optional: bool = False
    """Whether the second text may be left out."""


def _page_of(about: About) -> _Page:
    kind, lead = about.kind, "Type a text and see what the model says."
    asked = "second === undefined ? { text } : { text, pair: second }"
    if kind.of_spans:
        lead, example = "Ask a question about a text.", '{"question": "...", "context": "..."}'
        return _Page(lead, "Question", "Text", "Answer", "answers", "{ question: text, context: second }", example)
    if kind.embeds:
        lead, asked = "Type a text, or two to compare.", "{ texts: second === undefined ? [text] : [text, second] }"
        return _Page(lead, "Text", "Another text to compare, or none", "Embed", "embeds", asked, optional=True)
    act, does = ("Find", "finds") if kind.per_token else ("Classify", "classifies") if kind.has_classes else ("Score", "scores")
    text = "First text" if about.takes_pairs else "Text"
    pair = "" if about.takes_pairs is False else f"Second text{'' if about.takes_pairs else ' (only for a model of pairs)'}"
    return _Page(lead, text, pair, act, does, asked, optional=not about.takes_pairs)


def render_page(about: About) -> tuple[str, str]:
    """(the page to type a text into, the policy that lets it run its own script and load nothing)."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("service.html").read_text(encoding="utf-8"))
    page = template.render(about=about, page=_page_of(about))
    script, style = (re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1] for tag in ("script", "style"))
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; "
    return page, policy + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
