"""A kind of task that a plugin registers: which columns, targets, logits, scores and predictions it has, as the kinds of this
package have them (`core.kinds`).

docs/plugins.md shows one whole. From then on its name is a recipe's `task.kind`, in each process that has loaded the plugin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .errors import PluginError
from .kinds.kind import Kind
from .kinds.known_kinds import BUILT_IN, KINDS
from .kinds.several_labels import SeveralLabels
from .metrics import KNOWN_METRICS
from .models.answer_heads import SENTENCES
from .plugin_calls import checked_metric
from .plugin_errors import error_text, plugin_line
from .registered import RegisteredKind, RegisteredMetric
from .registering import caller, checked_name, record
from .shown import shown

_ROWS, _CLASSES = 6, ("first", "second", "third", "fourth")
_SAID = ("label", "probabilities", "labels", "score")
"""What a prediction can say."""


def register_kind(kind: type[Kind]) -> type[Kind]:
    """Make a kind of task usable as a recipe's `task.kind`, under its `name`.

    `kind` is a subclass of `Kind`: how answers stand in a column (`found_labels`, `targets`, `cell`), how many logits there are
    (`outputs`), what they say (`values`, `answers`, `right`, `errors`, `distance`, `answer_text`, `prediction`) and how they are
    scored (`measures`, `default_metrics`). A model of it answers for a text as a whole. It is tried once on random answers: what
    fails, or returns something else than `core.kinds.kind` says, is refused. Raises PluginError.
    """
    module, place = caller()
    if not (isinstance(kind, type) and issubclass(kind, Kind)):
        raise PluginError(f"{place}: register_kind: expected a subclass of Kind, got {shown(kind, 60)}")
    name = checked_name(getattr(kind, "name", None), "kind", place, BUILT_IN)
    what = f"{place}: kind '{name}'"
    for key in ("title", "described"):
        text = getattr(kind, key, None)
        if not isinstance(text, str) or not text or not text.isprintable():
            raise PluginError(f"{what}: {key}: got {shown(text, 60)}, expected words, like 'ordinal regression'")
    if taken := [KINDS[other].name for other in BUILT_IN if kind.title == KINDS[other].title]:
        raise PluginError(f"{what}: title is that of '{taken[0]}'; choose another")
    if kind.head != SENTENCES or kind.over_tokens.fget(kind) or kind.embeds or kind.ranks or not kind.has_targets:
        raise PluginError(f"{what}: expected the head SENTENCES and a column of answers: a text is answered as a whole")
    for measure, function in kind.measures.items():
        checked_name(measure, "metric", place, KNOWN_METRICS - set(kind.measures))
        if not callable(function):
            raise PluginError(f"{what}: measures: {measure}: expected a function (logits, targets), got {shown(function, 60)}")
    file = place.rpartition(":")[0]
    own = [RegisteredMetric(measure, place, function, (name,)) for measure, function in kind.measures.items()]
    kind.measures = {each.name: checked_metric(each) for each in own}
    _Trial(kind(), what, file).run()
    record(module, RegisteredKind(name, place, kind()))
    return kind


class _Trial:
    """A kind on a few random answers."""

    def __init__(self, kind: Kind, what: str, file: str):
        self._kind, self._what, self._file = kind, what, file

    def run(self) -> None:
        """Raise PluginError for the first thing that is not as it should be."""
        kind, classes = self._kind, _CLASSES if self._kind.has_classes else ()
        outputs = self._call("outputs", classes or None)
        self._expect("outputs", type(outputs) is int and outputs > 0, outputs, "the number of logits, from 1")
        self._check_losses(len(classes), outputs)
        generator = np.random.default_rng(0)
        targets = self._call("drawn", generator, _ROWS, outputs)
        fits = isinstance(targets, np.ndarray) and targets.shape[:1] == (_ROWS,) and targets.dtype == kind.target_type
        self._expect("drawn", fits, targets, f"an array ({_ROWS}, ...) of {kind.target_type}, as target_type says")
        self._check_files(classes, targets)
        logits = generator.normal(0, 2, (_ROWS, outputs)).astype(np.float32)
        self._check_answers(classes, logits, targets)
        self._check_scores(classes, logits, targets)

    def _check_losses(self, classes: int, outputs: int) -> None:
        kind = self._kind
        one_class, number = kind.one_class and outputs == classes, not kind.has_classes and not kind.one_class and outputs == 1
        if kind.one_class and not one_class:
            raise PluginError(f"{self._what}: one_class is True, but {classes} classes have {outputs} logits; set it to False")
        if not (kind.own_losses or one_class or number or isinstance(kind, SeveralLabels)):
            told = f"no loss of crossdistil knows what its {outputs} logits mean; set own_losses = True, and register a loss"
            raise PluginError(f"{self._what}: {told}")

    def _check_files(self, classes: tuple[str, ...], targets: np.ndarray) -> None:
        cells = [self._call("cell", classes, target) for target in targets]
        self._expect("cell", all(isinstance(cell, str) for cell in cells), cells[0], "the text of a table's cell")
        lines, nowhere = np.arange(1, _ROWS + 1), Path("trial")
        again = self._call("targets", nowhere, "label", classes, cells, lines, "")
        same = isinstance(again, np.ndarray) and again.dtype == targets.dtype and np.array_equal(again, targets)
        self._expect("targets", same, again, f"what `cell` was made of: {shown(targets.tolist(), 60)}")
        if classes:
            found = self._call("found_labels", nowhere, cells, lines, "label")
            fits = isinstance(found, tuple) and set(found) <= set(classes)
            self._expect("found_labels", fits, found, f"a tuple of some of {', '.join(classes)}")
            counts = self._call("counts", targets, len(classes))
            fits = isinstance(counts, np.ndarray) and counts.shape == (len(classes),)
            self._expect("counts", fits, counts, f"an array ({len(classes)},)")

    def _check_answers(self, classes: tuple[str, ...], logits: np.ndarray, targets: np.ndarray) -> None:
        values = self._call("values", logits)
        fits = isinstance(values, np.ndarray) and values.ndim == 2 and len(values) == _ROWS and np.isfinite(values).all()
        self._expect("values", fits, values, f"finite numbers ({_ROWS}, ...)")
        answers = self._call("answers", logits)
        fits = answers is None or (isinstance(answers, np.ndarray) and answers.ndim == 2 and len(answers) == _ROWS)
        self._expect("answers", fits, answers, f"whole numbers ({_ROWS}, n), or None")
        right = self._call("right", logits, targets)
        self._expect("right", right is None or _is_of_rows(right, "b"), right, f"({_ROWS},) booleans, or None")
        differs = self._call("differs", logits, logits[::-1], 0.0)
        self._expect("differs", _is_of_rows(differs, "b"), differs, f"({_ROWS},) booleans")
        errors = self._call("errors", logits, targets)
        fits = isinstance(errors, tuple) and len(errors) == 2 and _is_of_rows(errors[0], "b") and _is_of_rows(errors[1], "f")
        self._expect("errors", fits, errors, f"({_ROWS},) booleans, and ({_ROWS},) numbers")
        distance = self._call("distance", values, values[::-1])
        self._expect("distance", _is_of_rows(distance, "f"), distance, f"({_ROWS},) numbers")
        for method, given in (("answer_text", logits[0]), ("target_text", targets[0])):
            text = self._call(method, classes, given)
            self._expect(method, isinstance(text, str), text, "a text")
        for row in range(_ROWS):
            said = self._call("prediction", classes, values[row])
            fits = isinstance(said, dict) and set(said) <= set(_SAID) and bool(said)
            self._expect("prediction", fits, said, f"a mapping with some of {', '.join(_SAID)}")
            self._expect("prediction", _is_json(said), said, "numbers, texts, lists and mappings of Python, as JSON has them")
            answer = self._call("answer_text", classes, logits[row])
            alike = said.get("label") in (None, answer)
            self._expect("prediction", alike, said.get("label"), f"the label that answer_text gives: {shown(answer)}")

    def _check_scores(self, classes: tuple[str, ...], logits: np.ndarray, targets: np.ndarray) -> None:
        kind, names = self._kind, self._call("metrics", len(classes))
        unknown = [name for name in kind.default_metrics if name not in names]
        if unknown or not kind.default_metrics:
            got = f"'{unknown[0]}'" if unknown else "none"
            raise PluginError(f"{self._what}: default_metrics: got {got}, expected some of {', '.join(names) or 'measures'}")
        found = self._call("score", tuple(names), logits, targets, {}, classes)
        fits = isinstance(found, dict) and found.keys() >= set(kind.default_metrics)
        self._expect("score", fits, found, f"a mapping with {', '.join(names)}")

    def _call(self, method: str, *arguments: Any) -> Any:
        function: Callable[..., Any] = getattr(self._kind, method)
        try:
            return function(*arguments)
        except PluginError:
            raise
        except NotImplementedError as error:
            raise PluginError(f"{self._what}: has no {method}: {type(self._kind).__mro__[1].__name__} has none either") from error
        except Exception as error:
            where = plugin_line(error, [self._file])
            at = self._what if where is None else f"{where}: kind '{self._kind.name}'"
            raise PluginError(f"{at}: {method} fails on random answers: {error_text(error)}") from error

    def _expect(self, method: str, fits: bool, got: Any, expected: str) -> None:
        if not fits:
            raise PluginError(f"{self._what}: {method} returns {shown(got, 60)}, expected {expected}")


def _is_json(said: dict) -> bool:
    try:
        json.dumps(said)
    except (TypeError, ValueError):
        return False
    return True


def _is_of_rows(array: Any, kind: str) -> bool:
    return isinstance(array, np.ndarray) and array.shape == (_ROWS,) and array.dtype.kind == kind
