"""Two runs of a cross-check beside each other: what was found of each figure, and what of it is out of limits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..tolerances import PROCESS_TOLERANCES, TOLERANCES, Tolerance
from .crosscheck_files import parts_of_name


@dataclass
class Pair:
    """Two runs compared. `figures` has one value per tolerance, None where none could be computed."""

    a: str
    b: str
    reasons: list[str] = field(default_factory=list)
    figures: dict[str, float | None] = field(default_factory=dict)
    not_applicable: set[str] = field(default_factory=set)  # figures that this kind of recipe does not have
    loss_steps: np.ndarray = field(default_factory=lambda: np.zeros(0, int))  # (steps,) finite in both
    loss_differences: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (steps,) relative
    hidden: dict[int, float] = field(default_factory=dict)  # hidden state -> relative difference; 0 = embeddings
    gradients: dict[str, float] = field(default_factory=dict)  # parameter -> relative difference
    weights: dict[str, float] = field(default_factory=dict)  # parameter of the trained student -> relative difference
    examples: int = 0
    disagreements: np.ndarray | None = None  # rows of the dev file, from 0
    metric_differences: dict[str, float] = field(default_factory=dict)

    @property
    def one_backend(self) -> bool:
        """Whether these are runs of one backend, with another number of processes."""
        return parts_of_name(self.a)[0] == parts_of_name(self.b)[0]

    @property
    def limits(self) -> tuple[Tolerance, ...]:
        """What they must keep."""
        return PROCESS_TOLERANCES if self.one_backend else TOLERANCES

    @property
    def worst_loss_step(self) -> int | None:
        """The step of the largest loss difference."""
        return int(self.loss_steps[self.loss_differences.argmax()]) if len(self.loss_steps) else None

    def summary(self) -> dict[str, Any]:
        """The pair as crosscheck.json has it."""
        return {
            "a": self.a,
            "b": self.b,
            "agree": not self.reasons,
            "reasons": self.reasons,
            **self.figures,
            "not_applicable": sorted(self.not_applicable),
            "loss_max_relative_difference_step": self.worst_loss_step,
            "steps_compared": len(self.loss_steps),
            **self._worst_names(),
            "prediction_disagreements": None if self.disagreements is None else len(self.disagreements),
            "predictions_compared": self.examples,
            "metric_differences": self.metric_differences,
        }

    def _worst_names(self) -> dict[str, str | None]:
        if self.one_backend:
            return {"weights_max_relative_difference_name": max(self.weights, key=self.weights.get, default=None)}
        return {"gradient_max_relative_difference_name": max(self.gradients, key=self.gradients.get, default=None)}


def limit_of(pair: Pair, figure: str) -> float:
    """What a figure of the pair must keep."""
    return next(row.limit for row in pair.limits if row.name == figure)
