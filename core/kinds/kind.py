"""What a kind of task is: how its answers stand in a file, the arrays that they become, the head that gives them, how they are
scored, and how a prediction is shown. One object a kind, without state; a new kind is a subclass, and a line in
`core.kinds.known_kinds`, or of a plugin (`core.plugin_kinds`).

Arrays: `targets` (examples, ...) are what is in a split, `logits` (examples, outputs) what a model gives for it, `labels` the
names of the classes in the order of the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from ..metrics import Metric, compute_metrics
from ..models.answer_heads import OF_WORDS, SENTENCES, AnswerHead
from .asked import Asked, whole_texts


class Kind:
    """Base of all kinds: one answer an example, in a column of a table."""

    name: ClassVar[str]
    """As a recipe's `task.kind` has it."""
    title: ClassVar[str]
    """What people call it."""
    described: ClassVar[str]
    """The task in a sentence: `a regression`."""
    head: ClassVar[AnswerHead] = SENTENCES
    """What a model answers with."""
    problem_type: ClassVar[str | None] = None
    """What transformers calls it in a config.json."""
    has_targets: ClassVar[bool] = True
    """Whether the answers are told, in a column; else the task is raw text."""
    has_classes: ClassVar[bool] = True
    """Whether an answer is made of classes, and not of a number."""
    one_class: ClassVar[bool] = False
    """Whether the logits are of one distribution over the classes."""
    per_token: ClassVar[bool] = False
    """Whether the axis of the answers is that of the tokens, so that losses over logits take each labelled token as a row."""
    of_spans: ClassVar[bool] = False
    """Whether an answer is a part of the text, so that losses over logits take its beginning as a row, and its end, of which each
    is one of the text's tokens."""
    embeds: ClassVar[bool] = False
    """Whether the answer is a vector of each text, of which an example may have several."""
    ranks: ClassVar[bool] = False
    """Whether an example is a query with several candidates, each of them a row of its own with a number."""
    not_kept: ClassVar[str] = ""
    """Why no output of a teacher for the texts can be kept; empty where it can."""
    own_losses: ClassVar[bool] = False
    """Whether only losses of its own know what its logits mean: those that make probabilities or a number of them are refused."""
    measures: ClassVar[Mapping[str, Metric]] = MappingProxyType({})
    """Its own metrics: name -> f(logits, targets), the larger the better."""
    plugin: ClassVar[str] = ""
    """The name of the plugin that it is from; set when that is loaded."""
    code: ClassVar[str] = ""
    """SHA-256 of that plugin."""
    default_metrics: ClassVar[tuple[str, ...]] = ()
    """What is computed where a task names none; the first one chooses the best weights."""
    what: ClassVar[str] = "examples"
    """What has an answer."""
    page: ClassVar[str] = ""
    """Which tables of a run's report are for it."""

    def __repr__(self) -> str:
        return repr(self.title)  # the same in every process, as keys of caches have it

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)  # also of one that came from another process

    def __hash__(self) -> int:
        return hash(self.name)

    def outputs(self, labels: Sequence[str] | None) -> int | None:
        """The number of logits; None where there are none."""
        return len(labels or ())

    def metrics(self, classes: int) -> tuple[str, ...]:
        """The names of the metrics that fit."""
        return tuple(self.measures)

    words_metric: ClassVar[str] = ""
    """What the mean of -log of the probability of the right word is called, of a model that guesses words."""

    @property
    def a_title(self) -> str:
        """`title` with its article."""
        return f"a{'n' if self.title[0] in 'aeiou' else ''} {self.title}"

    @property
    def over_tokens(self) -> bool:
        """Whether the logits have an axis of tokens."""
        return self.per_token or self.of_spans

    @property
    def one_row(self) -> bool:
        """Whether an example is one row of tokens, and its answer one of a column."""
        return not self.embeds and not self.ranks

    def can_teach(self, other: Kind) -> bool:
        """Whether a model of the kind can be scored on a task of the `other` kind, and teach it."""
        return self == other

    @property
    def guesses_words(self) -> bool:
        """Whether a model guesses words of the text itself: those that are masked, or the next one."""
        return self.head in OF_WORDS

    # In files.

    def found_labels(self, path: Path, cells: Sequence, line_numbers: np.ndarray, name: str) -> tuple[str, ...]:
        """The distinct classes of the column `name`. Raises DataError."""
        raise NotImplementedError

    def targets(
        self, path: Path, name: str, labels: Sequence[str], cells: Sequence, line_numbers: np.ndarray, source: str
    ) -> np.ndarray:
        """The cells of the column `name` as an array; `source` is the file whose classes these are. Raises DataError, which names
        file and line."""
        raise NotImplementedError

    def cell(self, labels: Sequence[str], target: np.ndarray) -> str:
        """A target as a table has it."""
        raise NotImplementedError

    target_type: ClassVar[np.dtype] = np.dtype("<f4")
    """Of the arrays of targets."""
    record_type: ClassVar[np.dtype] = np.dtype(np.int32)
    """Of the numbers of a target in records."""

    def record_size(self, outputs: int) -> int:
        """How many numbers a target is in records."""
        return 1

    def record_limit(self, outputs: int) -> int | None:
        """What the numbers of a target in records stay below; None where they are no whole numbers."""
        return outputs

    # Of a split.

    def counts(self, targets: np.ndarray, classes: int) -> np.ndarray | None:
        """How many targets have each class: (classes,) integers; None without classes."""
        return None

    def labelled(self, targets: np.ndarray) -> int:
        """How many answers there are."""
        return len(targets)

    def digest(self, labels: Sequence[str], targets: np.ndarray) -> np.ndarray | list[str]:
        """What tells one split's targets from another's: an array, or the text of each."""
        return targets

    def fill(self, rows: int, like: np.ndarray) -> np.ndarray:
        """Targets that mean nothing, for rows beside those of `like`."""
        return np.zeros((rows, *like.shape[1:]), like.dtype)

    def drawn(self, generator: np.random.Generator, rows: int, outputs: int) -> np.ndarray:
        """Random targets, for checks."""
        raise NotImplementedError

    # Of a model's answers.

    def score(
        self,
        names: Sequence[str],
        logits: np.ndarray,
        targets: np.ndarray,
        own: Mapping[str, Metric],
        labels: Sequence[str] | None = None,
    ) -> dict[str, float]:
        """The metrics of these names, those of plugins among them (`own`)."""
        return compute_metrics(names, logits, targets, {**self.measures, **own})

    def answers(self, logits: np.ndarray) -> np.ndarray | None:
        """What is answered, (examples, n) whole numbers that are compared; None where answers differ by degrees."""
        return None

    def differs(self, logits: np.ndarray, others: np.ndarray, limit: float) -> np.ndarray:
        """(examples,) booleans: where two models answer otherwise; where answers differ by degrees, by more than `limit`."""
        own, other = self.answers(logits), self.answers(others)
        return (own != other).reshape(len(own), -1).any(axis=1)

    agreement: ClassVar[str] = "same answers"
    """What `agrees` tells, for people."""

    def agrees(self, said: np.ndarray, others: np.ndarray) -> np.ndarray | None:
        """(n,) at most 1, which is the same: how far each answer of a model is another's, by what the two `said` of a split
        (`core.task_data.Scored`); None where answers differ by degrees."""
        return (~self.differs(said, others, 0.0)).astype(np.float64) if self.has_classes else None

    def right(self, logits: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
        """(examples,) booleans: which answers are right in full; None where answers are right by degrees."""
        return None

    def values(self, logits: np.ndarray) -> np.ndarray:
        """The logits (examples, outputs) as what a person reads, in float64: probabilities, or numbers."""
        raise NotImplementedError

    def errors(self, logits: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each example whether the answer is wrong, and how surely it is given: (examples,) each."""
        raise NotImplementedError

    def distance(self, values: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(examples,): how far two models' `values` are apart."""
        raise NotImplementedError

    def share(self, values: np.ndarray) -> float | None:
        """How probable a model with these `values` (outputs,) finds its answer; None where that is not one class."""
        return None

    def answer_text(self, labels: Sequence[str], logits: np.ndarray) -> str:
        """What the logits (outputs,) of an example say."""
        raise NotImplementedError

    def target_text(self, labels: Sequence[str], target: np.ndarray) -> str:
        """What a target says."""
        raise NotImplementedError

    def constant_text(self, labels: Sequence[str], logits: np.ndarray) -> str:
        """The same of an answer that is given for all examples."""
        return self.answer_text(labels, logits)

    def prediction(self, labels: Sequence[str], values: np.ndarray) -> dict[str, Any]:
        """What a prediction says of an example by its `values` (outputs,): `label`, `probabilities`, `labels` or `score`."""
        raise NotImplementedError

    # Where it is used.

    is_used: ClassVar[bool] = True
    """Whether its models are exported, served and timed."""
    endpoint: ClassVar[str] = "/predict"
    """Where a service is asked for its answers."""

    def asked(
        self,
        tokenizer: Any,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        length: int,
        labels: Sequence[str],
        task: Mapping[str, Any],
    ) -> Asked:
        """Texts, or pairs of them, as a model reads them with `length` tokens a row, and how it answers; `labels` are its
        classes, `task` what is known of the one that it was trained on."""

        def answers(logits):
            return [self.prediction(labels, values) for values in self.values(logits)]

        return whole_texts(tokenizer, texts, pairs, length, answers)

    def meant(self, logits: np.ndarray, batch: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of a batch's logits those that say something, (n, outputs): without those of padding."""
        return logits[batch["attention_mask"] > 0] if self.over_tokens else logits

    values_code: ClassVar[str] = ""
    """Lines of Python from `logits` (outputs,) to `probabilities`; empty where the logits are the answer."""
    shown_code: ClassVar[str] = """for number, probability in enumerate(probabilities):
    print(labels[str(number)], probability)"""
    """Lines that print it, with `labels`, number -> name."""
