"""From loss terms to the one function that an engine differentiates."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .losses.base import WEIGHT_SCHEDULES, LossTerm, ProjectionTensor, TermContext
from .losses.whole_batch import PLACE, WholeBatch
from .models.architectures import make_forward, used_tensors
from .models.outputs import LOGITS
from .models.theseus import Replacement, make_replacing_forward
from .world import ALL, Share

MEAN_LOGITS = LOGITS
"""The key of the weighted mean of all teachers' logits among the teachers' outputs."""


@dataclass(frozen=True)
class Teachers:
    """How the teachers' outputs are made."""

    weights: dict[str, float]
    """Teacher -> its share in the mean of the logits; they sum to 1."""
    dropout: bool = False
    """Leave the teachers' dropout on, as TinyBERT's published code does by oversight."""
    cached: bool = False
    """The outputs come with each batch, from a teacher cache, and no teacher is run."""


class Objective:
    """The weighted sum of a stage's loss terms over student and teachers.

    `function(ops, params, frozen, batch)` returns `(total, values)`: the scalar to differentiate, and a tensor
    (1 + terms + entropies,) with the total, each unweighted term, and of the terms `entropies` the least that they can be. Summed
    over the micro-batches of an effective batch, both are the means over that whole batch. `params` are the student's tensors and
    the projections; `frozen` are the teachers' tensors, each name preceded by the teacher's and a slash.

    `statistics(ops, params, frozen, batch)` gives the sums (N,) of a micro-batch that the terms over the whole effective batch
    need, to be added up over all its micro-batches and given to each as `STATISTICS` (`core.losses.base`); None where no
    term does. Its forward pass of the student is the function's, so that it draws the same dropout.
    """

    def __init__(
        self,
        terms: Sequence[LossTerm],
        context: TermContext,
        teachers: Teachers,
        stage: str = "",
        replacement: Replacement | None = None,
    ):
        self.terms, self.context = tuple(terms), context
        self.names, labels = unique_names([term.loss for term in terms]), term_labels(terms, stage)
        self.replacement = replacement
        self.projections: dict[str, ProjectionTensor] = {}
        for term, label in zip(terms, labels):
            self.projections |= term.projections(context, label)
        self.student_outputs = frozenset().union(*(term.student_outputs(context) for term in terms))
        self.teacher_outputs = _union([term.teacher_outputs(context) for term in terms])
        self.needs_teacher = bool(self.teacher_outputs)
        self._counters = [functools.partial(term.units, context) for term in terms]
        sizes = [term.statistics_size if term.scope == "sums" else 0 for term in terms]
        places = [sum(sizes[:index]) for index in range(len(terms))]
        self._functions = [term.bound(context, label, place) for term, label, place in zip(terms, labels, places)]
        self._whole = WholeBatch.of_terms(terms, context, sum(sizes))
        for index, term in enumerate(terms):
            if term.scope == "vectors":
                self._functions[index] = self._whole.over(self._functions[index])
        found = [term.bound_entropy(context, place) for term, place in zip(terms, places)]
        self.entropies = tuple(index for index, entropy in enumerate(found) if entropy is not None)
        self._functions += [found[index] for index in self.entropies]
        if replacement is None:
            self._forward = make_forward(context.student, self.student_outputs)
        else:
            self._forward = make_replacing_forward(context.student, self.student_outputs, replacement)
        self._learn_from(teachers)

    def from_cache(self) -> Objective:
        """The same, of outputs of the teachers that come with each batch."""
        found = copy.copy(self)
        found._learn_from(replace(self._teachers, cached=True))
        return found

    def _learn_from(self, teachers: Teachers) -> None:
        self._teachers, self.cached, context, forward = teachers, teachers.cached, self.context, self._forward
        teach = self._teach(self.teacher_outputs, teachers)
        self.function = _make_function(self._functions, len(self.terms), forward, teach)
        self.statistics = None
        over_all = [term for term in self.terms if term.scope != "rows"]
        if over_all:
            # Teachers with dropout draw as in the step only if they compute the same.
            needed = self.teacher_outputs if teachers.dropout else _union([term.teacher_outputs(context) for term in over_all])
            sums = [term.statistics(context) for term in over_all if term.scope == "sums"]
            gathered = [] if self._whole is None else [self._whole.gather()]
            self.statistics = _make_statistics(sums, gathered, forward, self._teach(needed, teachers))

    def _teach(self, wanted: dict[str, frozenset[str]], teachers: Teachers):
        """`teach(ops, frozen, batch)`: these outputs of the teachers, and the mean of their logits."""
        context = self.context
        teacher_names = list(wanted)
        outputs = [sorted(wanted[name]) for name in teacher_names]
        keys = [[f"{name}/{output}" for output in own] for name, own in zip(teacher_names, outputs)]
        cached_keys = [key for own in keys for key in own]
        # A teacher never uses dropout: its targets would be noise. Answers of a file come with the batch.
        forwards = [
            None
            if name in context.files
            else make_forward(
                context.teachers[name] if teachers.dropout else context.teachers[name].without_dropout(),
                wanted[name],
                f"{name}/",
            )
            for name in teacher_names
        ]
        with_logits = [name for name in teacher_names if LOGITS in wanted[name]]
        all_logits = len(with_logits) == len(context.teachers) and bool(with_logits)
        logits_keys = [f"{name}/{LOGITS}" for name in with_logits]
        shares = [teachers.weights[name] for name in with_logits]
        cached = teachers.cached

        def teach(ops, frozen, batch):
            taught = {}
            if cached:
                for key in cached_keys:
                    taught[key] = batch[key]
            else:
                for index in range(len(forwards)):
                    made = forwards[index](ops, frozen, batch)
                    for number in range(len(outputs[index])):
                        taught[keys[index][number]] = ops.stop_gradient(made[outputs[index][number]])
            if all_logits:
                mean = taught[logits_keys[0]] * shares[0]
                for index in range(1, len(logits_keys)):
                    mean = mean + taught[logits_keys[index]] * shares[index]
                taught[MEAN_LOGITS] = mean
            return taught

        return teach

    @property
    def used_tensors(self) -> frozenset[str]:
        """The student's tensors and the projections that the objective depends on: what can be trained by it."""
        return used_tensors(self.context.student, self.student_outputs) | frozenset(self.projections)

    def weights(self, step: int, total: int) -> np.ndarray:
        """The weight of each term (terms,) in step number `step`, counted from 0, of `total`."""
        progress = step / max(total, 1)
        return np.asarray([term.weight * WEIGHT_SCHEDULES[term.weight_schedule](progress) for term in self.terms], np.float32)

    def prepare(
        self, micro_batches: list[dict[str, np.ndarray]], step: int = 0, total: int = 1, seed: int = 0, share: Share = ALL
    ) -> list[dict[str, np.ndarray]]:
        """Those micro-batches of one effective batch that are of `share`, with what a step needs beside the data:
        `denominators` (terms + entropies,), the units of all micro-batches, `weights` (terms,) as scheduled, the gates of a
        replacement, and which of several it is where a term compares rows."""
        counts = [sum(count(batch) for batch in micro_batches) for count in self._counters]
        counts += [counts[index] for index in self.entropies]
        extra = {
            # No unit at all (a batch without one label): the sum is 0, and so is the mean.
            "denominators": np.maximum(np.asarray(counts, np.float32), 1e-30),
            "weights": self.weights(step, total),
        }
        if self.replacement is not None:
            extra["gates"] = self.replacement.gates(seed, step, total)
        found = [{**batch, **extra} for batch in micro_batches]
        if self._whole is not None and len(found) > 1:
            for batch, place in zip(found, np.eye(len(found), dtype=np.float32)):
                batch[PLACE] = place
        return share.of(found)


def _make_function(functions, terms, forward, teach):
    def function(ops, params, frozen, batch):
        student = forward(ops, params, batch)
        teacher = teach(ops, frozen, batch)
        denominators, weights = batch["denominators"], batch["weights"]
        total, values = 0.0, []
        for index in range(len(functions)):
            value = functions[index](ops, params, student, teacher, batch) / denominators[index]
            if index < terms:
                total = total + value * weights[index]
            values.append(value)
        return total, ops.stack([total] + values)

    return function


def _make_statistics(sums, gathered, forward, teach):
    def statistics(ops, params, frozen, batch):
        student = forward(ops, params, batch)
        teacher = teach(ops, frozen, batch)
        found = []
        for index in range(len(sums)):
            found += sums[index](ops, student, teacher, batch)
        parts = [ops.stack(found)] if len(sums) else []
        for index in range(len(gathered)):
            parts.append(gathered[index](ops, student, teacher, batch))
        return parts[0] if len(parts) == 1 else ops.concat(parts, 0)

    return statistics


def _union(parts: Sequence[dict[str, frozenset[str]]]) -> dict[str, frozenset[str]]:
    joined: dict[str, frozenset[str]] = {}
    for part in parts:
        for name, outputs in part.items():
            joined[name] = joined.get(name, frozenset()) | outputs
    return {name: outputs for name, outputs in joined.items() if outputs}


def term_labels(terms: Sequence[LossTerm], stage: str) -> list[str]:
    """What the terms of a stage are called in the whole run."""
    return [f"{stage}.{name}" if stage else name for name in unique_names([term.loss for term in terms])]


def unique_names(names: list[str]) -> list[str]:
    """A term that is used twice is reported as `name`, `name_2`."""
    return [
        name if names[:index].count(name) == 0 else f"{name}_{names[:index].count(name) + 1}"
        for index, name in enumerate(names)
    ]
