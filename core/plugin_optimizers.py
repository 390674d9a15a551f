"""An optimizer of a plugin in NumPy float64, over a few random parameters and gradients: what a backend's must come to."""

from __future__ import annotations

from typing import Any

import numpy as np

from .engine import Parameters, Step
from .errors import CrossdistilError, PluginError
from .optimizers import OptimizerSpec, is_decayed
from .plugin_calls import first_line
from .plugin_errors import error_text, plugin_line
from .reference import ReferenceOps
from .registered import RegisteredOptimizer
from .shown import plain

STATE_NAME = r"[A-Za-z]\w{0,39}"
"""They are parts of the names of tensors in a saved state, where `step` is ours."""
_SHAPES = {"dense.weight": (4, 3), "dense.bias": (4,)}
"""Of which the first is decayed."""
_STEPS = 4


def trial_spec(optimizer: RegisteredOptimizer) -> OptimizerSpec:
    """What it is tried with: some decay, no clipping."""
    return OptimizerSpec(optimizer.name, epsilon=1e-4, weight_decay=0.1, max_gradient_norm=None, own=optimizer.update)


def trial_parameters() -> Parameters:
    """Random parameters, float32."""
    generator = np.random.default_rng(5)
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in _SHAPES.items()}


def trial_steps(processes: int = 1) -> list[Step]:
    """Steps whose batch holds the gradients that `trial_objective` has, or the share of each of several processes."""
    generator = np.random.default_rng(6)
    batches = [
        {name: (generator.normal(size=shape) / processes).astype(np.float32) for name, shape in _SHAPES.items()}
        for _ in range(_STEPS)
    ]
    return [
        Step([{**batch, "denominators": np.ones(1, np.float32)}], 0.01 * (number + 1), seed=number)
        for number, batch in enumerate(batches)
    ]


def trial_objective(ops, parameters, frozen, batch):
    """sum(parameter * batch), whose gradient is the batch."""
    total = ops.sum(parameters["dense.weight"] * batch["dense.weight"]) + ops.sum(parameters["dense.bias"] * batch["dense.bias"])
    return total, ops.stack([total, total])


def exact_steps(optimizer: RegisteredOptimizer, formula: bool = False) -> Parameters:
    """The parameters after the steps, in float64, by the plugin's function or by its NumPy `formula`. Raises PluginError, which
    names file and line, for a function that fails or returns something else."""
    spec, function = trial_spec(optimizer), optimizer.numpy if formula else optimizer.update.function
    before = () if formula else (ReferenceOps(),)
    parameters = {name: array.astype(np.float64) for name, array in trial_parameters().items()}
    state = {name: tuple(np.zeros(array.shape) for _ in optimizer.update.kinds) for name, array in parameters.items()}
    for number, step in enumerate(trial_steps(), 1):
        for name, array in parameters.items():
            now = {"rate": step.learning_rate, "decay": spec.weight_decay if is_decayed(name) else 0.0}
            now |= {**spec.constants(), **spec.numbers(number)}
            gradient = step.micro_batches[0][name].astype(np.float64)
            kept = tuple(each.copy() for each in state[name])
            try:
                with np.errstate(all="ignore"):
                    found = function(*before, array.copy(), gradient, kept, now)
            except CrossdistilError:
                raise
            except Exception as error:
                raise failure(optimizer, error, "NumPy") from error
            parameters[name], state[name] = _checked(optimizer, found, array.shape, function)
    return parameters


def failure(optimizer: RegisteredOptimizer, error: Exception, where: str) -> PluginError:
    """An error of the plugin's function as a line with its place."""
    place = plugin_line(error, [optimizer.place.rpartition(":")[0]]) or first_line(optimizer.update.function, optimizer.place)
    return PluginError(f"{plain(place)}: optimizer '{optimizer.name}' fails on {where}: {error_text(error)}")


def _checked(optimizer: RegisteredOptimizer, found: Any, shape: tuple[int, ...], function: Any) -> tuple[np.ndarray, tuple]:
    place, kinds = first_line(function, optimizer.place), optimizer.update.kinds
    expected = f"(parameter, state) with {len(kinds)} tensors of state" + (f" ({', '.join(kinds)})" if kinds else "")
    told = f"{place}: optimizer '{optimizer.name}' returns "
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], tuple | list) and len(found[1]) == len(kinds)):
        raise PluginError(f"{told}something else than {expected}")
    for what, array in zip(("a parameter", *kinds), (found[0], *found[1])):
        if np.shape(array) != shape:
            raise PluginError(f"{told}{what} of shape {np.shape(array)}, expected that of the parameter, {shape}")
        if not np.isfinite(np.asarray(array, np.float64)).all():
            raise PluginError(f"{told}{what} that is not finite on random gradients")
    return found[0], tuple(found[1])
