"""What a loss term is: validated options, what it needs, and a function over `Ops`.

A term returns a *sum* over the examples of a micro-batch, and says in which unit it is counted. The training loop counts
the units of the whole effective batch on the host and hands the number in as a tensor, so that the value and the
gradient do not depend on how a batch is cut into micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..ops import Ops, Tensor

LossFunction = Callable[[Ops, Mapping, Mapping, Mapping[str, Tensor]], Tensor]

# Unit -> how many of it a batch of host arrays holds. Padding and fill rows never count.
UNITS: dict[str, Callable[[Mapping[str, np.ndarray]], float]] = {
    "examples": lambda batch: float(batch["example_mask"].sum()),
}


@dataclass(frozen=True)
class TermContext:
    """What a term may ask about the job it is used in."""

    outputs: int
    """Number of logits."""
    regression: bool
    """Whether the labels are real numbers (then there is one logit)."""


class LossTerm(BaseModel):
    """Base of all terms; a subclass sets `loss` to its name in the recipe and implements `function`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss: str
    weight: float = Field(1.0, ge=0, allow_inf_nan=False)

    needs_teacher: ClassVar[bool] = False
    unit: ClassVar[str] = "examples"

    def problems(self, context: TermContext) -> list[tuple[str, str]]:
        """What makes this term impossible in this job, as (key, message)."""
        return []

    def function(self, context: TermContext) -> LossFunction:
        """`f(ops, student, teacher, batch) -> scalar`: the sum over the micro-batch, where `student` and `teacher` are
        the outputs of a forward pass."""
        raise NotImplementedError


def sum_rows(ops: Ops, values: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Sum of one value per example (B,) over the real examples."""
    return ops.sum(values * batch["example_mask"])
