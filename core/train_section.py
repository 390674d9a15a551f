"""The section of a recipe that says how a stage is trained: steps, batches, optimizer, learning rate, what is kept and when."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from .plugin_calls import checked_schedule
from .registered import RegisteredOptimizer, RegisteredSchedule
from .schedules import SCHEDULES, SLANTED_RATIO, in_steps, schedule
from .section import Section
from .shown import shown

MOST_ROWS = 1 << 20
"""Of a batch, whose rows memory holds at once; BERT's largest published batches have 65,536."""

OPTIMIZERS = ("adamw", "bert_adam", "adadelta")


class TrainSection(Section):
    """One stage's training. Give `epochs` or `steps`."""

    newer: ClassVar[tuple[str, ...]] = ("patience", "min_improvement", "keep_states")

    own_schedules: ClassVar[Mapping[str, RegisteredSchedule]] = {}
    own_optimizers: ClassVar[Mapping[str, RegisteredOptimizer]] = {}
    """Those of the recipe's plugins."""

    epochs: float | None = Field(None, gt=0, le=10**6, allow_inf_nan=False)
    """Passes over the training data, which need not be whole."""
    steps: int | None = Field(None, ge=1, le=10**9)
    """Optimizer steps, in place of epochs."""
    batch_size: int = Field(32, ge=1)
    """Examples of an optimizer step, on all devices together."""
    gradient_accumulation: int = Field(1, ge=1)
    """In how many parts a step's examples go through the model; it changes no value."""
    optimizer: Literal[OPTIMIZERS] = "adamw"  # type: ignore[valid-type]
    """`core.optimizers` has the formulas. Adadelta's rho is `beta2` (published: 0.95), its learning rate near 1."""
    learning_rate: float = Field(5e-5, gt=0, allow_inf_nan=False)
    """The peak of the schedule."""
    schedule: Literal[SCHEDULES] = "linear"  # type: ignore[valid-type]
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.1, ge=0, allow_inf_nan=False)
    """Below 1 a share of the stage's steps, from 1 on a number of steps, in which the learning rate rises."""
    slanted_ratio: float = Field(SLANTED_RATIO, ge=1, allow_inf_nan=False)
    """The peak over the lowest rate of `slanted_triangular`."""
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    """Decoupled from the gradient; biases and the parameters of layer normalisation have none."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Of the first moment."""
    beta2: float = Field(0.999, ge=0, lt=1)
    """Of the second moment."""
    epsilon: float = Field(1e-6, gt=0)
    """What is added to the root of the second moment."""
    max_gradient_norm: float | None = Field(1.0, gt=0)
    """Gradients together are scaled down to this norm; null: never."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Rate of all dropouts of the student; null: those of its configuration."""
    length_buckets: tuple[int, ...] | None = None
    """Lengths in tokens to which batches are padded; the engine's own where not given."""
    log_every: int = Field(50, ge=1)
    """Optimizer steps between two lines of the log."""
    evaluate_every: int | None = Field(None, ge=1)
    """Optimizer steps between two evaluations on dev; null: after each epoch."""
    save_every: int = Field(500, ge=1)
    """Optimizer steps between two saved states, which an interrupted run goes on from."""
    keep: Literal["best", "last"] = "best"
    """Which weights the student has at the end: those of the best evaluation, or the last."""
    clip_scope: Literal["trained", "all"] = "trained"
    """Whose gradients count in the norm: of what is trained, or also of what is frozen (BERT-of-Theseus's code)."""
    patience: int | None = Field(None, ge=1)
    """Evaluations in a row without an improvement of the first metric after which the stage ends; null: it goes on to its end.
    The learning rate follows the whole plan all the same."""
    min_improvement: float = Field(0.0, ge=0, allow_inf_nan=False)
    """By how much the first metric must be better than the last time it improved, to count for `patience`; in its own unit,
    accuracy as a fraction."""
    keep_states: Literal["all"] | Annotated[int, Field(ge=1)] | None = None
    """Of which epochs the student is kept, as model folders in the run's `checkpoints`: all, or this many of the last ones."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainSection:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give either epochs or steps" + (", not both" if self.steps else ""))
        if self.min_improvement and self.patience is None:
            raise ValueError("min_improvement is for patience, which is not given")
        if self.slanted_ratio != SLANTED_RATIO and self.schedule != "slanted_triangular":
            raise ValueError(f"slanted_ratio is for the schedule 'slanted_triangular', not '{self.schedule}'")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of gradient_accumulation {self.gradient_accumulation}"
            )
        if self.length_buckets is not None and min(self.length_buckets, default=0) < 1:
            raise ValueError("length_buckets needs at least one length, all of them positive")
        return self

    @field_validator("keep_states", mode="before")
    @classmethod
    def _all_or_some(cls, value: Any) -> Any:
        if value in (None, "all") or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError(f"got {shown(value)}, expected all or a number of epochs from 1 on")

    @field_validator("batch_size", "gradient_accumulation")
    @classmethod
    def _fits_in_memory(cls, value: int) -> int:
        if value > MOST_ROWS:
            raise ValueError(f"got {shown(value)}, expected at most {MOST_ROWS:,}: memory holds the rows of a batch at once")
        return value

    def total_steps(self, steps_per_epoch: int) -> int:
        """The optimizer steps of the stage."""
        return self.steps if self.steps is not None else max(1, math.ceil(self.epochs * steps_per_epoch))

    def factor(self, total: int) -> Callable[[int], float]:
        """Step -> its learning rate over the peak's, in a stage of `total` steps."""
        own = self.own_schedules.get(self.schedule)
        decay = None if own is None else checked_schedule(own)
        return schedule(self.schedule, total, in_steps(self.warmup, total), self.slanted_ratio, decay)
