"""What a plugin is written with: a Python file of the user's that registers losses, metrics and more, without a change to this
package.

    from crossdistil import LossTerm, register_loss, sum_rows

    class MyLoss(LossTerm):
        loss: Literal["my_loss"]          # its name in recipes
        ...
    register_loss(MyLoss, numpy=my_formula)

A recipe names the file in `plugins`, a command in `--plugin`; nothing else loads it. `crossdistil check FILE` compares the losses
with their NumPy formulas on every backend. docs/plugins.md shows whole files. Families of models, backends and kinds of tasks are
registered by `core.plugin_families`, `core.plugin_backends` and `core.plugin_kinds`.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .data.task_specs import glue_task
from .errors import PluginError
from .events import Sink
from .kinds.known_kinds import OF_TABLES
from .log_section import LogSection
from .losses.base import LossTerm
from .losses.catalogue import LOSSES
from .losses.presets import PRESETS
from .metrics import KNOWN_METRICS
from .optimizers import OwnUpdate
from .plugin_calls import checked_schedule
from .plugin_optimizers import STATE_NAME, exact_steps
from .registered import (
    RECORDS,
    RegisteredKind,
    RegisteredLoss,
    RegisteredMetric,
    RegisteredOptimizer,
    RegisteredSchedule,
    RegisteredSink,
    RegisteredTask,
)
from .registering import caller, checked_name, record
from .schedules import SCHEDULES
from .shown import shown
from .train_section import OPTIMIZERS

FORMULA_ARGUMENTS = ("term", "student", "teacher", "params", "batch", "start")
"""What a loss's NumPy formula may ask for by the names of its arguments."""


def register_loss(
    term: type[LossTerm],
    *,
    numpy: Callable[..., float] | None = None,
    cases: Sequence[Mapping[str, Any]] = ({},),
    tasks: Sequence[str] = ("classification",),
) -> type[LossTerm]:
    """Make a loss term usable in recipes, under the name that its field `loss: Literal["name"]` says.

    `numpy` is the same loss once more, written from the paper in NumPy: it returns its value over a batch, the mean over the
    term's `unit`. Its arguments are told by their names: `term` (the options), `student` and `teacher` (outputs by name, float64,
    the rows of real examples), `batch` (`labels`, `label_mask`, `attention_mask` of those rows), `params` (projections), and
    `start` (the student's outputs where they take no gradient). `crossdistil check` compares both, with each of the options in
    `cases`, for each kind of `tasks`: classification, regression, multi_label. Raises PluginError.
    """
    module, place = caller()
    if not (isinstance(term, type) and issubclass(term, LossTerm)):
        raise PluginError(f"{place}: register_loss: expected a subclass of LossTerm, got {shown(term, 60)}")
    field = term.model_fields.get("loss")
    names = () if field is None else typing.get_args(field.annotation)
    if len(names) != 1 or typing.get_origin(field.annotation) is not typing.Literal:
        expected = 'expected a field that names it, like loss: Literal["my_loss"]'
        raise PluginError(f"{place}: register_loss: {term.__name__}.loss: {expected}")
    name = checked_name(names[0], "loss", place, {**LOSSES, **PRESETS})
    if term.function is LossTerm.function:
        raise PluginError(f"{place}: loss '{name}': {term.__name__} has no method function(self, context, label)")
    if numpy is not None:
        _check_arguments(numpy, FORMULA_ARGUMENTS, f"{place}: loss '{name}': numpy")
    if not cases or not all(isinstance(case, Mapping) for case in cases):
        raise PluginError(f"{place}: loss '{name}': cases: expected a list of options, like [{{'temperature': 4}}]")
    _check_kinds(tasks, f"{place}: loss '{name}'")
    if not term.formula:
        term.formula = (inspect.getdoc(term) or "").partition("\n")[0] if term.__doc__ else ""
    record(module, RegisteredLoss(name, place, term, numpy, tuple(dict(case) for case in cases), tuple(tasks)))
    return term


def register_metric(
    name: str, function: Callable[..., float], *, tasks: Sequence[str] = ("classification",)
) -> Callable[..., float]:
    """Make a metric usable in a recipe's `task.metrics`; the first that a recipe names chooses the best weights.

    `function(logits, labels)` is given float64 logits (examples, classes), one column in a regression, and labels (examples,):
    class numbers, scores, or with several labels (examples, classes) of 0 and 1. It returns a finite number, the larger the
    better. `tasks` are the kinds that it is for: classification, regression, multi_label. Raises PluginError.
    """
    module, place = caller()
    checked_name(name, "metric", place, KNOWN_METRICS)
    if not callable(function):
        raise PluginError(f"{place}: metric '{name}': expected a function, got {shown(function, 60)}")
    _check_kinds(tasks, f"{place}: metric '{name}'")
    record(module, RegisteredMetric(name, place, function, tuple(tasks)))
    return function


def register_schedule(name: str, function: Callable[[float], float]) -> Callable[[float], float]:
    """Make a learning-rate schedule usable as a recipe's `train.schedule`.

    `function(progress)` is given how much of the stage after its warm-up is over, from 0 to 1 (the last step is just below 1),
    and returns the factor of the peak learning rate, a finite number from 0 on. The warm-up before it rises linearly, as that of
    every schedule. Raises PluginError.
    """
    module, place = caller()
    checked_name(name, "schedule", place, SCHEDULES)
    if not callable(function):
        raise PluginError(f"{place}: schedule '{name}': expected a function, got {shown(function, 60)}")
    found = RegisteredSchedule(name, place, function)
    for tenth in range(11):
        checked_schedule(found)(tenth / 10)
    record(module, found)
    return function


def register_optimizer(
    name: str,
    update: Callable[..., Any],
    *,
    state: Sequence[str] = (),
    numpy: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Make an optimizer usable as a recipe's `train.optimizer`.

    `update(ops, parameter, gradient, state, now)` returns `(parameter, state)`. `state` is what it keeps of each parameter, as
    many tensors of the parameter's shape as it names here; they begin as zeros. The gradient is clipped already. `now` holds
    `rate` (the learning rate of this step and parameter), `decay` (weight decay, 0 for biases and normalisation), `beta1`,
    `beta2` and `epsilon` as the recipe has them, `step` (from 1), `correction1` and `correction2` (1 - beta ** step). `numpy` is
    the same from the paper without `ops`, by which `crossdistil check` judges it. Raises PluginError.
    """
    module, place = caller()
    checked_name(name, "optimizer", place, OPTIMIZERS)
    for function, arguments in ((update, 5), (numpy, 4)):
        if function is not None and not callable(function):
            raise PluginError(f"{place}: optimizer '{name}': expected a function, got {shown(function, 60)}")
        if function is not None and len(inspect.signature(function).parameters) != arguments:
            expected = "(ops, parameter, gradient, state, now)" if arguments == 5 else "(parameter, gradient, state, now)"
            raise PluginError(f"{place}: optimizer '{name}': {function.__name__} takes other arguments than {expected}")
    if isinstance(state, str) or len(set(state)) < len(state) or not all(re.fullmatch(STATE_NAME, str(each)) for each in state):
        got = f"got {shown(state, 60)}"
        raise PluginError(f"{place}: optimizer '{name}': state: expected different names, like ['momentum'], {got}")
    found = RegisteredOptimizer(name, place, OwnUpdate(update, tuple(state)), numpy)
    exact_steps(found)
    record(module, found)
    return update


def register_sink(name: str, make: Callable[..., Sink]) -> Callable[..., Sink]:
    """Make a sink usable in a recipe's `log`, beside `tensorboard` and its kind.

    `make` is a subclass of `Sink`, or a function that returns one; the settings of a recipe are its keyword arguments. The first
    process of a run tells the sink its events, in a thread of its own; what it raises after the run has started ends no run.
    Raises PluginError.
    """
    module, place = caller()
    checked_name(name, "sink", place, LogSection.model_fields)
    if not callable(make) or (isinstance(make, type) and not issubclass(make, Sink)):
        raise PluginError(f"{place}: sink '{name}': expected a subclass of Sink, or a function, got {shown(make, 60)}")
    for argument in inspect.signature(make).parameters.values():
        if argument.kind is argument.POSITIONAL_ONLY or argument.name.startswith("_"):
            raise PluginError(f"{place}: sink '{name}': asks for '{argument.name}', expected arguments that a recipe can name")
    record(module, RegisteredSink(name, place, make))
    return make


def register_task(
    name: str,
    read: Callable[[Path, str], Iterable[Mapping[str, Any]]],
    *,
    kind: str = "classification",
    labels: Sequence[str] | None = None,
    pairs: bool = False,
    metrics: Sequence[str] | None = None,
    splits: Sequence[str] = ("train", "dev"),
) -> Callable[[Path, str], Iterable[Mapping[str, Any]]]:
    """Make a task usable as a recipe's `task.name`, whose data the plugin itself reads.

    `read(data, split)` is given the recipe's `task.data`, a file or folder that exists, and one of `splits`, of which `train` and
    `dev` must be there; it returns or yields a mapping a row: `text`, `text_pair` if the task has `pairs`, and `label`: a class's
    name, a number in a regression, a list of names with several labels. `labels` are the classes in their order, else those of
    train are taken; rows of a split that begins with `test` need none. `metrics` are those that a recipe can name, this plugin's
    too, and a recipe can name others. Raises PluginError.
    """
    module, place = caller()
    checked_name(name, "task", place, ())
    what = f"{place}: task '{name}'"
    if glue_task(name) is not None:
        raise PluginError(f"{what}: is one of GLUE's; choose another name")
    if not callable(read) or len(inspect.signature(read).parameters) != 2:
        raise PluginError(f"{what}: expected a function (data, split), got {shown(read, 60)}")
    _check_kinds([kind], what)
    for key, values in (("labels", labels), ("metrics", metrics), ("splits", splits)):
        if values is not None and (isinstance(values, str) or not all(isinstance(each, str) for each in values)):
            raise PluginError(f"{what}: {key}: expected texts, like ['no', 'yes'], got {shown(values, 60)}")
    if not {"train", "dev"} <= set(splits):
        raise PluginError(f"{what}: splits: got {shown(list(splits), 60)}, expected train and dev among them")
    optional = (None if values is None else tuple(values) for values in (labels, metrics))
    record(module, RegisteredTask(name, place, read, kind, next(optional), pairs, next(optional), tuple(splits)))
    return read


def _check_kinds(tasks: Sequence[str], what: str) -> None:
    own = [each.name for found in RECORDS.values() for each in found if isinstance(each, RegisteredKind)]
    unknown = [kind for kind in tasks if kind not in (*OF_TABLES, *own)]
    if unknown or not tasks:
        got = shown(unknown[0]) if unknown else "none"
        raise PluginError(f"{what}: tasks: got {got}, expected some of {', '.join((*OF_TABLES, *own))}")


def _check_arguments(function: Any, known: Sequence[str], what: str) -> None:
    """Raise PluginError unless a function takes no other arguments than those it can be given."""
    if not callable(function):
        raise PluginError(f"{what}: expected a function, got {shown(function, 60)}")
    unknown = [name for name in inspect.signature(function).parameters if name not in known]
    if unknown:
        raise PluginError(f"{what}: asks for '{unknown[0]}', expected arguments among {', '.join(known)}")
