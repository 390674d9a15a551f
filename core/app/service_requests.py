"""What clients ask of each kind of model, checked, and what they get: the bodies of POST /predict, /answer, /embed and of
/v1/embeddings, which is as OpenAI's service has it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ..data.tables import is_half
from ..kinds.kind import Kind
from ..kinds.known_kinds import ONE_CLASS
from ..kinds.sentence_embeddings import as_numbers
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


def _one_or_several(one: str, several: str, first: object, others: object) -> None:
    if (first is None) == (others is None):
        raise HTTPException(422, f"give either {one} or {several}" + ("" if first is None else ", not both"))


def _check_count(key: str, texts: Sequence[str], about: About) -> None:
    if not texts:
        raise HTTPException(422, f"{key}: is empty")
    if len(texts) > about.max_texts:
        raise HTTPException(413, f"{key}: has {len(texts)}, at most {about.max_texts} may come together")


def _check_characters(key: str, texts: Sequence[str]) -> None:
    for text in texts:
        if is_half(text):
            raise HTTPException(422, f"{key}: holds half a surrogate pair, which is no character")


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


class PredictRequest(Request):
    """One text, or several: exactly one of `text` and `texts`."""

    path, summary, keys = "/predict", "Classify a text, or several at once.", "text or texts"
    answer = PredictAnswer | PredictAnswers

    text: str | None = Field(None, description="A text.")
    pair: str | None = Field(None, description="Its second text, for a model of pairs.")
    texts: list[str] | None = Field(None, description="Texts, answered in their order.")
    pairs: list[str] | None = Field(None, description="Their second texts, one for each.")

    def items(self, about: About) -> list[Item]:
        """The texts, checked. Raises HTTPException."""
        _one_or_several("text", "texts", self.text, self.texts)
        if self.text is not None and self.pairs is not None:
            raise HTTPException(422, "pairs: belongs to texts; the second text of text is pair")
        if self.texts is not None and self.pair is not None:
            raise HTTPException(422, "pair: belongs to text; the second texts of texts are pairs")
        key, texts, pairs = "texts", self.texts, self.pairs
        if self.text is not None:
            key, texts, pairs = "text", [self.text], None if self.pair is None else [self.pair]
        _check_count("texts", texts, about)
        if pairs is not None and len(pairs) != len(texts):
            raise HTTPException(422, f"pairs: has {len(pairs)}, expected one for each of {len(texts)} texts")
        if about.takes_pairs is not None and (pairs is not None) != about.takes_pairs:
            second = "pair" if key == "text" else "pairs"
            what = f"is missing; {about.name} takes pairs of texts" if pairs is None else f"{about.name} takes single texts"
            raise HTTPException(422, f"{second}: {what}")
        _check_characters(key, (*texts, *(pairs or ())))
        return [Item(text, None if pairs is None else pairs[number]) for number, text in enumerate(texts)]

    def shown(self, about: About, answers: Sequence[Answer]) -> dict[str, Any]:
        """The one answer, or a list of them."""
        return answers[0].as_json() if self.text is not None else {"predictions": [one.as_json() for one in answers]}


class AnswerAnswer(BaseModel):
    """The answer to a question."""

    answer: str = Field(description='A part of the context; empty for "no answer".')
    start: int = Field(description="Its first character in the context, counted from 0, in characters of Unicode; -1 without.")
    end: int = Field(description="The character behind its last one; -1 without.")
    score: float = Field(description="The sum of the two logits of the best part of the context, be it the answer or not.")
    null_score: float = Field(description='That of the first token, the least of all windows: what speaks for "no answer".')
    probability: float = Field(description="That of the best part, in its window.")
    truncated: bool = Field(description="The question is longer than what the model was given of it.")


class AnswerAnswers(BaseModel):
    """The answers to several questions, in their order."""

    answers: list[AnswerAnswer]


class AnswerRequest(Request):
    """A question and the text that has its answer, or several questions, about one text or each about its own."""

    path, summary, keys = "/answer", "Answer a question from a text, or several at once.", "question and context"
    answer = AnswerAnswer | AnswerAnswers

    question: str | None = Field(None, description="A question.")
    context: str | None = Field(None, description="The text that has the answer, of one question or of all.")
    questions: list[str] | None = Field(None, description="Questions, answered in their order.")
    contexts: list[str] | None = Field(None, description="Their texts, one for each.")

    def items(self, about: About) -> list[Item]:
        """The questions with their contexts. Raises HTTPException."""
        _one_or_several("question", "questions", self.question, self.questions)
        if self.question is not None and self.contexts is not None:
            raise HTTPException(422, "contexts: belongs to questions; the text of question is context")
        _one_or_several("context", "contexts", self.context, self.contexts)
        questions = [self.question] if self.questions is None else self.questions
        _check_count("questions", questions, about)
        contexts = [self.context] * len(questions) if self.contexts is None else self.contexts
        if len(contexts) != len(questions):
            raise HTTPException(422, f"contexts: has {len(contexts)}, expected one for each of {len(questions)} questions")
        _check_characters("question" if self.questions is None else "questions", questions)
        _check_characters("context" if self.contexts is None else "contexts", contexts)
        return [Item(question, context) for question, context in zip(questions, contexts, strict=True)]

    def shown(self, about: About, answers: Sequence[Answer]) -> dict[str, Any]:
        """The one answer, or a list of them."""
        return answers[0].as_json() if self.question is not None else {"answers": [one.as_json() for one in answers]}


class EmbedAnswer(BaseModel):
    """The vector of a text."""

    embedding: list[float]
    truncated: bool = Field(description="The text is longer than what the model was given of it.")


class EmbedAnswers(BaseModel):
    """Those of several texts, in their order."""

    embeddings: list[list[float]]
    truncated: list[bool] = Field(description="Of each text whether it is longer than what the model was given of it.")


class EmbedRequest(Request):
    """One text, or several: exactly one of `text` and `texts`."""

    path, summary, keys = "/embed", "The vector of a text, or of several at once.", "text or texts"
    answer = EmbedAnswer | EmbedAnswers

    text: str | None = Field(None, description="A text.")
    texts: list[str] | None = Field(None, description="Texts, embedded in their order.")

    def items(self, about: About) -> list[Item]:
        """The texts, checked. Raises HTTPException."""
        _one_or_several("text", "texts", self.text, self.texts)
        texts = [self.text] if self.texts is None else self.texts
        _check_count("texts", texts, about)
        _check_characters("text" if self.texts is None else "texts", texts)
        return [Item(text) for text in texts]

    def shown(self, about: About, answers: Sequence[Answer]) -> dict[str, Any]:
        """The one vector, or a list of them."""
        vectors, cut = [as_numbers(answer.fields["embedding"]) for answer in answers], [answer.truncated for answer in answers]
        if self.text is not None:
            return {"embedding": vectors[0], "truncated": cut[0]}
        return {"embeddings": vectors, "truncated": cut}


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
        _check_count("input", texts, about)
        _check_characters("input", texts)
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


REQUESTS: tuple[type[Request], ...] = (PredictRequest, AnswerRequest, EmbedRequest, OpenAIRequest)
BESIDE = {EmbedRequest.path: (OpenAIRequest.path,)}
"""The endpoint of a kind -> others that its models have too."""


def requests_of(kind: Kind) -> tuple[type[Request], ...]:
    """What models of this kind can be asked."""
    paths = (kind.endpoint, *BESIDE.get(kind.endpoint, ()))
    return tuple(each for each in REQUESTS if each.path in paths)
