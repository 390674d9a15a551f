"""Many small functions computed as one: a framework that compiles needs a second or more for each graph, however small."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Job:
    """`function(ops, tensors, batch)` of its own tensors, which take a gradient or are frozen, and its own batch."""

    function: Callable
    parameters: Arrays
    batch: Arrays
    frozen: Arrays = field(default_factory=dict)


def _joined(own: Sequence[Arrays]) -> Arrays:
    return {f"{index}/{name}": array for index, arrays in enumerate(own) for name, array in arrays.items()}


def _names(own: Sequence[Arrays]) -> tuple[list[list[str]], list[list[str]]]:
    """The names of each job's arrays, and what they are called among all."""
    return [list(arrays) for arrays in own], [[f"{index}/{name}" for name in arrays] for index, arrays in enumerate(own)]


def _chosen(tensors, short, long):
    found = {}
    for index in range(len(short)):
        found[short[index]] = tensors[long[index]]
    return found


def _with_frozen(parameters, names, keys, frozen, frozen_names, frozen_keys):
    found = {}
    for index in range(len(names)):
        found[names[index]] = parameters[keys[index]]
    for index in range(len(frozen_names)):
        found[frozen_names[index]] = frozen[frozen_keys[index]]
    return found


def _together(jobs: Sequence[Job]):
    """`values(ops, parameters, frozen, batch)`: what each function gives, in what a graph compiler can read."""
    functions = [job.function for job in jobs]
    names, keys = _names([job.parameters for job in jobs])
    frozen_names, frozen_keys = _names([job.frozen for job in jobs])
    batch_names, batch_keys = _names([job.batch for job in jobs])

    def values(ops, parameters, frozen, batch):
        made = []
        for index in range(len(functions)):
            tensors = _with_frozen(
                parameters, names[index], keys[index], frozen, frozen_names[index], frozen_keys[index]
            )
            made.append(functions[index](ops, tensors, _chosen(batch, batch_names[index], batch_keys[index])))
        return made

    return values


def values_of(engine, jobs: Sequence[Job]) -> list[np.ndarray]:
    """The value of each function."""
    values = _together(jobs)

    def outputs(ops, parameters, batch):
        return values(ops, parameters, {}, batch)

    batch = _joined([job.batch for job in jobs]) | {"unused": np.zeros(1, np.float32)}
    return engine.infer(outputs, _joined([job.parameters for job in jobs]))(batch)


def gradients_of(engine, jobs: Sequence[Job]) -> list[tuple[np.float32, Arrays]]:
    """The value of each function, one number, and its gradient with respect to each of its parameters."""
    values = _together(jobs)

    def objective(ops, parameters, frozen, batch):
        total, made = 0.0, values(ops, parameters, frozen, batch)
        for index in range(len(made)):
            total = total + made[index]
        return total, ops.stack(made)

    batch = _joined([job.batch for job in jobs]) | {"unused": np.zeros(1, np.float32)}
    parameters, frozen = _joined([job.parameters for job in jobs]), _joined([job.frozen for job in jobs])
    numbers, found = engine.gradients(objective, parameters, frozen, batch)
    return [
        (numbers[index], {name: found[f"{index}/{name}"] for name in job.parameters}) for index, job in enumerate(jobs)
    ]
