"""What a finished student answers on dev, kept in its run folder: what `compare` and the report of a run need no framework for.

`predictions.safetensors` holds `logits` (examples, outputs), `labels`, and `teacher/NAME`, the logits of the run's teachers; of
labels of words also `words`, how many each text has. Which rows they are of, how words are decoded, and the file's checksum stand
in `result.json` under `dev`. The texts are not kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .checkpoint import WEIGHTS
from .checksums import Damaged, changed_files, file_checksum, noted_checksums
from .data.tasks import Examples, TaskSpec
from .errors import RunFolderError
from .files import write_arrays
from .kinds.kind import Kind
from .kinds.known_kinds import ANSWERS, ONE_CLASS, ONE_NUMBER, RANKING, SEVERAL_LABELS
from .kinds.own_kinds import OF_PLUGIN, kind_entry, kind_told
from .metrics import ANSWER_METRICS, RANKING_METRICS
from .run_files import STUDENT
from .run_result import REMEDY
from .shown import shown

PREDICTIONS = "predictions.safetensors"
_TEACHER = "teacher/"
_WORDS = "words"
_CONSTRAINED = "constrained"
OF_WEIGHTS = "weights"
"""What of `dev` in result.json is the checksum of the weights that gave the answers."""
SCORED = {ANSWER_METRICS: ANSWERS, RANKING_METRICS: RANKING}
"""What stands in place of the classes' names -> the kind whose examples scored so."""


@dataclass(frozen=True)
class WordsOfTexts:
    """How answers to words, which stand one behind another, make up texts."""

    counts: np.ndarray
    """(texts,) int32: how many words each has."""
    constrained: bool
    """Whether only a legal sequence of tags is an answer, `core.kinds.token_labels.decoded`."""


@dataclass(frozen=True)
class Predictions:
    """A model's answers on the dev split of a task."""

    logits: np.ndarray
    """(examples, outputs) float32; of questions and rankings, what each one scored."""
    labels: np.ndarray
    """As `core.data.tasks.Examples` has them."""
    rows: str
    """SHA-256 of the texts and labels, `rows_digest`."""
    task: str
    label_names: tuple[str, ...] | None
    metrics: tuple[str, ...]
    teachers: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The logits of the run's teachers on the same examples, by name, as far as they are known."""
    own: Kind | None = None
    """What is answered, where that is a kind of a plugin."""
    texts: WordsOfTexts | None = None
    """Of answers to words; None of all others, and of runs of earlier versions, which did not keep it."""

    @property
    def kind(self) -> Kind:
        """What is answered, which the arrays tell unless it is a kind of a plugin."""
        if self.own is not None:
            return self.own
        if self.label_names in SCORED:
            return SCORED[self.label_names]
        if self.label_names is None:
            return ONE_NUMBER
        return SEVERAL_LABELS if self.labels.ndim == 2 else ONE_CLASS

    @property
    def right(self) -> np.ndarray | None:
        """(examples,) booleans: which answers are right in full; None where they are so by degrees."""
        return self.kind.right(self.logits, self.labels)


def kept_names(spec: TaskSpec, examples: Examples) -> tuple[str, ...] | None:
    """`Predictions.label_names` of a split: the classes' names, or what each example scores."""
    if spec.kind.ranks or examples.among is not None:
        return RANKING_METRICS
    return ANSWER_METRICS if spec.kind.of_spans else spec.label_names


def rows_digest(spec: TaskSpec, examples: Examples) -> str:
    """SHA-256 of texts (or tokens, of records of them) and labels of a split: the same whatever model reads it."""
    digest = hashlib.sha256()
    if examples.tokens is not None:
        for array in (examples.tokens.table.ids, examples.tokens.table.offsets):
            digest.update(np.ascontiguousarray(array).data)
    for column in (examples.texts, examples.pairs or ()):
        digest.update(f"{len(column)}\0".encode())
        _update(digest, column)
    if examples.asked is not None:
        _update(digest, (text for golds in examples.asked.golds for text in (*golds, "")))
    for places in (examples.lists, examples.among):
        if places is not None:
            digest.update(np.asarray(places, "<i8").tobytes())
    if examples.labels is not None:
        said = spec.kind.digest(spec.label_names or (), examples.labels)
        if isinstance(said, np.ndarray):
            digest.update(np.ascontiguousarray(said).data)
        else:
            _update(digest, said)
    return digest.hexdigest()


def _update(digest: Any, texts: Iterable[str]) -> None:
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}\0".encode())
        digest.update(data)


def write_predictions(folder: Path, predictions: Predictions) -> dict[str, Any]:
    """Write them into a run folder; returns what its `result.json` notes of them. Raises RunFolderError."""
    shape = predictions.logits.shape
    teachers = {f"{_TEACHER}{name}": array for name, array in predictions.teachers.items() if array.shape == shape}
    texts = predictions.texts
    words = {} if texts is None else {_WORDS: texts.counts}
    write_arrays(folder / PREDICTIONS, {"logits": predictions.logits, "labels": predictions.labels, **words, **teachers})
    return {
        "examples": len(predictions.labels),
        "rows": predictions.rows,
        "labels": None if predictions.label_names is None else list(predictions.label_names),
        "metrics": list(predictions.metrics),
        **({} if predictions.own is None else kind_entry(predictions.own, predictions.label_names)),
        **({} if texts is None else {_CONSTRAINED: texts.constrained}),
        "file": file_checksum(folder / PREDICTIONS),
    }


def damaged_predictions(folder: Path, result: dict[str, Any]) -> str | None:
    """What is wrong with the predictions of a complete run, or None; runs of earlier versions noted none."""
    noted = result.get("dev")
    if not isinstance(noted, dict) or "file" not in noted:
        return None
    problems = changed_files(folder, {PREDICTIONS: noted["file"]})
    return problems[0] if problems else None


def are_of_student(folder: Path, result: dict[str, Any]) -> bool | None:
    """Whether the weights in a run's folder are those that gave its answers, by the checksums that were noted of both: they and
    their list may have been replaced since. None where either is not known."""
    try:
        noted = (noted_checksums(folder / STUDENT) or {}).get(WEIGHTS)
    except Damaged:
        return None
    weights = (result.get("dev") or {}).get(OF_WEIGHTS)
    return None if weights is None or noted is None else noted == weights


def read_predictions(folder: Path, result: dict[str, Any]) -> Predictions | None:
    """Those of a run with that `result.json`; None where it noted none. Raises RunFolderError for what was changed since."""
    noted, source = result.get("dev"), folder / PREDICTIONS
    if noted is None:
        return None
    problem = damaged_predictions(folder, result)
    if problem is not None:
        raise RunFolderError(f"{folder}: {problem}; remove result.json, and --resume makes both again from the saved state")
    try:
        arrays = load_file(source)
        logits, labels = arrays["logits"], arrays["labels"]
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise RunFolderError(f"{source}: cannot be read: {error or type(error).__name__}") from error
    try:
        names, metrics, rows, task = noted["labels"], noted["metrics"], noted["rows"], result["task"]
    except (KeyError, TypeError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else f"expected an object, got {shown(noted, 60)}"
        raise RunFolderError(f"{folder}: result.json: {what}; {REMEDY}") from error
    own = _own_kind(folder, noted)
    outputs = 1 if names is None else len(names) if isinstance(names, list) else 0
    if own is not None and outputs:
        outputs = own.outputs(names)
    fits = logits.shape == (len(labels), outputs) and labels.shape in ((len(labels),), logits.shape) and len(labels)
    if not fits or not isinstance(metrics, list) or not isinstance(rows, str):
        got = f"logits {logits.shape}, labels {labels.shape}, {shown(json.dumps(names), 60)}"
        raise RunFolderError(f"{folder}: result.json: dev: does not fit {PREDICTIONS}: got {got}")
    label_names = None if names is None else tuple(map(str, names))
    taught = {name.removeprefix(_TEACHER): array for name, array in arrays.items() if name.startswith(_TEACHER)}
    taught = {name: array for name, array in taught.items() if array.shape == logits.shape}
    texts = _texts_of(folder, noted, arrays)
    return Predictions(logits, labels, rows, str(task), label_names, tuple(map(str, metrics)), taught, own, texts)


def _texts_of(folder: Path, noted: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> WordsOfTexts | None:
    """Of answers to words, how they make up texts, as far as it was kept. Raises RunFolderError."""
    if _CONSTRAINED not in noted:
        return None
    constrained, counts, words = noted[_CONSTRAINED], arrays.get(_WORDS), len(arrays["labels"])
    if not isinstance(constrained, bool) or counts is None or counts.ndim != 1 or (counts < 0).any() or counts.sum() != words:
        got = "no words of texts" if counts is None else f"{counts.sum():,} words of texts"
        got += f", {_CONSTRAINED} {shown(constrained, 20)}"
        raise RunFolderError(f"{folder}: result.json: dev: does not fit {PREDICTIONS}: got {got}, expected {words:,} words")
    return WordsOfTexts(counts, constrained)


def _own_kind(folder: Path, noted: dict[str, Any]) -> Kind | None:
    """The kind of a plugin that answers are of. Raises RunFolderError where it is not loaded."""
    try:
        return kind_told(noted[OF_PLUGIN]) if OF_PLUGIN in noted else None
    except ValueError as error:
        raise RunFolderError(f"{folder}: result.json: dev: {error}") from error
