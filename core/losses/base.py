"""What a loss term is: validated options, which outputs it needs, and a function over `Ops`.

A term returns a *sum* over the examples of a micro-batch, and says in which unit it is counted. The training loop counts
the units of the whole effective batch on the host and hands the number in as a tensor, so that the value and the
gradient do not depend on how a batch is cut into micro-batches. Of a term whose rows depend on each other, `scope` says
through what: through sums, then `statistics` gives those of a micro-batch, and the term's function takes those of the whole
effective batch; or through their vectors, which are gathered (`core.losses.whole_batch`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import ConfigDict, Field

from ..kinds.kind import Kind
from ..models.outputs import LOGITS
from ..number_keys import GrowingKeys
from ..ops import Ops, Tensor
from .logit_rows import SPAN_ROWS, TOKEN_ROWS, RowsOfLogits

LossFunction = Callable[
    [Ops, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], Tensor
]
"""`f(ops, params, student, teacher, batch) -> scalar`, the sum over the micro-batch. `params` holds the projections;
`student` the student's outputs by name (`hidden/3`), `teacher` those of each teacher by teacher and name
(`teacher/hidden/6`), and as `logits` the weighted mean of all teachers' logits. Where the term's scope is sums,
`f(ops, params, student, teacher, batch, statistics)`, the last being the sums (n,) over the whole effective batch."""

Statistics = Callable[[Ops, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], list[Tensor]]
"""`f(ops, student, teacher, batch) -> n scalars`, sums over the real examples of a micro-batch. No gradient flows into them."""

TEACHER_SCORES = "teacher_scores"
"""The key of a batch under which a teacher's scores are that the data has."""
STATISTICS = "statistics"
"""The key of a batch under which the sums of all micro-batches are, those of one term after those of another, and then what
`core.losses.whole_batch` gathers, (N,). A micro-batch that has none is the whole effective batch."""


def _real_lengths(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    return batch["attention_mask"].sum(axis=1, dtype=np.float64) * batch["example_mask"]


# Unit -> how many of it a batch of host arrays holds; an example with a weight is so many. Padding rows never count; padding
# counts in `positions` only, for the published codes that average over it.
UNITS: dict[str, Callable[[Mapping[str, np.ndarray]], float]] = {
    "examples": lambda batch: float(batch["example_mask"].sum()),
    "labelled": lambda batch: float((batch["example_mask"] * batch.get("label_mask", 1.0)).sum()),
    "tokens": lambda batch: float(_real_lengths(batch).sum()),
    "token_pairs": lambda batch: float((_real_lengths(batch) * batch["attention_mask"].sum(axis=1, dtype=np.float64)).sum()),
    "masked": lambda batch: float(batch["masked_weights"].sum()),
    "next_tokens": lambda batch: float(batch["masked_weights"].sum()),
    "positions": lambda batch: float(batch["example_mask"].sum()) * batch["attention_mask"].shape[1],
    "position_pairs": lambda batch: float(batch["example_mask"].sum()) * batch["attention_mask"].shape[1] ** 2,
}

# Weight schedule -> factor by progress (0 at the first step, 1 at the end of the stage).
WEIGHT_SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "linear_decay": lambda progress: 1.0 - progress,
    "linear_growth": lambda progress: progress,
}


class AnswersInFile:
    """In place of the configuration of a teacher that is a file: it has answers, and no layers."""


@dataclass(frozen=True)
class TermContext:
    """What a term may ask about the job it is used in."""

    outputs: int | None
    """Number of logits; None where there are none (raw text)."""
    kind: Kind
    """What the task asks for."""
    student: Any = None
    """The student's configuration."""
    teachers: Mapping[str, Any] = field(default_factory=dict)
    """The teachers' configurations by name, the first one being the default of terms that need one teacher."""
    labels: tuple[str, ...] | None = None
    """The classes in the order of the logits, as the data names them."""
    label_counts: tuple[int, ...] | None = None
    """How many training examples have each of them; None without classes, and where there is no data at hand."""
    labelled: int | None = None
    """How many training examples have a label; None where there is no data at hand."""
    members: int = 1
    """How many texts a training example has, each a row of its own: of sentence embeddings and rankings."""
    scored: bool = False
    """Whether such an example has a score; of rankings, whether the data says what is relevant."""
    taught: bool = False
    """Whether the data has a teacher's scores."""
    target_range: Mapping[str, tuple[float, float]] | None = None
    """Of rankings, `labels` and a teacher's `scores` -> from where to where they are; None where there is no data at hand."""
    files: frozenset[str] = frozenset()
    """The teachers that are files of answers, whose configuration is `AnswersInFile`."""
    rerankers: frozenset[str] = frozenset()
    """The teachers that score pairs of texts, where the student embeds texts: their logits are (rows, 1), the score of each text
    with the first one of its example, which itself has none."""

    def teacher(self, name: str | None) -> str:
        """The name of the teacher that a term means."""
        return name or next(iter(self.teachers), "teacher")


@dataclass(frozen=True)
class ProjectionTensor:
    """A trained tensor that belongs to no model: its shape, its own learning rate if it has one, and its map's kind."""

    shape: tuple[int, ...]
    learning_rate: float | None
    kind: str


class LossTerm(GrowingKeys):
    """Base of all terms; a subclass sets `loss` to its name in the recipe and implements `function`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    loss: str
    """The term's name."""
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """What the term's value is multiplied by."""
    weight_schedule: Literal[tuple(WEIGHT_SCHEDULES)] = "constant"  # type: ignore[valid-type]
    """How the weight goes on through the stage: it stays, falls to 0, or rises from 0."""

    needs_teacher: ClassVar[bool] = False
    needs_words: ClassVar[bool] = False
    """Whether it needs the heads that predict words."""
    formula: ClassVar[str] = ""
    """One line for people: the formula and its source."""

    @property
    def unit(self) -> str:
        """What the sum is divided by: a key of `UNITS`."""
        return "examples"

    def counter(self, context: TermContext) -> Callable[[Mapping[str, np.ndarray]], float]:
        """`f(batch)`: how much a batch of host arrays holds of what the sum is divided by."""
        return UNITS[self.unit]

    @property
    def scope(self) -> Literal["rows", "sums", "vectors"]:
        """What the value of a row depends on: that row alone, or all rows of the effective batch, through the sums of
        `statistics` or through their vectors."""
        return "rows"

    @property
    def counts_padding(self) -> bool:
        """Whether the value depends on the length that rows are padded to: all micro-batches of a step then have one."""
        return False

    def problems(self, context: TermContext) -> list[tuple[str, str]]:
        """What makes this term impossible in this job, as (key, message)."""
        return []

    def student_outputs(self, context: TermContext) -> frozenset[str]:
        """Which outputs of the student the term needs."""
        return frozenset({LOGITS})

    def teacher_outputs(self, context: TermContext) -> dict[str, frozenset[str]]:
        """Which outputs of which teacher the term needs."""
        return {name: frozenset({LOGITS}) for name in context.teachers} if self.needs_teacher else {}

    def projections(self, context: TermContext, label: str) -> dict[str, ProjectionTensor]:
        """The tensors that the term trains besides the student; `label` names the term in the recipe."""
        return {}

    def function(self, context: TermContext, label: str) -> LossFunction:
        """The term over `Ops`."""
        raise NotImplementedError

    def entropy(self, context: TermContext) -> LossFunction | None:
        """Of a cross-entropy with a teacher: the teacher's own entropy, the least that the term can be, as `function` gives the
        term. It is subtracted in what people are shown, where the term is then a divergence that goes to 0, and never in what is
        minimised. None where the least is 0, or has no teacher."""
        return None

    statistics_size: ClassVar[int] = 0
    """How many sums `statistics` gives, where the scope is sums."""

    def statistics(self, context: TermContext) -> Statistics:
        """The sums that the function needs of all rows, where the scope is sums; they need no output beside the term's."""
        raise NotImplementedError

    def bound(self, context: TermContext, label: str, first: int = 0) -> LossFunction:
        """The function without `statistics`, which it takes from the batch, where they begin at place `first`, or makes of
        the batch."""
        return self._bound(self.function(context, label), context, first)

    def units(self, context: TermContext, batch: Mapping[str, np.ndarray]) -> float:
        """How much a batch of host arrays holds of what the sum is divided by; of terms over the logits of tokens, a labelled
        token counts as an example, and of those over the places of answers, a beginning and an end."""
        rows = self._rows(context)
        return self.counter(context)(batch if rows is None else rows.counted(batch))

    def _rows(self, context: TermContext) -> RowsOfLogits | None:
        """What the rows of the term are, where they are no examples."""
        if self.student_outputs(context) != frozenset({LOGITS}):
            return None
        return TOKEN_ROWS if context.kind.per_token else SPAN_ROWS if context.kind.of_spans else None

    def bound_entropy(self, context: TermContext, first: int = 0) -> LossFunction | None:
        """`entropy` in the same way."""
        function = self.entropy(context)
        return None if function is None else self._bound(function, context, first)

    def _bound(self, function: LossFunction, context: TermContext, first: int) -> LossFunction:
        rows = self._rows(context)
        if rows is not None:
            function = rows.of(function)
        if self.scope != "sums":
            return function
        statistics, end = self.statistics(context), first + self.statistics_size

        def with_statistics(ops, params, student, teacher, batch):
            if STATISTICS in batch:
                sums = batch[STATISTICS][first:end]
            else:
                sums = ops.stop_gradient(ops.stack(statistics(ops, student, teacher, batch)))
            return function(ops, params, student, teacher, batch, sums)

        return with_statistics


def sum_rows(ops: Ops, values: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Sum of one value per example (B,) over the real examples, each as often as it counts."""
    return ops.sum(values * batch["example_mask"])


def is_real(ops: Ops, batch: Mapping[str, Tensor]) -> Tensor:
    """(B,): 1 for real examples, whatever they count, 0 for padding rows."""
    return ops.above(batch["example_mask"], 0.0)


def token_mask(ops: Ops, batch: Mapping[str, Tensor]) -> Tensor:
    """(B, L): what an example counts, which is 1 unless it has a weight, at its tokens; 0 at padding and in padding rows."""
    return batch["attention_mask"] * ops.reshape(batch["example_mask"], (-1, 1))


def pair_mask(ops: Ops, batch: Mapping[str, Tensor]) -> Tensor:
    """(B, L, L): the same where both places are tokens of an example. A product of matrices, since several CPU kernels are
    slow, or keep memory, when they broadcast."""
    mask, tokens = token_mask(ops, batch), batch["attention_mask"]
    batch_size, length = ops.shape(mask)
    return ops.float32(ops.matmul(ops.reshape(mask, (batch_size, length, 1)), ops.reshape(tokens, (batch_size, 1, length))))
