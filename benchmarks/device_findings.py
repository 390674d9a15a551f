"""What `device_check.py` finds out about a device: operations and losses, held against NumPy in float64. Everything is random and
small; nothing is read but the package and its tests' cases.

A part is a function `part(settings)` that yields findings: dicts with `name`, `ok`, and `value` and `limit` where there are some.
`ok` None is what the device does not have.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.backends.registry import load_engine
from crossdistil.core.engine import Engine, EngineOptions, Step
from crossdistil.core.errors import BackendError
from crossdistil.core.kinds.kind import Kind
from crossdistil.core.kinds.known_kinds import ONE_CLASS, ONE_NUMBER, SEVERAL_LABELS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.losses.checking import KINDS, Case, deviation, results
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.optimizers import OptimizerSpec
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import op_cases

Finding = dict[str, Any]
VALUE = {"fp32": 2e-5, "bf16": 4e-2, "fp16": 5e-3}
"""Largest difference from float64 as a share of the value (or of 1): roundings of 24, 8 and 11 bits, of sums of some dozen
terms; float32 has room for a device's exp, erf and tanh."""
GRADIENT = {"fp32": 1e-4, "bf16": 8e-2, "fp16": 2e-2}
GENERATOR_SEED = 5


@dataclass(frozen=True)
class Settings:
    """Where and how a part runs."""

    backend: str
    device: str
    precision: str
    folder: Path
    """Where the parts of a check find what earlier ones wrote."""
    small: bool = False

    @functools.cached_property
    def engine(self) -> Engine:
        """The device. Raises BackendError where it is not there or lacks the precision."""
        return load_engine(self.backend, EngineOptions(self.device, self.precision))

    @property
    def cpu(self) -> Engine | None:
        """The same framework on the CPU, beside the device: MindSpore has one device in a process."""
        return load_engine(self.backend, EngineOptions("cpu")) if self.backend != "mindspore" else None


def compared(name: str, found, expected, limit: float) -> Finding:
    """Arrays against what they should be, relative to the largest entry (or to 1)."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        return {"name": name, "ok": False, "value": f"shape {found.shape}", "limit": f"shape {expected.shape}"}
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    return within(name, float(np.abs(found - expected).max(initial=0.0)) / scale, limit)


def within(name: str, value: float, limit: float) -> Finding:
    """A difference that may be at most `limit`; what is not finite never is."""
    return {"name": name, "ok": math.isfinite(value) and value <= limit, "value": value, "limit": limit}


def attempted(name: str, work: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What `work` yields; what it raises is a finding, and the part goes on. What a device lacks is refused, not raised."""
    try:
        yield from work()
    except BackendError as error:
        yield {"name": name, "ok": None, "value": str(error)}
    except Exception as error:  # whatever a framework or its device raises
        lines = [line for line in str(error).splitlines() if line.strip()]
        yield {"name": name, "ok": False, "value": f"{type(error).__name__}: {lines[0] if lines else ''}"[:400]}


# Operations.


def operations(settings: Settings) -> Iterator[Finding]:
    """Every primitive: its value against float64, its gradient against the slopes of float64."""
    cases = {name: (case.function, case.parameters, case.batch, case.forward) for name, case in op_cases.CASES.items()}
    for name, (function, parameters, batch) in _more_operations().items():
        cases[name] = function, parameters, batch, op_cases.FORWARD
    for name, case in cases.items():
        yield from attempted(name, lambda name=name, case=case: _operation(settings, name, *case))
    yield from attempted("dropout", lambda: _dropout(settings.engine))


def _operation(settings, name, function, parameters, batch, forward) -> Iterator[Finding]:
    precision = settings.precision
    exact = {key: array.astype(np.float64) for key, array in parameters.items()}
    expected = function(ReferenceOps(), exact, batch)
    [found] = settings.engine.infer(outputs_of(function), parameters)({**batch, "unused": np.zeros(1, np.float32)})
    room = forward / op_cases.FORWARD if precision == "fp32" else 1.0
    yield compared(name, found, expected, VALUE[precision] * room)
    weights = np.random.default_rng(2).normal(size=np.shape(expected)).astype(np.float32)
    _, gradients = settings.engine.gradients(weighted(function), parameters, {}, {**batch, "weights": weights})
    for key, array in exact.items():

        def value(moved, key=key):
            return float((function(ReferenceOps(), {**exact, key: moved}, batch) * weights).sum())

        slopes = _slopes(value, array)
        yield compared(f"{name}: gradient, {key}", gradients[key], slopes, GRADIENT[precision])


def outputs_of(function):
    """The function as an engine infers it."""

    def outputs(ops, parameters, batch):
        return [function(ops, parameters, batch)]

    return outputs


def weighted(function):
    """The objective sum(weights * function)."""

    def objective(ops, parameters, frozen, batch):
        total = ops.sum(ops.float32(function(ops, parameters, batch)) * batch["weights"])
        return total, ops.stack([total])

    return objective


def _slopes(function: Callable[[np.ndarray], float], array: np.ndarray) -> np.ndarray:
    """Central differences by every entry."""
    slopes = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        step = 1e-5 * max(1e-2, abs(float(array[place])))
        ends = []
        for sign in (1, -1):
            moved = array.copy()
            moved[place] += sign * step
            ends.append(function(moved))
        slopes[place] = (ends[0] - ends[1]) / (2 * step)
    return slopes


def _lstm(ops, p, batch):
    return ops.lstm(p["x"], batch["mask"], p["input_weight"], p["hidden_weight"], p["input_bias"], p["hidden_bias"])


def _word_cross_entropy(ops, p, batch):
    return ops.word_cross_entropy(p["states"], p["weight"], p["bias"], batch["labels"], batch["row_weights"])


def _word_divergence(ops, p, batch):
    teacher = batch["states"], batch["weight"], batch["bias"]
    return ops.word_divergence(p["states"], p["weight"], p["bias"], *teacher, batch["row_weights"], 2.0)


def _word_squared_error(ops, p, batch):
    teacher = batch["states"], batch["weight"], batch["bias"]
    return ops.word_squared_error(p["states"], p["weight"], p["bias"], *teacher, batch["row_weights"])


def _more_operations():
    """Those that the tests have in files of their own: (function, parameters, batch)."""
    generator = np.random.default_rng(GENERATOR_SEED)

    def normal(*shape):
        return generator.normal(0.0, 0.5, shape).astype(np.float32)

    def words():
        return {"states": normal(5, 4), "weight": normal(7, 4), "bias": normal(7)}

    lstm = {"x": normal(4, 3, 3), "input_weight": normal(2, 8, 3), "hidden_weight": normal(2, 8, 2)}
    lstm |= {"input_bias": normal(2, 8), "hidden_bias": normal(2, 8)}
    mask = (np.arange(3) < np.array([3, 1, 0, 2])[:, None]).astype(np.float32)
    rows = {"row_weights": np.array([1, 0.5, 1, 0, 1], np.float32)}
    return {
        "lstm": (_lstm, lstm, {"mask": mask}),
        "word_cross_entropy": (_word_cross_entropy, words(), {"labels": np.array([3, 0, 6, 1, 2], np.int32), **rows}),
        "word_divergence": (_word_divergence, words(), {**words(), **rows}),
        "word_squared_error": (_word_squared_error, words(), {**words(), **rows}),
    }


RATE = 0.25


def _dropped(ops, parameters, frozen, batch):
    total = ops.sum(ops.float32(ops.dropout(parameters["x"], RATE)) * batch["weights"])
    return total, ops.stack([total])


def _dropout(engine: Engine) -> Iterator[Finding]:
    """The share that it drops, the scale of what is left, and one seed, one mask."""
    size = (200, 200)
    batch = {"weights": np.ones(size, np.float32), "denominators": np.ones(1, np.float32)}
    parameters = {"x": np.ones(size, np.float32)}
    _, gradients = engine.gradients(_dropped, parameters, {}, batch)
    kept = gradients["x"] > 0.5
    yield within("dropout: share dropped", abs(float(kept.mean()) - (1 - RATE)), 5 * math.sqrt(RATE * (1 - RATE) / kept.size))
    yield compared("dropout: scale of what is kept", gradients["x"][kept], np.full(kept.sum(), 1 / (1 - RATE)), 1e-2)
    step = engine.train_step(_dropped, parameters, {}, OptimizerSpec("adamw", weight_decay=0.0))
    values = step.run(iter([Step([batch], 0.0, seed) for seed in (11, 12, 11)]), 3).fetch()[:, 0]
    yield {"name": "dropout: one seed, one mask", "ok": bool(values[0] == values[2] != values[1]), "value": values.tolist()}


# Losses.


def losses(settings: Settings) -> Iterator[Finding]:
    """Every loss of the catalogue on random outputs of models: value and gradients against the same term in float64."""
    cases = {}
    for name, term in LOSSES.items():
        for kind in (ONE_CLASS, ONE_NUMBER, SEVERAL_LABELS):
            case = _loss_case(name, term, kind)
            if case is not None:
                cases[f"{name}, {kind.name}"] = case
    for name, case in cases.items():
        yield from attempted(name, lambda name=name, case=case: _loss(settings, name, case))


def _loss_case(name: str, term, kind: Kind) -> Case | None:
    """The loss with its default options; None where that is not for this kind of task, or over words."""
    options = {"loss": name} | ({"relation": "value"} if "relation" in term.model_fields else {})
    chosen = term(**options)
    config = BertConfig(num_hidden_layers=2, hidden_size=4, num_attention_heads=2, intermediate_size=8)
    teacher = config.model_copy(update={"num_hidden_layers": 4})
    context = TermContext(kind.outputs(("a", "b", "c")), kind, config, {"teacher": teacher})
    outputs_taken = chosen.student_outputs(context)
    if chosen.problems(context) or not all(each.partition("/")[0] in KINDS for each in outputs_taken):
        return None
    if kind is not ONE_CLASS and "logits" not in outputs_taken:
        return None  # the same as for classes

    def formula(student, teacher, params, batch, start):
        batch = {**batch, "labels": batch["labels"].astype(np.int64) if kind is ONE_CLASS else batch["labels"]}
        value = chosen.bound(context, "stage.term")(ReferenceOps(), params, student, teacher, batch)
        return float(value) / chosen.counter(context)(batch)

    return Case(chosen, context, formula)


def _loss(settings: Settings, name: str, case: Case) -> Iterator[Finding]:
    apart = deviation(case, results(settings.engine, {name: case})[name])
    yield within(name, abs(apart.value - apart.expected) / max(1.0, abs(apart.expected)), VALUE[settings.precision])
    for tensor, difference in apart.gradients.items():
        if not math.isnan(difference):  # what it does not depend on
            yield within(f"{name}: gradient, {tensor}", difference, GRADIENT[settings.precision])
