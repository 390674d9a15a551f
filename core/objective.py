"""From loss terms to the one function that an engine differentiates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .losses.base import UNITS, LossTerm, TermContext
from .models.bert import make_forward
from .models.spec import BertConfig


class Objective:
    """The weighted sum of a stage's loss terms over student and teacher.

    `function(ops, params, frozen, batch)` returns `(total, values)`: the scalar to differentiate, and a tensor
    (1 + terms,) with the total and each unweighted term. Summed over the micro-batches of an effective batch, both are
    the means over that whole batch.
    """

    def __init__(
        self, terms: Sequence[LossTerm], context: TermContext, student: BertConfig, teacher: BertConfig | None
    ):
        self.names = _unique_names([term.loss for term in terms])
        self._units = [term.unit for term in terms]
        weights = [float(term.weight) for term in terms]
        functions = [term.function(context) for term in terms]
        student_forward = make_forward(student)
        needs_teacher = any(term.needs_teacher for term in terms)
        # A teacher never uses dropout: its targets would be noise.
        teacher_forward = make_forward(teacher.without_dropout()) if needs_teacher else None

        def function(ops, params, frozen, batch):
            student_outputs = student_forward(ops, params, batch)
            teacher_outputs = teacher_forward(ops, frozen, batch) if needs_teacher else {}
            denominators = batch["denominators"]
            total, values = 0.0, []
            for index in range(len(functions)):
                value = functions[index](ops, student_outputs, teacher_outputs, batch) / denominators[index]
                total = total + value * weights[index]
                values.append(value)
            return total, ops.stack([total] + values)

        self.function = function
        self.needs_teacher = needs_teacher

    def prepare(self, micro_batches: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
        """The micro-batches of one effective batch with `denominators` (terms,) added: the units of all of them."""
        counts = [sum(UNITS[unit](batch) for batch in micro_batches) for unit in self._units]
        denominators = np.asarray(counts, np.float32)
        return [{**batch, "denominators": denominators} for batch in micro_batches]


def _unique_names(names: list[str]) -> list[str]:
    """A term that is used twice is reported as `name`, `name_2`."""
    return [
        name if names[:index].count(name) == 0 else f"{name}_{names[:index].count(name) + 1}"
        for index, name in enumerate(names)
    ]
