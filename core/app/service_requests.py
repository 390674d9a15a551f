"""What clients ask of each kind of model, checked, and what they get: the bodies of POST /predict, /answer and /embed, and which
of all bodies a kind has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, Field

from ..kinds.kind import Kind
from ..kinds.sentence_embeddings import as_numbers
from .service_bodies import About, Request, check_characters, check_count, one_or_several
from .service_model import Answer, Item
from .service_openai import OpenAIRequest


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
        one_or_several("text", "texts", self.text, self.texts)
        if self.text is not None and self.pairs is not None:
            raise HTTPException(422, "pairs: belongs to texts; the second text of text is pair")
        if self.texts is not None and self.pair is not None:
            raise HTTPException(422, "pair: belongs to text; the second texts of texts are pairs")
        key, texts, pairs = "texts", self.texts, self.pairs
        if self.text is not None:
            key, texts, pairs = "text", [self.text], None if self.pair is None else [self.pair]
        check_count("texts", texts, about)
        if pairs is not None and len(pairs) != len(texts):
            raise HTTPException(422, f"pairs: has {len(pairs)}, expected one for each of {len(texts)} texts")
        if about.takes_pairs is not None and (pairs is not None) != about.takes_pairs:
            second = "pair" if key == "text" else "pairs"
            what = f"is missing; {about.name} takes pairs of texts" if pairs is None else f"{about.name} takes single texts"
            raise HTTPException(422, f"{second}: {what}")
        check_characters(key, texts)
        check_characters("pair" if key == "text" else "pairs", pairs or ())
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
        one_or_several("question", "questions", self.question, self.questions)
        if self.question is not None and self.contexts is not None:
            raise HTTPException(422, "contexts: belongs to questions; the text of question is context")
        one_or_several("context", "contexts", self.context, self.contexts)
        questions = [self.question] if self.questions is None else self.questions
        check_count("questions", questions, about)
        contexts = [self.context] * len(questions) if self.contexts is None else self.contexts
        if len(contexts) != len(questions):
            raise HTTPException(422, f"contexts: has {len(contexts)}, expected one for each of {len(questions)} questions")
        check_characters("question" if self.questions is None else "questions", questions)
        check_characters("context" if self.contexts is None else "contexts", contexts)
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
        one_or_several("text", "texts", self.text, self.texts)
        texts = [self.text] if self.texts is None else self.texts
        check_count("texts", texts, about)
        check_characters("text" if self.texts is None else "texts", texts)
        return [Item(text) for text in texts]

    def shown(self, about: About, answers: Sequence[Answer]) -> dict[str, Any]:
        """The one vector, or a list of them."""
        vectors, cut = [as_numbers(answer.fields["embedding"]) for answer in answers], [answer.truncated for answer in answers]
        if self.text is not None:
            return {"embedding": vectors[0], "truncated": cut[0]}
        return {"embeddings": vectors, "truncated": cut}


REQUESTS: tuple[type[Request], ...] = (PredictRequest, AnswerRequest, EmbedRequest, OpenAIRequest)
BESIDE = {EmbedRequest.path: (OpenAIRequest.path,)}
"""The endpoint of a kind -> others that its models have too."""


def requests_of(kind: Kind) -> tuple[type[Request], ...]:
    """What models of this kind can be asked."""
    paths = (kind.endpoint, *BESIDE.get(kind.endpoint, ()))
    return tuple(each for each in REQUESTS if each.path in paths)
