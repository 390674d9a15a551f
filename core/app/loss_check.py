"""`crossdistil check`: a plugin's losses and optimizers against their NumPy formulas, on every backend.

Each case (the loss with some of its options, for a kind of task) is computed over a few random rows, in NumPy float64 and by each
backend. The value must be the formula's, the gradient that of its finite differences; padding tokens and rows must change
nothing, and neither may cutting the batch into micro-batches.
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from pydantic import ValidationError

from ..engine import Engine
from ..errors import CrossdistilError, PluginError
from ..kinds.known_kinds import KINDS
from ..losses.base import STATISTICS, TermContext
from ..losses.checking import GRADIENT, LENGTHS, REAL, STRAY, VALUE, Case, deviation, results
from ..models.families.bert import BertConfig
from ..models.outputs import split_name
from ..plugin_errors import error_text, plugin_line
from ..plugin_optimizers import exact_steps, trial_parameters
from ..recipe_errors import describe
from ..reference import ReferenceOps
from ..registered import Registered, RegisteredLoss, RegisteredOptimizer
from .plugin_trial import can_be_tried, optimizer_deviation, reference_value, told

EXACT = 1e-9
"""Of differences within float64, where only the order of a sum is another."""
_CLASSES = ("a", "b", "c")
_SIZES = {"student": (2, 4, 2), "wider": (4, 6, 2), "same": (4, 4, 2)}
"""(layers, width, heads): the teacher is wider where the term can be used so, and else as wide as the student."""

Row = dict[str, Any]
"""A figure of a case: loss, case, where it was computed, what, found, limit, ok."""


def make_cases(registered: Registered) -> dict[tuple[str, str], tuple[RegisteredLoss, Case]]:
    """(loss, what it is given) -> the case. Raises PluginError for options that a loss cannot take."""
    found = {}
    for loss in registered.losses.values():
        for options, kind in itertools.product(loss.cases, loss.kinds):
            try:
                term = loss.term(loss=loss.name, **options)
            except ValidationError as error:
                raise PluginError(f"{loss.place}: loss '{loss.name}': cases: {describe(error, loss.term)[0]}") from error
            context = _context(loss, term, kind)
            words = [f"{key} {value}" for key, value in options.items()] + ([kind] if len(loss.kinds) > 1 else [])
            case = Case(term, context, _formula(loss, term), seed=len(found), stray=STRAY)
            found[loss.name, ", ".join(words) or "defaults"] = loss, case
    return found


def _context(loss: RegisteredLoss, term, kind: str) -> TermContext:
    problems: list[tuple[str, str]] = []
    of_task = KINDS[kind]
    for size in ("wider", "same"):
        student, teacher = _config(*_SIZES["student"]), _config(*_SIZES[size])
        context = TermContext(of_task.outputs(_CLASSES), of_task, student, {"teacher": teacher})
        problems = term.problems(context)
        if not problems:
            if not can_be_tried(term, context):
                raise PluginError(f"{loss.place}: loss '{loss.name}': takes outputs of words, which check has no random ones of")
            return context
    key, why = problems[0]
    raise PluginError(f"{loss.place}: loss '{loss.name}' cannot be checked for {kind}: {key}: {why}; give fitting cases or tasks")


def _config(layers: int, width: int, heads: int) -> BertConfig:
    return BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=8)


def _formula(loss: RegisteredLoss, term) -> Callable[..., float]:
    """The author's formula as a case calls it, with the rows of real examples; without one, the term itself in float64."""
    if loss.numpy is None:

        def itself(student, teacher, params, batch, start):
            values = term.bound(context_of[0], "stage.term")(ReferenceOps(), params, student, teacher, _whole(batch))
            return float(values) / term.counter(context_of[0])(batch)

        context_of = [_context(loss, term, loss.kinds[0])]
        return itself
    asked = list(inspect.signature(loss.numpy).parameters)

    def formula(student, teacher, params, batch, start):
        given = {"student": student, "teacher": teacher, "batch": batch, "start": start}
        given = {key: {name: array[:REAL] for name, array in part.items()} for key, part in given.items()}
        given |= {"term": term, "params": params}
        try:
            value = loss.numpy(**{name: given[name] for name in asked})
            return float(value)
        except Exception as error:
            file = loss.place.rpartition(":")[0]
            place = plugin_line(error, [file]) or f"{file}:{loss.numpy.__code__.co_firstlineno}"
            raise PluginError(f"{place}: the NumPy formula of loss '{loss.name}': {error_text(error)}") from error

    return formula


def _whole(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A batch whose labels, made float64 for formulas, are class numbers again where they are whole."""
    labels = batch["labels"]
    return {**batch, "labels": labels.astype(np.int64) if labels.ndim == 1 and np.all(labels % 1 == 0) else labels}


def reference_rows(name: tuple[str, str], loss: RegisteredLoss, case: Case) -> Iterator[Row]:
    """What is checked without a backend, in NumPy float64."""
    value = reference_value(loss, case)
    if loss.numpy is not None:
        yield _row(name, "NumPy", "value", abs(value - case.value()) / max(abs(case.value()), 1e-30), EXACT)
    scale = max(abs(value), 1e-30)
    if not case.term.counts_padding:
        other = dataclasses.replace(case, stray=(STRAY[0] / 2, STRAY[1] / 2))
        yield _row(name, "NumPy", "other padding", abs(reference_value(loss, other) - value) / scale, EXACT)
    with told(loss, "NumPy"):
        cut = cut_value(case)
    yield _row(name, "NumPy", "accumulation", abs(cut - value) / scale, EXACT)


def cut_value(case: Case) -> float:
    """The value of a case whose batch is cut into three micro-batches, each as long as its longest row."""
    ops, bound = ReferenceOps(), case.term.bound(case.context, case.label)
    parts = [_cut(case, rows) for rows in ([0], [1, 2], [3])]
    count = case.term.counter(case.context)
    units = sum(count(batch) for *_, batch in parts)
    if case.term.scope == "sums":
        statistics = case.term.statistics(case.context)
        sums = sum(ops.stack(statistics(ops, student, teacher, batch)) for student, teacher, _, batch in parts)
        for *_, batch in parts:
            batch[STATISTICS] = sums
    return float(sum(bound(ops, params, student, teacher, batch) for student, teacher, params, batch in parts)) / units


def _cut(case: Case, rows: list[int]) -> tuple[dict[str, np.ndarray], ...]:
    student, teacher, params, batch = case.inputs
    length = max(LENGTHS) if case.term.counts_padding else max(LENGTHS[row] for row in rows)

    def of(name: str, array: np.ndarray) -> np.ndarray:
        kind = split_name(name)[0]
        array = array[rows].astype(np.float64) if array.dtype.kind == "f" else array[rows]
        if kind in ("hidden", "attention_mask"):
            return array[:, :length]
        if kind == "scores":
            return array[:, :, :length, :length]
        return array[:, :, :length] if kind in ("queries", "keys", "values") else array

    taught = {name: of(name.partition("/")[2] or name, array) for name, array in teacher.items()}
    exact = {name: array.astype(np.float64) for name, array in params.items()}
    return {name: of(name, array) for name, array in student.items()}, taught, exact, {n: of(n, a) for n, a in batch.items()}


def backend_rows(cases: dict[tuple[str, str], tuple[RegisteredLoss, Case]], engine: Engine) -> Iterator[Row]:
    """Value and gradients of every case on a backend."""
    for loss_name in dict.fromkeys(name for name, _ in cases):
        own = {name: case for name, (_, case) in cases.items() if name[0] == loss_name}
        with told(cases[next(iter(own))][0], engine.name):
            found = results(engine, own)
        for name, case in own.items():
            apart = deviation(case, found[name])
            yield _row(name, engine.name, "value", apart.relative, VALUE)
            for tensor, difference in apart.gradients.items():
                yield _row(name, engine.name, f"gradient, {tensor}", difference, GRADIENT)


def _row(name: tuple[str, str], where: str, what: str, found: float, limit: float) -> Row:
    number = float(found)
    return {
        **dict(zip(("loss", "case"), name)),
        **{"where": where, "what": what, "difference": number if np.isfinite(number) else None, "limit": limit},
        "ok": bool(number <= limit),
    }


def reference_optimizer_rows(optimizer: RegisteredOptimizer) -> Iterator[Row]:
    """An optimizer's function against its formula, both in NumPy float64."""
    if optimizer.numpy is not None:
        found, expected = exact_steps(optimizer), exact_steps(optimizer, formula=True)
        way = max(np.abs(array - trial_parameters()[name]).max() for name, array in expected.items())
        apart = max(np.abs(found[name] - array).max() for name, array in expected.items()) / max(way, 1e-30)
        yield _row((optimizer.name, "defaults"), "NumPy", "parameters after 4 steps", apart, EXACT)


def optimizer_rows(registered: Registered, engine: Engine) -> Iterator[Row]:
    """Each optimizer on a backend."""
    for optimizer in registered.of(RegisteredOptimizer).values():
        apart = optimizer_deviation(optimizer, engine)
        yield _row((optimizer.name, "defaults"), engine.name, "parameters after 4 steps", apart, GRADIENT)


def require_compared(registered: Registered, plugin: str) -> None:
    """Raise CrossdistilError where there is nothing to compare."""
    if not registered.losses and not registered.of(RegisteredOptimizer):
        what = "but no loss or optimizer; check compares these"
        raise CrossdistilError(f"{plugin}: registers {registered.describe()}, {what}")
