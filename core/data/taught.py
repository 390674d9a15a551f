"""What a file says of the rows of a split in a teacher's place: arrays that go with its examples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Taught:
    """The answers of a teacher that is a file, a row an example."""

    logits: np.ndarray
    """(examples, outputs) float32: what stands for a model's; 0 where there is no answer."""
    answered: np.ndarray
    """(examples,) booleans."""
    abstained: np.ndarray
    """(examples,) booleans: where the file has the text, and no answer to it."""
    soft: np.ndarray
    """(examples,) booleans: where the answer is a distribution, and not a label alone."""
    agreement: np.ndarray
    """(examples,) float32: the share of the votes for the answer."""
    confidence: np.ndarray
    """(examples,) float32: how sure the model says it is, else the probability of its answer; NaN where neither is told."""
    cost: np.ndarray
    """(examples, 3) float64: tokens read and written, and money; NaN where they are not told."""
    gold: np.ndarray
    """(examples,) booleans: where the example has a label that is not the file's."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the file, for result.json."""
    told: tuple[str, ...] = ()
    """What a person should know, a line each."""

    def of(self, rows: np.ndarray) -> Taught:
        """Those of some examples."""
        arrays = {name: value[rows] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **arrays)

    def digest(self) -> str:
        """SHA-256 of what is learned."""
        return hashlib.sha256(np.ascontiguousarray(self.logits).data).hexdigest()

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """As `TeacherCache.batch`: the logits of a batch of rows, of which -1 only fills."""
        return {"logits": np.where(rows[:, None] < 0, np.float32(0), self.logits[rows])}
