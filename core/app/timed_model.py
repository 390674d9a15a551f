"""A model in a process of its own, which computes a turn of requests each time that it is told to.

    python -m crossdistil.core.app.timed_model

Standard input has a line of JSON with what `Request` says, then one with a `Case` for each turn. Each is answered by a line:
what the model is, then the seconds of the turn's requests, and in the end the most memory that the process had. A model that is
refused is one line with `error`. All processes of a measurement are there at once, and sleep but for the one whose turn it is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.registry import load_engine
from ..checkpoint import WEIGHTS, Model
from ..data.batches import evaluation_batches, length_buckets
from ..data.row_batches import Batch, RowBatches
from ..data.token_table import TokenTable
from ..engine import EngineOptions, unheard
from ..json_files import parse_json
from ..model_answers import logits_function
from ..model_inputs import inputs_of, trained_length
from ..models.architectures import Config
from ..plugin_files import load_the_same, loaded_plugins
from ..processes import end_with_parent
from .error_lines import words_of
from .export_targets import Infer
from .exported import exported_target, runtime_of
from .finished_model import load_user_model


@dataclass(frozen=True)
class Request:
    """Which model, and what it is given: `texts`, or random tokens where there are none."""

    folder: str
    backend: str | None
    """None for an exported model."""
    precision: str
    clock: str
    """A function of Python's `time`."""
    requests: int
    """Of a turn, where there are no texts, which all are in each turn."""
    texts: Sequence[str] | None = None
    pairs: Sequence[str] | None = None
    plugins: Sequence[dict[str, Any]] = field(default_factory=loaded_plugins)
    """Whose families and backends the process needs."""


@dataclass(frozen=True)
class Case:
    """The size of a request: so many texts, padded to the longest of them, or of random tokens, so many each."""

    batch_size: int
    length: int | None = None

    @property
    def name(self) -> str:
        """As the results are named."""
        return f"batch_{self.batch_size}" + ("" if self.length is None else f"_length_{self.length}")

    @property
    def title(self) -> str:
        """For people."""
        return f"batches of {self.batch_size}" + ("" if self.length is None else f" x {self.length} tokens")


@dataclass
class TimedModel:
    """A model in this process, and its batches of each case. Times are from token ids to logits."""

    config: Config
    infer: Infer
    clock: Callable[[], float]
    buckets: Sequence[int]
    """The lengths that its batches are padded to."""
    about: dict[str, Any]
    """What it is, for people: `known`."""
    tokens: TokenTable | None = None
    """Of the texts; None for random tokens."""
    rows: Sequence[int] | None = None
    """Of the texts only these; None for all."""
    requests: int = 0
    """Of a turn with random tokens."""
    _batches: dict[Case, list[Batch]] = field(default_factory=dict, init=False)

    def turn(self, case: Case) -> list[float]:
        """The seconds of each request."""
        if case not in self._batches:
            self._batches[case] = self._made(case)
        seconds = []
        for batch in self._batches[case]:
            started = self.clock()
            self.infer(batch)
            seconds.append(self.clock() - started)
        return seconds

    def _made(self, case: Case) -> list[Batch]:
        if self.tokens is not None and self.rows is not None:
            batches = RowBatches(self.tokens, None, self.buckets)
            places = range(0, len(self.rows), case.batch_size)
            return [batches.batch(np.asarray(self.rows[place : place + case.batch_size])) for place in places]
        if self.tokens is not None:
            return [batch for _, batch in evaluation_batches(self.tokens, None, case.batch_size, self.buckets)]
        generator, shape = np.random.default_rng(0), (case.batch_size, case.length)
        return [self._random(generator, shape) for _ in range(self.requests)]

    def _random(self, generator: np.random.Generator, shape: tuple[int, int]) -> Batch:
        """Tokens without padding; of a model of pairs, in both texts."""
        batch = {}
        for name, (dtype, _) in inputs_of(self.config).items():
            if name.endswith("_ids") and name != "token_type_ids":
                batch[name] = generator.integers(0, self.config.vocab_size, shape, dtype)
            else:
                batch[name] = np.zeros(shape, dtype) if name == "token_type_ids" else np.ones(shape, dtype)
        return batch


def loaded(request: Request) -> TimedModel:
    """The model of a request, in this process."""
    load_the_same(request.plugins)
    model, tokenizer = load_user_model(Path(request.folder), "latency", unheard)
    length = trained_length(model)
    engine = runtime_of(model) or load_engine(request.backend, EngineOptions("cpu", request.precision))
    infer, buckets = engine.infer(logits_function(model.config), model.parameters), length_buckets(length, engine.length_step)
    tokens = None
    if request.texts is not None:  # as they are read where they are answered: in windows, where a kind has such
        texts, task = (request.texts, request.pairs), model.about.get("task") or {}
        tokens = model.kind.asked(tokenizer, *texts, length, model.labels or (), task).table
    about = known(model, engine, None if tokens is None else tokens.lengths, len(request.texts or ()))
    return TimedModel(model.config, infer, getattr(time, request.clock), buckets, about, tokens, None, request.requests)


def known(model: Model, engine: Any, lengths: Sequence[int] | None, texts: int | None = None) -> dict[str, Any]:
    """What a model is that runs in an engine or runtime, on rows of these lengths, which are so many `texts`; None: as many."""
    found = {
        "runs_in": engine.name,
        "device": getattr(engine, "device", "cpu"),
        "precision": engine.precision,
        "versions": engine.versions(),
        "parameters": model.parameter_count,
        "bytes": size_of(model),
    }
    return found if lengths is None else found | {"mean_tokens": round(float(np.sum(lengths)) / (texts or len(lengths)), 2)}


def size_of(model: Model) -> int:
    """Bytes of the files of the weights, or of the graph."""
    target = None if model.has_weights else exported_target(model.source)
    return (model.source / WEIGHTS).stat().st_size if target is None else target.size(model.source)


def peak_memory_mb() -> float | None:
    """The most memory that this process had, in MB; None where the system does not tell. Not `getrusage`, which counts what a
    process was before it was started."""
    try:
        with open("/proc/self/status", encoding="utf-8") as lines:
            return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), None)
    except OSError:
        return None


def main() -> int:
    """Serve the lines of standard input."""
    end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # frameworks print

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    try:
        model = loaded(Request(**parse_json(sys.stdin.readline(), "standard input")))
        answer(model.about)
        for line in sys.stdin:
            answer({"seconds": model.turn(Case(**parse_json(line, "standard input")))})
        answer({"peak_memory_mb": peak_memory_mb()})
    except Exception as error:
        code, text = words_of(error)
        if code == 1:
            raise
        answer({"error": text})
        return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
