"""Using a finished model: its score on a task, and its predictions for new texts. Several processes share the batches out."""

from __future__ import annotations

import functools
import json
import logging
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..checkpoint import Model, load_model
from ..data.batches import evaluation_batches, length_buckets
from ..data.tables import is_half
from ..data.task_specs import GLUE_TASKS, glue_task
from ..data.tasks import resolve_task
from ..data.token_table import unknown_share
from ..data.tokenize import Tokenizer, load_tokenizer
from ..engine import Engine, EngineOptions
from ..errors import CheckpointError, CrossdistilError, DataError, did_you_mean
from ..fit import fit_problems, teacher_problems, vocabulary_notes, vocabulary_problems
from ..metrics import check_finite, is_known_metric
from ..model_inputs import takes_pairs, trained_length
from ..models.answer_heads import SENTENCES, AnswerHead
from ..recipe_errors import describe
from ..registered import NOTHING, Registered
from ..runs import RECIPE
from ..sentence_folder import embeds
from ..shown import plain
from ..task_data import EVALUATION_BATCH, TaskData, gathered_logits, load_data, logits_function
from ..task_section import TaskSection
from .data_report import data_lines, data_warnings, one_answer, unknown_warnings
from .exported import runtime_of
from .models import model_folder, paths_as_given, tell_notes, told_engine
from .question_answers import answers_in
from .run_folders import plugins_of
from .sessions import Session, Tell, session
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
        # As short as float32 is exact.
        values["embedding"] = None if self.embedding is None else [float(str(value)) for value in self.embedding]
        return {key: value for key, value in values.items() if value is not None}


def load_classifier(
    folder: Path, tell: Tell | None = None, classifier: AnswerHead | None = SENTENCES
) -> tuple[Model, Tokenizer]:
    """A model with a head, and its tokenizer; raises CheckpointError if one of them is missing. `tell` is told what to know of
    the model; without it, that is logged. `classifier` is the head that it has to have, None whichever."""
    found = model_folder(folder)
    with paths_as_given((folder, found)):
        model = load_model(found, classifier=classifier)
        if classifier is not None and model.new and embeds(found):
            told = "embeds texts (modules.json) and has no classifier; expected a classifier of sentences"
            raise CheckpointError(f"{folder}: {told}")
        if model.other_head:
            raise CheckpointError(f"{folder}: {model.other_head}; expected a classifier of sentences")
        if model.new:
            recipe = getattr(model.config, "classifier", SENTENCES).recipe
            first = f"crossdistil run {recipe} --set student.init.from={folder} --set task.data=FOLDER"
            raise CheckpointError(f"{folder}: has no {model.new[0]}, so it cannot classify; fine-tune it first: {first}")
        tokenizer = load_tokenizer(found)
        if problems := vocabulary_problems(str(folder), model.config, tokenizer):
            raise CheckpointError("\n".join(problems))
    notes = [*model.notes, *vocabulary_notes(str(folder), model.config, tokenizer)]
    tell_notes(notes, tell, (folder, found))
    return model, tokenizer


def load_user_model(folder: Path, command: str, tell: Tell | None = None) -> tuple[Model, Tokenizer]:
    """A model of any kind that is exported and served, and its tokenizer. Raises CheckpointError."""
    model, tokenizer = load_classifier(folder, tell, None)
    if not model.kind.is_used or model.outputs is None:
        raise CheckpointError(f"{folder}: is a model of {model.kind.title}, which {command} does not take")
    return model, tokenizer


def evaluate(
    folder: Path,
    task: str | None,
    data: Path,
    split: str,
    backend: str,
    options: EngineOptions,
    max_length: int | None = None,
    columns: dict[str, str | None] | None = None,
    tell: Tell | None = None,
    registered: Registered = NOTHING,
) -> dict[str, float]:
    """The model's metrics on a split of a task: of the one that it was trained on, unless `task` names another, GLUE's or one
    whose `columns` (text, text_pair, label) are given. `tell` is told of the data and of the time from token ids to metrics;
    without it, what looks wrong is logged. Its metrics may be `registered` by plugins."""
    with session(backend, options) as own:
        tell = own.teller(tell)
        return answered(folder, task, data, split, own, max_length, columns, tell, registered).metrics


@dataclass(frozen=True)
class Answered:
    """A model that has answered a split."""

    model: Model
    data: TaskData
    metrics: dict[str, float]
    logits: np.ndarray
    """(examples, outputs), in the order of the file."""


def answered(
    folder: Path,
    task: str | None,
    data: Path,
    split: str,
    own: Session,
    max_length: int | None = None,
    columns: dict[str, str | None] | None = None,
    tell: Tell | None = None,
    registered: Registered | None = NOTHING,
    check: Callable[[TaskData], None] | None = None,
) -> Answered:
    """As `evaluate`, with all that it found, in a session. Without `registered`, metrics of a plugin are left out; `check` may
    refuse the data before any of them is answered."""
    model, loaded, engine = own.world.together(_prepared, folder, task, data, split, own, max_length, columns, tell, registered)
    if check is not None:
        check(loaded)
    loaded.world = own.world
    for line in data_lines(loaded) if tell is not None else ():
        tell(line)
    for line in data_warnings(loaded, split):
        _warn(line, tell)
    infer, started = engine.infer(logits_function(model.config), model.parameters), time.perf_counter()
    metrics, logits = loaded.score(split, infer)
    seconds, count = time.perf_counter() - started, len(loaded.examples[split])
    if tell is not None:
        compiled = ", compilation included" if engine.length_step is None else ""
        tell(f"evaluated {count:,} texts in {seconds:.3f} s: {1000 * seconds / count:.3f} ms a text{compiled}")
    same = one_answer(loaded.spec, logits, loaded.examples[split].labels, split)
    if same is not None:
        _warn(same, tell)
    return Answered(model, loaded, metrics, logits)


def _prepared(
    folder: Path,
    task: str | None,
    data: Path,
    split: str,
    processes: Session,
    max_length: int | None,
    columns: dict[str, str | None] | None,
    tell: Tell | None,
    registered: Registered | None,
) -> tuple[Model, TaskData, Engine]:
    """What `evaluate` needs, checked."""
    model, tokenizer = load_classifier(folder, tell, None)
    own, given = model.about.get("task", {}), {key: name for key, name in (columns or {}).items() if name is not None}
    if given and not given.keys() >= {"text", "label"}:
        raise CrossdistilError(f"--{'label' if 'text' in given else 'text'}: needed beside --{next(iter(given))}")
    if task is None and not own and not given:
        raise CrossdistilError(f"{folder}: does not say what task it was trained on; name it with --task")
    other = task not in (None, own.get("name"))
    if other and glue_task(task) is None and not given:
        near = did_you_mean(task, GLUE_TASKS) or f"; there are {', '.join(GLUE_TASKS)}"
        raise CrossdistilError(
            f"--task {task}: neither a GLUE task nor the one that {folder} was trained on{near}; for a task of your own give "
            "--text and --label"
        )
    described = {"name": task} if other else own or {"name": "task"}
    if not other and not given and glue_task(described["name"]) is None and model.kind.has_classes:
        described = {"labels": model.labels, **described}  # there need be no train file beside the one to score on
    if model.kind.embeds:
        described = {**described, "kind": model.kind.name}
    described = _with_metrics(folder, described, registered, tell)
    try:
        section = TaskSection(**{**described, **given, "data": data, "max_length": trained_length(model, max_length)})
    except ValidationError as error:
        raise CrossdistilError("\n".join(f"{folder}: {line}" for line in describe(error, TaskSection, "task"))) from None
    spec = resolve_task(section, registered or NOTHING)
    problems = teacher_problems(model, spec, str(folder))
    problems += fit_problems(str(folder), model.config, tokenizer, section)
    if problems:
        raise CrossdistilError("\n".join(problems))
    engine = runtime_of(model) or told_engine(processes.engine(), tell)
    loaded = load_data(spec, section, tokenizer, length_buckets(section.max_length, engine.length_step), (split,))
    if loaded.examples[split].labels is None:
        raise DataError(f"{data}: the split '{split}' has no labels to evaluate with; use predict")
    return model, loaded, engine


def _with_metrics(folder: Path, task: dict[str, Any], registered: Registered | None, tell: Tell | None) -> dict[str, Any]:
    """The task that a model was trained on, with metrics that are crossdistil's own or registered. Of others, which were a
    plugin's, raises CrossdistilError; without `registered`, leaves them out and says so."""
    given = task.get("metrics")
    own = (registered or NOTHING).metrics
    listed = given if isinstance(given, (list, tuple)) else []
    missing = [name for name in listed if name not in own and not is_known_metric(str(name))]
    if not missing:
        return task
    names = plain(", ".join(missing))
    what = f"the metric {names} of a plugin" if len(missing) == 1 else f"the metrics {names} of plugins"
    if registered is None:
        _warn(f"{folder}: was trained with {what}, left out here", tell)
        return {**task, "metrics": [name for name in given if name not in missing] or None}
    files = next((plugins_of(place) for place in (folder, folder.parent) if (place / RECIPE).is_file()), [])
    need = " ".join(f"--plugin {shlex.quote(file)}" for file in files) or "--plugin FILE"
    raise CrossdistilError(f"{folder}: was trained with {what}, which evaluate needs: {need}")


def _warn(line: str, tell: Tell | None) -> None:
    if tell is None:
        logging.getLogger(__name__).warning("%s", line)
    else:
        tell(f"warning: {line}")


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
    elif model.kind.of_spans:
        raise DataError(f"{folder} answers questions from a text: give it beside the question (--pair TEXT, or a --file)")
    elif takes_pairs(model.about.get("task", {})) and not model.kind.embeds:
        _warn(f"{folder} was trained on pairs of texts, but gets single ones", tell)
    engine = runtime_of(model) or told_engine(processes.engine(), tell)
    infer = engine.infer(logits_function(model.config), model.parameters)
    if model.kind.of_spans:
        buckets = length_buckets(length, engine.length_step)
        found = answers_in(model, tokenizer, infer, texts, pairs, length, buckets, processes.world)
        return [Prediction(text, pair, answer=own) for text, pair, own in zip(texts, pairs, found, strict=True)]
    if model.kind.per_token:
        if pairs is not None:
            raise DataError("got second texts, but the model finds spans in single texts")
        buckets = length_buckets(length, engine.length_step)
        warn = functools.partial(_warn, tell=tell)
        found = spans_in(model, tokenizer, infer, texts, length, buckets, processes.world, warn, by_spaces)
        return [Prediction(text, None, spans=spans) for text, spans in zip(texts, found, strict=True)]
    if model.kind.embeds and pairs is not None:
        raise DataError("got second texts, but the model embeds single texts; give them as texts of their own")
    tokens = tokenizer.encode_pairs(texts, pairs, length)
    for line in unknown_warnings({"these texts": unknown_share(tokens, tokenizer)}, tokenizer):
        _warn(line, tell)
    buckets, size = length_buckets(length, engine.length_step), min(EVALUATION_BATCH, len(texts))
    batches = evaluation_batches(tokens, None, size, buckets, share=processes.world.share)
    answers = gathered_logits(processes.world, len(texts), batches, infer)
    if model.kind.embeds:
        check_finite(answers, "texts", "vectors")
        return [Prediction(text, None, embedding=vector) for text, vector in zip(texts, answers, strict=True)]
    return list(predictions(model, texts, pairs, answers))


def check_given(what: str, texts: Sequence[str]) -> None:
    """Raise DataError for what is no text."""
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"{what} {number}: got {type(text).__name__}, expected a text")
        if is_half(text):
            raise DataError(f"{what} {number}: holds a byte that is not UTF-8, or half a surrogate pair")


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
