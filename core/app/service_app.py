"""The endpoints of a service: POST /predict, the page at /, and what watches over it."""

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
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException as AnyHTTPException

from ... import __version__
from ..data.tables import is_half
from ..errors import CrossdistilError, DataError
from ..json_files import parse_json
from ..recipe_errors import describe
from .service_batches import Batcher, QueueFull
from .service_metrics import CONTENT_TYPE, Metrics
from .service_model import Answer, Item
from .service_protocol import JOB

_RETRY = {"retry-after": "1"}
_GONE = 499  # what nginx says of a client that did not wait


@dataclass(frozen=True)
class About:
    """What the endpoints know of the model."""

    name: str
    takes_pairs: bool | None
    """None where both may be tried."""
    length: int
    needs_token: bool
    timeout: float
    max_texts: int
    has_classes: bool = True
    finds_spans: bool = False
    """Whether parts of a text are its answer."""


class PredictRequest(BaseModel):
    """One text, or several: exactly one of `text` and `texts`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str | None = Field(None, description="A text.")
    pair: str | None = Field(None, description="Its second text, for a model of pairs.")
    texts: list[str] | None = Field(None, description="Texts, answered in their order.")
    pairs: list[str] | None = Field(None, description="Their second texts, one for each.")

    def items(self, about: About) -> list[Item]:
        """The texts, checked. Raises HTTPException."""
        if (self.text is None) == (self.texts is None):
            raise HTTPException(422, "give either text or texts" + ("" if self.text is None else ", not both"))
        if self.text is not None and self.pairs is not None:
            raise HTTPException(422, "pairs: belongs to texts; the second text of text is pair")
        if self.texts is not None and self.pair is not None:
            raise HTTPException(422, "pair: belongs to text; the second texts of texts are pairs")
        key, texts, pairs = "texts", self.texts, self.pairs
        if self.text is not None:
            key, texts, pairs = "text", [self.text], None if self.pair is None else [self.pair]
        if not texts:
            raise HTTPException(422, "texts: is empty")
        if len(texts) > about.max_texts:
            raise HTTPException(413, f"texts: has {len(texts)}, at most {about.max_texts} may come together")
        if pairs is not None and len(pairs) != len(texts):
            raise HTTPException(422, f"pairs: has {len(pairs)}, expected one for each of {len(texts)} texts")
        if about.takes_pairs is not None and (pairs is not None) != about.takes_pairs:
            second = "pair" if key == "text" else "pairs"
            what = f"is missing; {about.name} takes pairs of texts" if pairs is None else f"{about.name} takes single texts"
            raise HTTPException(422, f"{second}: {what}")
        for text in (*texts, *(pairs or ())):
            if is_half(text):
                raise HTTPException(422, f"{key}: holds half a surrogate pair, which is no character")
        return [Item(text, None if pairs is None else pairs[number]) for number, text in enumerate(texts)]


class Span(BaseModel):
    """A part of a text that has a label."""

    start: int = Field(description="Its first character, counted from 0, in characters of Unicode.")
    end: int = Field(description="The character behind its last one.")
    label: str
    text: str
    score: float = Field(description="The mean probability of its words.")


class PredictAnswer(BaseModel):
    """What the model says about a text."""

    label: str | None = Field(None, description="The most probable one; absent for a regression and for several labels.")
    probabilities: dict[str, float] | None = Field(None, description="By label; absent for a regression.")
    score: float | None = Field(None, description="Of a regression.")
    labels: list[str] | None = Field(None, description="Those more probable than not, where a text may have several.")
    spans: list[Span] | None = Field(None, description="Of a model that labels words, in their order.")
    truncated: bool = Field(description="The text is longer than what the model was given of it.")


class PredictAnswers(BaseModel):
    """The answers to several texts, in their order."""

    predictions: list[PredictAnswer]


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
    schema = PredictRequest.model_json_schema()
    problems = {status: {"model": Problem, "description": text} for status, text in _STATUSES.items()}

    @app.exception_handler(AnyHTTPException)
    async def refuse(request: Request, error: Any) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fail(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "this service has a fault; its log says more"}, 500)

    @app.post(
        "/predict",
        response_model=PredictAnswer | PredictAnswers,
        responses=problems,
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}},
    )
    async def predict(request: Request) -> Response:
        """Classify a text, or several at once."""
        asked = _parsed(request.headers.get("content-type", ""), await request.body())
        items = asked.items(about)
        answers = await _answers(request, items)
        found = answers[0].as_json() if asked.text is not None else {"predictions": [one.as_json() for one in answers]}
        return Response(json.dumps(found, ensure_ascii=False, allow_nan=False), media_type="application/json")

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

    for path, answer in (("/health", health), ("/ready", ready), ("/", show)):  # the protocol leaves its body out
        app.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)
    return app


def _parsed(content_type: str, body: bytes) -> PredictRequest:
    kind, _, parameters = content_type.partition(";")
    if kind.strip().lower() != "application/json":  # a form of another site's page cannot say this
        raise HTTPException(415, "expected the header `Content-Type: application/json`")
    charset = re.fullmatch(r'charset="?([\w-]+)"?', parameters.strip().lower())
    if charset and charset[1] not in ("utf-8", "utf8"):
        raise HTTPException(415, "expected JSON in UTF-8")
    try:
        tree = parse_json(body, "the request")
    except CrossdistilError as error:
        raise HTTPException(400, str(error)) from error
    if not isinstance(tree, dict):
        raise HTTPException(422, "expected a JSON object with text or texts")
    try:
        return PredictRequest.model_validate(tree)
    except ValidationError as error:
        lines = describe(error, PredictRequest)
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        raise HTTPException(422, "; ".join(lines[:5]) + more) from error


def render_page(about: About) -> tuple[str, str]:
    """(the page to type a text into, the policy that lets it run its own script and load nothing)."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("service.html").read_text(encoding="utf-8"))
    page = template.render(about=about)
    script, style = (re.search(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1] for tag in ("script", "style"))
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; "
    return page, policy + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
