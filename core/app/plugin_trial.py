"""Tries a recipe's own losses and optimizers before a run begins, on a few random rows: in NumPy float64 and on the backend. What
is wrong with one is told with its file and line, and not after an hour of training."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from ..engine import Engine
from ..errors import CrossdistilError, PluginError, did_you_mean
from ..kinds.known_kinds import ONE_CLASS
from ..losses.base import LossTerm, TermContext
from ..losses.checking import KINDS, Case, results
from ..models.outputs import split_name
from ..objective import term_labels
from ..ops import Ops
from ..plugin_calls import first_line
from ..plugin_errors import error_text, plugin_line
from ..plugin_optimizers import (
    exact_steps,
    failure,
    trial_objective,
    trial_parameters,
    trial_spec,
    trial_steps,
)
from ..recipe import Recipe
from ..reference import ReferenceOps
from ..registered import Registered, RegisteredLoss, RegisteredOptimizer
from ..shown import plain
from .error_lines import Terminated
from .interruption import Saved

_STRAY = (0.5, 0.5)
"""Padding like that of a model, not the large numbers of a check."""
_APART = 1e-3
"""A relative difference from float64 that no rounding of a loss in float32 explains."""


def no_formula(student, teacher, params, batch, start) -> float:
    """For a term that is only tried."""
    return float("nan")


def try_losses(recipe: Recipe, context: TermContext, engine: Engine) -> None:
    """Compute each loss of the recipe's plugins once, forward and backward. Raises PluginError."""
    own = recipe.registered.losses
    if context.kind.per_token:  # a loss over logits sees each labelled token as an example
        context = dataclasses.replace(context, kind=ONE_CLASS)
    for stage in recipe.stages:
        for term, label in zip(stage.objective, term_labels(stage.objective, stage.name)):
            loss = own.get(term.loss)
            if loss is not None and can_be_tried(term, context):
                case = Case(term, context, no_formula, label=label, stray=_STRAY)
                _compare(loss, engine.name, reference_value(loss, case), _on_backend(loss, case, engine))


def try_optimizers(recipe: Recipe, engine: Engine) -> None:
    """Take a few steps with each optimizer of the recipe's plugins. Raises PluginError."""
    names = {stage.train.optimizer: stage.train.own_optimizers for stage in recipe.stages}
    for optimizer in (own[name] for name, own in names.items() if name in own):
        apart = optimizer_deviation(optimizer, engine)
        if not apart <= _APART:
            where = first_line(optimizer.update.function, optimizer.place)
            raise PluginError(
                f"{where}: optimizer '{optimizer.name}' moves parameters otherwise on {engine.name} than in NumPy float64, by "
                f"{apart:.1e} of their way, on the same random gradients; "
                f"crossdistil check {optimizer.place.rpartition(':')[0]} shows more"
            )


def optimizer_deviation(optimizer: RegisteredOptimizer, engine: Engine) -> float:
    """The largest difference of a parameter on a backend from NumPy float64 after a few steps, over the longest way that one has
    gone. Raises PluginError."""
    start, steps = trial_parameters(), trial_steps(engine.place.size)
    expected = exact_steps(optimizer)
    try:
        train = engine.train_step(trial_objective, start, {}, trial_spec(optimizer))
        train.run(iter(steps), len(steps)).fetch()
        found = train.parameters()
    except CrossdistilError:
        raise
    except Exception as error:
        raise failure(optimizer, error, engine.name) from error
    way = max(np.abs(array - start[name]).max() for name, array in expected.items())
    apart = max(np.abs(found[name] - array).max() for name, array in expected.items())
    return float(apart / max(way, 1e-30))


def can_be_tried(term: LossTerm, context: TermContext) -> bool:
    """Whether there are random values of all outputs that the term takes."""
    outputs = set(term.student_outputs(context)).union(*term.teacher_outputs(context).values())
    return all(split_name(name)[0] in KINDS for name in outputs) and term.unit not in ("masked", "next_tokens")


def reference_value(loss: RegisteredLoss, case: Case) -> float:
    """The term's value over the case's inputs in NumPy float64. Raises PluginError."""
    student, teacher, params, batch = case.inputs
    double = [{name: array.astype(np.float64) for name, array in part.items()} for part in (params, student, teacher)]
    exact = {name: array.astype(np.float64) if array.dtype.kind == "f" else array for name, array in batch.items()}
    with np.errstate(all="ignore"), told(loss, "NumPy"):
        value = case.term.bound(case.context, case.label)(ReferenceOps(), *double, exact)
    if np.shape(value) != () or not isinstance(value, np.number | np.ndarray | float | int):
        got = f"an array {np.shape(value)}" if np.shape(value) else type(value).__name__
        expected = "expected one number, the sum over the examples (sum_rows)"
        raise PluginError(f"{_function_line(loss)}: loss '{loss.name}' returns {got}, {expected}")
    if not np.isfinite(np.asarray(value, np.float64)):
        found = f"loss '{loss.name}' is {float(value)} on random inputs"
        raise PluginError(f"{_function_line(loss)}: {found}, expected a finite number")
    return float(value) / case.term.counter(case.context)(batch)


def _on_backend(loss: RegisteredLoss, case: Case, engine: Engine) -> float:
    with told(loss, engine.name):
        value, gradients = results(engine, {loss.name: case})[loss.name]
    bad = [name for name, gradient in gradients.items() if not np.isfinite(gradient).all()]
    if bad:
        where = f"the gradient of loss '{loss.name}' with respect to {bad[0]}"
        raise PluginError(f"{_function_line(loss)}: {where} is not finite on random inputs, on {engine.name}")
    return value


def _compare(loss: RegisteredLoss, backend: str, expected: float, value: float) -> None:
    if not abs(value - expected) <= _APART * max(abs(value), abs(expected)) + 1e-6:
        raise PluginError(
            f"{_function_line(loss)}: loss '{loss.name}' is {value:.6g} on {backend} and {expected:.6g} in NumPy float64, on the "
            f"same random inputs; crossdistil check {_file(loss)} shows more"
        )


@contextlib.contextmanager
def told(loss: RegisteredLoss, where: str) -> Iterator[None]:
    """What is raised while a loss is computed becomes a PluginError with its line."""
    try:
        yield
    except CrossdistilError:
        raise
    except Exception as error:
        raise _error(loss, error, where) from error


def _error(loss: RegisteredLoss, error: Exception, where: str) -> PluginError:
    place = plugin_line(error, [_file(loss)]) or _line_in_text(error, _file(loss)) or _function_line(loss)
    text = error_text(error)
    if isinstance(error, AttributeError) and isinstance(getattr(error, "obj", None), ReferenceOps):
        known = [name for name in vars(Ops) if not name.startswith("_")]
        near = did_you_mean(error.name, known) or f"; there are {', '.join(sorted(known))}"
        text = f"ops has no '{plain(error.name)}'{near}"
    elif isinstance(error, KeyError) and error.args and isinstance(error.args[0], str):
        text = f"there is no {text.removeprefix('KeyError: ')}; student_outputs and teacher_outputs say what a term gets"
    return PluginError(f"{plain(place)}: loss '{loss.name}' fails on {where}: {text}")


def _file(loss: RegisteredLoss) -> str:
    return loss.place.rpartition(":")[0]


def _function_line(loss: RegisteredLoss) -> str:
    code = loss.term.function.__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def _line_in_text(error: Exception, file: str) -> str | None:
    """Compilers name the line in their message."""
    found = re.search(re.escape(file) + r'"?(?::|, line )(\d+)', str(error))
    return None if found is None else f"{file}:{found[1]}"


@contextlib.contextmanager
def plugin_errors(registered: Registered) -> Iterator[None]:
    """An error that is raised in a plugin's code becomes a PluginError that names its line; so does an end of the program there,
    which is no end of the run, but not one that a signal asks for."""
    try:
        yield
    except (CrossdistilError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        place = plugin_line(error, {each.place.rpartition(":")[0] for each in registered.all})
        if place is None or isinstance(error, Terminated | Saved):
            raise
        raise PluginError(f"{plain(place)}: {error_text(error)}") from error
