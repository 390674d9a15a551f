"""What the bodies of all requests to the service have in common: what they know of the model, and how they are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict

from ..data.tables import is_half
from ..kinds.kind import Kind
from ..kinds.known_kinds import ONE_CLASS
from .service_model import Answer, Item


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
    kind: Kind = ONE_CLASS
    """What it answers."""
    width: int | None = None
    """Of its vectors, where it embeds texts."""


class Request(BaseModel):
    """Base of all bodies."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: ClassVar[str]
    summary: ClassVar[str]
    keys: ClassVar[str]
    """What has to be there, for messages."""
    answer: ClassVar[Any]
    """The model of what a client gets."""

    def items(self, about: About) -> list[Item]:
        """What is asked, checked. Raises HTTPException."""
        raise NotImplementedError

    def shown(self, about: About, answers: Sequence[Answer]) -> dict[str, Any]:
        """What a client gets."""
        raise NotImplementedError


def one_or_several(one: str, several: str, first: object, others: object) -> None:
    """Raises HTTPException where neither key or both have a value."""
    if (first is None) == (others is None):
        raise HTTPException(422, f"give either {one} or {several}" + ("" if first is None else ", not both"))


def check_count(key: str, texts: Sequence[str], about: About) -> None:
    """Raises HTTPException for no texts, and for more than the service takes together."""
    if not texts:
        raise HTTPException(422, f"{key}: is empty")
    if len(texts) > about.max_texts:
        raise HTTPException(413, f"{key}: has {len(texts)}, at most {about.max_texts} may come together")


def check_characters(key: str, texts: Sequence[str]) -> None:
    """Raises HTTPException for what is no character."""
    for text in texts:
        if is_half(text):
            raise HTTPException(422, f"{key}: holds half a surrogate pair, which is no character")
