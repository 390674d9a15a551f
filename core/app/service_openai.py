"""What clients of OpenAI's service ask of a model that embeds texts, and what they get: the bodies of /v1/embeddings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from fastapi import HTTPException
from pydantic import BaseModel, Field, field_validator

from ..kinds.sentence_embeddings import as_numbers
from .service_bodies import About, Request, check_characters, check_count
from .service_model import Answer, Item


class OpenAIEmbedding(BaseModel):
    """A vector, as OpenAI's service gives it."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers; with `base64`, their bytes: float32, the least byte first.")
    truncated: bool = Field(description="The text is longer than what the model was given of it.")


class OpenAIUsage(BaseModel):
    """How many tokens were read."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddings(BaseModel):
    """The vectors of all texts, in their order."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: OpenAIUsage


class OpenAIRequest(Request):
    """As the clients of OpenAI's service send it."""

    path, summary, keys = "/v1/embeddings", "The vectors of texts, for clients of OpenAI's service.", "input"
    answer = OpenAIEmbeddings

    input: str | list[str] = Field(description="A text, or several.")
    model: str | None = Field(None, description="The name of the service's model, where one is given.")
    encoding_format: Literal["float", "base64"] = Field("float", description="How the numbers of a vector are sent.")
    dimensions: int | None = Field(None, description="The width of the vectors, where one is given.")
    user: str | None = Field(None, description="Not looked at.")

    @field_validator("input", mode="before")
    @classmethod
    def _of_texts(cls, value: object) -> object:
        listed = value if isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in listed):
            raise ValueError("expected a text, or a list of texts; numbers of tokens are not taken")
        return value

    def items(self, about: About) -> list[Item]:
        """The texts, checked. Raises HTTPException."""
        if self.model not in (None, about.name):
            raise HTTPException(404, f"model: {self.model[:80]!r} is not here, expected {about.name!r}")
        if self.dimensions not in (None, about.width):
            raise HTTPException(422, f"dimensions: got {self.dimensions}, but the vectors of {about.name} have {about.width}")
        texts = [self.input] if isinstance(self.input, str) else self.input
        check_count("input", texts, about)
        check_characters("input", texts)
        return [Item(text) for text in texts]

    def shown(self, about: About, answers: Sequence[Answer]) -> dict[str, Any]:
        """The vectors as OpenAI's service has them."""
        data = [
            {
                "object": "embedding", "index": number, "embedding": self._encoded(answer.fields["embedding"]),
                "truncated": answer.truncated,
            }
            for number, answer in enumerate(answers)
        ]  # fmt: skip
        tokens = sum(answer.tokens for answer in answers)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return {"object": "list", "data": data, "model": about.name, "usage": usage}

    def _encoded(self, vector: np.ndarray) -> list[float] | str:
        if self.encoding_format == "float":
            return as_numbers(vector)
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
