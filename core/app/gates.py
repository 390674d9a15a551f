"""What an exported model must show before it takes its place: that it computes what the student computes.

    parity      its logits on real texts beside NumPy's in float64: fp32 within 1e-5 of the largest logit, fp16 within 1e-2,
                bf16 within 5e-2
    alone       the logits of a text that is alone in its batch beside those of the same text among others: a scale that is taken
                over a whole batch makes them differ
    agreement   the share of dev's texts, words or questions with the same answer as the float32 model's; of a model that embeds
                texts, the mean cosine of its vectors and that model's
    score       dev's main score, which may drop by so many points

A share of few texts is coarse: where no limit is given, two texts may always answer otherwise, or a dev set of 100 would ask for
a perfect one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..checkpoint import Model
from ..data.row_batches import RowBatches
from ..data.token_table import TokenTable
from ..kinds.kind import Kind
from ..metrics import LOWER_IS_BETTER
from ..model_answers import logits_function
from ..reference import ReferenceOps
from ..task_data import TaskData
from .export_targets import Infer

PARITY = {"fp32": 1e-5, "fp16": 1e-2, "bf16": 5e-2}
"""Precision -> the largest difference of a logit, relative to the largest one, or to 1 where that is smaller; of a vector's
numbers, relative to the largest one."""
ALONE = {"fp32": 1e-4, "fp16": 1e-4, "bf16": 2e-2, "int8": 1e-4}
"""Precision -> the largest such difference between a text alone and the same text in a batch. Kernels of other batch sizes sum in
another order, and of bf16 each number of 8 significant bits is rounded by up to 2^-9 of it."""
SAMPLE = 64
"""Texts that are compared with the float64 reference, which is slow."""
MAX_DROP, MIN_AGREEMENT = 0.5, 99.0
"""Limits where none are given: points of dev's main score, and percent of its answers."""
_FREE_TEXTS = 2


@dataclass(frozen=True)
class Gate:
    """One figure beside its limit."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    """The value must be at least the limit; else at most."""

    @property
    def passed(self) -> bool:
        """Whether it holds; NaN never does."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def numeric_gates(model: Model, infer: Infer, table: TokenTable, buckets: tuple[int, ...], precision: str) -> list[Gate]:
    """Parity and batch independence on a sample of the texts of a table: the longest, the shortest, and some between."""
    order = np.argsort(np.asarray(table.lengths), kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(SAMPLE, len(order))).astype(int))]
    batches = RowBatches(table, None, buckets)

    def answered(part: np.ndarray) -> np.ndarray:
        batch = batches.batch(part)
        return model.kind.meant(infer(batch)[0], batch)

    together = answered(rows)
    gates = []
    if precision in PARITY:
        function = logits_function(model.config)
        parts = [batches.batch(part) for part in np.array_split(rows, -(-len(rows) // 16))]
        found = [model.kind.meant(function(ReferenceOps(), model.parameters, part)[0], part) for part in parts]
        expected = np.concatenate(found)
        gates.append(Gate("parity with float64", _difference(together, expected, model.kind), PARITY[precision]))
    alone = np.concatenate([answered(rows[number : number + 1]) for number in range(len(rows))])
    gates.append(Gate("alone and in a batch", _difference(alone, together, model.kind), ALONE[precision]))
    return gates


def _difference(found: np.ndarray, expected: np.ndarray, kind: Kind) -> float:
    """The largest difference, relative to the largest entry; of logits only where that is above 1."""
    difference = np.abs(found.astype(np.float64) - expected).max()
    return float(difference / max(1e-30 if kind.embeds else 1.0, np.abs(expected).max()))


def task_gates(
    data: TaskData, infer: Infer, reference: Infer, max_drop: float | None, min_agreement: float | None
) -> tuple[dict[str, float], list[Gate]]:
    """(its metrics on dev, the gates of score and agreement beside the float32 model); `max_drop` is in points, `min_agreement`
    in percent. None is the usual limit, or that of two texts where this is wider; a score of numbers or vectors has no texts
    that are right."""
    kind, found = data.spec.kind, data.scored("dev", infer)
    metrics, expected = found.metrics, found if reference is infer else data.scored("dev", reference)
    gates, in_steps = [], kind.has_classes or kind.of_spans
    agrees = None if found.said is None else kind.agrees(found.said, expected.said)
    if agrees is not None:
        usual = min(MIN_AGREEMENT, 100.0 * max(0.0, 1 - _FREE_TEXTS / len(agrees))) if in_steps else MIN_AGREEMENT
        needed = usual if min_agreement is None else min_agreement
        gates.append(Gate(f"{kind.agreement} on dev, %", 100.0 * float(agrees.mean()), needed, at_least=True))
    for name, value in expected.metrics.items():
        sign = -1.0 if name in LOWER_IS_BETTER else 1.0
        usual = max(MAX_DROP, 100.0 * min(1.0, _FREE_TEXTS / len(data.examples["dev"]))) if in_steps else MAX_DROP
        limit = usual if max_drop is None else max_drop
        gates.append(Gate(f"{name} on dev, points lost", 100.0 * sign * (value - metrics[name]), limit))
        break  # the main one decides
    return {name: float(value) for name, value in metrics.items()}, gates


