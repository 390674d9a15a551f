"""The model of a service: texts in, answers out, whatever computes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ...backends.registry import load_engine
from ..checkpoint import Model
from ..data.batches import length_buckets
from ..data.row_batches import RowBatches
from ..data.tokenize import Tokenizer
from ..data.word_vocabulary import WordTokenizer
from ..engine import EngineOptions
from ..errors import CrossdistilError
from ..model_answers import logits_function
from ..model_inputs import takes_pairs, trained_length
from .export_targets import TARGETS, Infer
from .exported import runtime_of
from .finished_model import load_user_model
from .model_notes import told_engine
from .sessions import Tell

ONNX = "onnx"
CALL = 8
"""What a batch costs a processor beside its tokens, in tokens: about a quarter of a short text, by small students' times."""


@dataclass(frozen=True)
class Item:
    """A text that is asked about, and the second one of a pair; of a question, its context."""

    text: str
    pair: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the model says about an item."""

    fields: dict[str, Any]
    """As the model's kind predicts them: label and probabilities, or score, or labels and probabilities, spans, an answer and its
    place, or the embedding, an array."""
    tokens: int
    truncated: bool
    """Whether the text has more tokens than the model was given."""

    def as_json(self) -> dict[str, Any]:
        """What a client gets."""
        return {**self.fields, "truncated": self.truncated}


class ServedModel:
    """A model that is loaded. It is used from one thread, the one that made it: frameworks keep state for each."""

    def __init__(
        self, model: Model, tokenizer: Tokenizer | WordTokenizer, infer: Infer, step: int | None, length: int, batch: int
    ):
        self._model, self._tokenizer, self._infer = model, tokenizer, infer
        self._static, self._exact, self._batch = step is None, step == 1, batch
        self.length = length
        self._buckets = length_buckets(length, step)

    def warm_up(self) -> None:
        """One answer, so that the first client does not wait for what is made at first use."""
        pairs = pairs_of(self._model)
        list(self.answers([Item("warm", "up" if pairs else None)]))

    def answers(self, items: Sequence[Item]) -> Iterator[tuple[list[int], list[Answer]]]:
        """(numbers of items, their answers), a batch at a time, neighbours in length together. Raises CrossdistilError for an
        answer that is no number."""
        for has_pair in (False, True):
            numbers = [number for number, item in enumerate(items) if (item.pair is not None) == has_pair]
            if numbers:
                yield from self._of_a_kind(items, numbers, has_pair)

    def _of_a_kind(self, items: Sequence[Item], numbers: list[int], has_pair: bool) -> Iterator[tuple[list[int], list[Answer]]]:
        texts = [items[number].text for number in numbers]
        pairs = [items[number].pair for number in numbers] if has_pair else None
        model, task = self._model, self._model.about.get("task") or {}
        asked = model.kind.asked(self._tokenizer, texts, pairs, self.length, model.labels or (), task)
        table, owners = asked.table, asked.owners
        tokens = np.bincount(owners, np.diff(table.offsets), len(texts)).astype(int)
        computed: dict[int, dict[int, np.ndarray]] = {}  # of each text that is not answered, the logits of its rows
        left = np.bincount(owners, minlength=len(texts))
        rows, order = RowBatches(table, None, self._buckets), np.argsort(table.lengths, kind="stable")
        for part in self._parts(order, np.asarray(table.lengths)[order]):
            filled = part
            if self._static:  # every new shape would cost a compilation
                filled = np.concatenate([part, np.full(self._batch - len(part), -1, part.dtype)])
            batch = rows.batch(filled)
            logits = self._infer(batch)[0]
            if not np.isfinite(model.kind.meant(logits, batch)).all():
                raise CrossdistilError("the model's answer is not a finite number")
            done = []
            for row, own in zip(part.tolist(), logits):
                text = int(owners[row])
                computed.setdefault(text, {})[row] = own
                left[text] -= 1
                if not left[text]:
                    done.append(text)
            if not done:
                continue
            own_rows = [[own[row] for row in sorted(own)] for own in map(computed.pop, done)]
            yield (
                [numbers[text] for text in done],
                [
                    Answer(said, int(tokens[text]), bool(asked.cut[text]))
                    for text, said in zip(done, asked.answers(done, own_rows), strict=True)
                ],
            )

    def _parts(self, order: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
        """The rows of each batch, of rows in the order of their lengths."""
        if not self._exact:
            return np.array_split(order, -(-len(order) // self._batch))
        return np.split(order, cuts(lengths.tolist(), self._batch))


def cuts(lengths: Sequence[int], most: int) -> list[int]:
    """Where to cut texts, whose lengths ascend, into batches of at most `most`, so that padding and calls together cost least:
    a batch costs its texts times its longest one, and `CALL` more. (The shortest path over the places of the cuts.)"""
    least, before = [0.0], [0]
    for end in range(1, len(lengths) + 1):
        starts = range(max(0, end - most), end)
        start = min(starts, key=lambda start: least[start] + (end - start) * lengths[end - 1])
        least.append(least[start] + (end - start) * lengths[end - 1] + CALL)
        before.append(start)
    found, place = [], before[-1]
    while place:
        found.append(place)
        place = before[place]
    return found[::-1]


def pairs_of(model: Model) -> bool | None:
    """Whether a model takes pairs of texts; None where nothing tells, and both may be tried."""
    if model.kind.of_spans or model.kind.embeds:
        return model.kind.of_spans
    if hasattr(model.config, "pairs"):
        return bool(model.config.pairs)
    task = model.about.get("task")
    return takes_pairs(task) if task else None


@dataclass(frozen=True)
class Classifier:
    """A model that was read, and how it is to be run."""

    source: Path
    model: Model
    tokenizer: Tokenizer | WordTokenizer
    runs_in: str
    """A backend, or the name of an export target."""
    length: int
    tell: Tell

    def load(self, batch: int, options: EngineOptions) -> ServedModel:
        """Ready to answer, in batches of at most `batch`, in the thread that calls this. Raises CrossdistilError."""
        model = self.model
        runtime = runtime_of(model)
        if runtime is None and self.runs_in == ONNX:
            infer, step = _recorded(model), 1
        else:
            engine = runtime or told_engine(load_engine(self.runs_in, options), self.tell)
            infer, step = engine.infer(logits_function(model.config), model.parameters), engine.length_step
        served = ServedModel(model, self.tokenizer, infer, step, self.length, batch)
        served.warm_up()
        return served


def read_classifier(source: Path, runs_in: str, max_length: int | None, tell: Tell) -> Classifier:
    """Read a model folder, a finished run or an exported folder. Raises CrossdistilError."""
    model, tokenizer = load_user_model(source, "serve", tell)
    length = trained_length(model, max_length)
    positions = getattr(model.config, "positions", length)  # a BiLSTM has no limit
    if length > positions:
        raise CrossdistilError(f"--max-length {length}: {source} has only {positions} positions")
    if runs_in == ONNX and model.has_weights:
        tell(f"{source}: is run as ONNX in float32, from a temporary file; `crossdistil export` writes one to keep")
    return Classifier(source, model, tokenizer, runs_in, length, tell)


def _recorded(model: Model) -> Infer:
    target = TARGETS[ONNX]
    with TemporaryDirectory(prefix="crossdistil-") as folder:
        path = Path(folder) / target.file
        target.write(model, path, "fp32", False)
        return target.load(path, model.config)
