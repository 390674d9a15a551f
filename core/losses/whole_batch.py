"""Losses whose rows are compared with each other, over the whole effective batch, however it is cut.

All vectors of a step are gathered before its micro-batches are computed: each puts its own into a table of all, in its place,
and the tables are added up over the micro-batches and the processes, as other statistics of a step are (`core.losses.base`). Then
each micro-batch computes the loss of the *whole* batch, of which its own rows alone take a gradient: the sum over the
micro-batches is the gradient of the whole batch, as in GradCache (Gao et al. 2021, section 3.2), whose second pass takes the
gradient by the vectors from outside instead. Dropout is the same both times, so the vectors are. Of the value each returns its
share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .base import STATISTICS, LossFunction, LossTerm, TermContext

PLACE = "place"
"""The key of a batch under which its micro-batch says which of all it is: (micro-batches,) float32, 1 there and else 0."""
_MASK = "example_mask"


@dataclass(frozen=True)
class WholeBatch:
    """The vectors that the terms over them need of all micro-batches of a step."""

    student: tuple[str, ...]
    """Outputs (rows, width) of the student."""
    teacher: tuple[str, ...]
    """The same of the teachers, by teacher and name."""
    members: int
    """How many texts an example has: the rows of a batch are all first ones, then all second ones."""
    first: int
    """Where they begin among the statistics, of which they are the last."""

    @classmethod
    def of_terms(cls, terms: Sequence[LossTerm], context: TermContext, first: int) -> WholeBatch | None:
        """That of an objective's terms; None where none compares rows."""
        own = [term for term in terms if term.scope == "vectors"]
        student = frozenset().union(*(term.student_outputs(context) for term in own))
        taught = {f"{name}/{key}" for term in own for name, keys in term.teacher_outputs(context).items() for key in keys}
        return cls(tuple(sorted(student)), tuple(sorted(taught)), context.members, first) if own else None

    def gather(self):
        """`f(ops, student, teacher, batch) -> (N,)`: the table of all with a micro-batch's own rows, flat."""
        joined = self._joined()

        def placed(ops, student, teacher, batch):
            own = ops.reshape(joined(ops, student, teacher, batch), (1, -1))
            return ops.reshape(ops.reshape(batch[PLACE], (-1, 1)) * own, (-1,))

        return placed

    def over(self, function: LossFunction) -> LossFunction:
        """The function of a term as that of a micro-batch, whose share of the value it returns; of a batch in one part, as it
        is. It is given those outputs and `example_mask` alone."""
        joined, first, members = self._joined(), self.first, self.members
        of_student, of_teacher = self.student, self.teacher

        def over_all(ops, params, student, teacher, batch):
            if STATISTICS not in batch:
                return function(ops, params, student, teacher, batch)
            place, own = ops.reshape(batch[PLACE], (-1, 1)), joined(ops, student, teacher, batch)
            parts = ops.shape(place)[0]
            rows, columns = ops.shape(own)
            table = ops.reshape(batch[STATISTICS][first:], (parts, rows * columns))
            table = table * (1.0 - place) + ops.reshape(own, (1, rows * columns)) * place
            # Of each part all first texts, then all second ones; and so of the whole.
            table = ops.transpose(ops.reshape(table, (parts, members, rows // members * columns)), (1, 0, 2))
            table, start = ops.reshape(table, (parts * rows, columns)), 0
            all_student, all_teacher = {}, {}
            for key in of_student:
                end = start + ops.shape(student[key])[1]
                all_student[key] = table[:, start:end]
                start = end
            for key in of_teacher:
                end = start + ops.shape(teacher[key])[1]
                all_teacher[key] = table[:, start:end]
                start = end
            value = function(ops, params, all_student, all_teacher, {_MASK: table[:, start]})
            shown = ops.stop_gradient(value)
            return value - shown + shown / parts

        return over_all

    def _joined(self):
        of_student, of_teacher = self.student, self.teacher

        def joined(ops, student, teacher, batch):
            columns = [ops.float32(student[key]) for key in of_student]
            columns += [ops.float32(teacher[key]) for key in of_teacher]
            return ops.concat([*columns, ops.reshape(batch[_MASK], (-1, 1))], 1)

        return joined
