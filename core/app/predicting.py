"""What a finished model says about new texts. Several processes share the batches out."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Model
from ..data.batches import evaluation_batches, length_buckets
from ..data.token_table import unknown_share
from ..data.tokenize import Tokenizer
from ..errors import CrossdistilError, DataError
from ..kinds.sentence_embeddings import as_numbers
from ..metrics import check_finite
from ..model_answers import EVALUATION_BATCH, gathered_logits, logits_function
from ..model_inputs import trained_length
from .data_report import unknown_warnings
from .exported import runtime_of
from .finished_model import load_classifier, warn
from .given_texts import check_given, check_pairs
from .model_notes import told_engine
from .question_answers import answers_in
from .sessions import Session, Tell
from .text_spans import spans_in


@dataclass(frozen=True)
class Prediction:
    """What a model says about one text."""

    text: str
    pair: str | None
    label: str | None = None
    """The most probable class; None for a regression, and where a text may have several labels."""
    probabilities: dict[str, float] = field(default_factory=dict)
    """Class name -> probability; empty for a regression. Where a text may have several labels, each is independent."""
    score: float | None = None
    """The predicted number of a regression."""
    labels: tuple[str, ...] | None = None
    """The labels of a text that may have several: those more probable than not."""
    answer: dict[str, Any] | None = None
    """Of a question, whose context is the pair: `answer` (empty for "no answer"), `start` and `end` in characters of the context,
    `score`, `null_score` and `probability` as `core.best_answers.Answer` has them."""
    spans: tuple[dict[str, Any], ...] | None = None
    """Where words have labels: `start`, `end` (in characters), `label`, `text` and `score`, the words' mean probability."""
    embedding: np.ndarray | None = None
    """(width,) float32: the text's vector, of a model that embeds texts."""

    def as_json(self) -> dict[str, Any]:
        """The fields that are set; of a question not its context."""
        if self.answer is not None:
            return {"question": self.text, **self.answer}
        values = {"text": self.text, "pair": self.pair, "label": self.label}
        values |= {"probabilities": self.probabilities or None, "score": self.score}
        values["labels"] = None if self.labels is None else list(self.labels)
        values["spans"] = None if self.spans is None else list(self.spans)
        values["embedding"] = None if self.embedding is None else as_numbers(self.embedding)
        return {key: value for key, value in values.items() if value is not None}


def predict(
    folder: Path,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    processes: Session,
    max_length: int | None = None,
    tell: Tell | None = None,
    classifier: tuple[Model, Tokenizer] | None = None,
    by_spaces: bool = False,
) -> list[Prediction]:
    """The model's predictions, in the order of the texts, which all of the `processes` are given and get. `tell` is told of what
    looks wrong, which is logged without it; `classifier` is the model in the folder, where it is loaded already. `by_spaces` is
    whether words that have labels are what stands between spaces."""
    model, tokenizer = classifier or load_classifier(folder, tell, None)
    length = trained_length(model, max_length)
    positions = getattr(model.config, "positions", length)  # a BiLSTM has no limit
    if length > positions:
        raise CrossdistilError(f"--max-length {length}: {folder} has only {positions} positions")
    if not len(texts):
        raise DataError("no text to predict")
    check_given("text", texts)
    if pairs is not None:
        check_given("pair", pairs)
        if len(pairs) != len(texts):
            raise DataError(f"got {len(texts)} texts and {len(pairs)} second texts, expected one for each")
    check_pairs(folder, model, pairs, tell)
    engine = runtime_of(model) or told_engine(processes.engine(), tell)
    infer = engine.infer(logits_function(model.config), model.parameters)
    if model.kind.of_spans:
        buckets = length_buckets(length, engine.length_step)
        found = answers_in(model, tokenizer, infer, texts, pairs, length, buckets, processes.world)
        return [Prediction(text, pair, answer=own) for text, pair, own in zip(texts, pairs, found, strict=True)]
    if model.kind.per_token:
        buckets = length_buckets(length, engine.length_step)
        told = functools.partial(warn, tell=tell)
        found = spans_in(model, tokenizer, infer, texts, length, buckets, processes.world, told, by_spaces)
        return [Prediction(text, None, spans=spans) for text, spans in zip(texts, found, strict=True)]
    tokens = tokenizer.encode_pairs(texts, pairs, length)
    for line in unknown_warnings({"these texts": unknown_share(tokens, tokenizer)}, tokenizer):
        warn(line, tell)
    buckets, size = length_buckets(length, engine.length_step), min(EVALUATION_BATCH, len(texts))
    batches = evaluation_batches(tokens, None, size, buckets, share=processes.world.share)
    answers = gathered_logits(processes.world, len(texts), batches, infer)
    if model.kind.embeds:
        check_finite(answers, "texts", "vectors")
        return [Prediction(text, None, embedding=vector) for text, vector in zip(texts, answers, strict=True)]
    return list(predictions(model, texts, pairs, answers))


def predictions(
    model: Model, texts: Sequence[str], pairs: Sequence[str] | None, logits: np.ndarray
) -> Iterator[Prediction]:
    """What logits (texts, outputs) say of each text. Raises TrainingError for those that are not finite."""
    check_finite(logits, "texts")
    values = model.kind.values(logits)
    for index, text in enumerate(texts):
        said = model.kind.prediction(model.labels or (), values[index])
        yield Prediction(text, None if pairs is None else pairs[index], **said)


def as_json_lines(predictions: Sequence[Prediction], ids: Sequence[Any] | None = None) -> str:
    """One JSON object a line, with what identifies each text where that is known."""
    found = (item.as_json() for item in predictions)
    if ids is not None:
        found = ({"id": name, **item} for name, item in zip(ids, found, strict=True))
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in found)
