"""How a loss term is held against its formula: random small inputs whose padding would be noticed, the term's values and
gradients on a backend, and finite differences of the formula in NumPy float64.

Many cases are computed in one call of an engine, so that a graph mode compiles once for them all. Padding and padding rows hold
large numbers, which would be noticed in every value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..models.outputs import split_name
from .base import LossTerm, TermContext

VALUE, GRADIENT = 1e-6, 1e-4
"""Largest relative difference from the formula; a gradient's is relative to the largest of its tensor."""

LENGTHS, REAL = [4, 2, 3, 3], 3
"""Tokens of each row of a batch, the last one a padding row: real ones have one token, whose attention says nothing."""
STRAY = (20.0, 40.0)
"""Added to padding and to padding rows, which should not count; the teacher's padding rows get the second with the other sign."""
KINDS = ("logits", "hidden", "first", "scores", "queries", "keys", "values")
"""Of outputs that there are random ones of."""


def _unchanged(student, teacher, batch) -> None:
    """The random inputs as they are."""


@dataclass
class Case:
    """A term, where it is used, and what it should be."""

    term: LossTerm
    context: TermContext
    formula: Callable[..., float]
    """`formula(student, teacher, params, batch, start)`: the value. All are dicts of float64 arrays; `start` is the student
    before finite differences move it, for what takes no gradient."""
    edit: Callable[..., None] = _unchanged
    """Changes the random inputs."""
    seed: int = 0
    label: str = "stage.term"
    stray: tuple[float, float] = STRAY
    inputs: tuple = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = self._random_inputs()

    def _random_inputs(self):
        generator = np.random.default_rng(self.seed)
        batch = random_batch(self.context, generator)
        student = {
            name: random_output(name, self.context.student, self.context.outputs, generator, self.stray)
            for name in sorted(self.term.student_outputs(self.context))
        }
        teacher = {}
        for who, names in self.term.teacher_outputs(self.context).items():
            for name in sorted(names):
                config = self.context.teachers[who]
                output = random_output(name, config, self.context.outputs, generator, self.stray)
                output[REAL:] -= 2 * self.stray[1]
                teacher[f"{who}/{name}"] = output
        if any(key.endswith("/logits") for key in teacher):
            teacher["logits"] = np.mean([x for key, x in teacher.items() if key.endswith("/logits")], axis=0)
        params = {
            name: generator.normal(0, 0.7, tensor.shape).astype(np.float32)
            for name, tensor in self.term.projections(self.context, self.label).items()
        }
        self.edit(student, teacher, batch)
        return student, teacher, params, batch

    def value(self, **moved) -> float:
        """The formula's value, where some tensors are replaced by others."""
        student, teacher, params, batch = (
            {name: array.astype(np.float64) for name, array in part.items()} for part in self.inputs
        )
        start = dict(student)
        for name, array in moved.items():
            (params if name in params else student)[name] = array
        return float(self.formula(student, teacher, params, batch, start))


def random_batch(context: TermContext, generator) -> dict[str, np.ndarray]:
    """Masks and labels; the second example has no label, and what stands there would be noticed."""
    rows = len(LENGTHS)
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.float32)
    labels = context.kind.drawn(generator, rows, context.outputs)
    if labels.ndim > 1:
        labels[REAL:] = 0
    label_mask = np.ones(rows, np.float32)
    label_mask[1] = 0
    example_mask = (np.arange(rows) < REAL).astype(np.float32)
    return {"attention_mask": mask, "example_mask": example_mask, "label_mask": label_mask, "labels": labels}


def random_output(name: str, config, outputs: int, generator, stray: tuple[float, float] = STRAY) -> np.ndarray:
    """An output of a forward pass."""
    rows, length = len(LENGTHS), max(LENGTHS)
    kind = split_name(name)[0]
    if kind == "logits":
        values = generator.normal(0, 2, (rows, outputs))
    elif kind == "hidden":
        values = generator.normal(0, 1, (rows, length, config.hidden_size))
    elif kind == "first":
        values = generator.normal(0, 1, (rows, config.hidden_size))
    elif kind == "scores":
        values = generator.normal(0, 2, (rows, config.num_attention_heads, length, length))
    else:
        values = generator.normal(0, 1, (rows, config.num_attention_heads, length, config.head_size))
    for row, tokens in enumerate(LENGTHS):
        if kind == "hidden":
            values[row, tokens:] += stray[0]
        elif kind not in ("logits", "first"):
            values[row, :, tokens:] += stray[0]
        if kind == "scores":
            values[row, :, :, tokens:] += stray[0]
    values[REAL:] += stray[1]
    return values.astype(np.float32)


def results(engine, cases: Mapping[Any, Case]) -> dict[Any, tuple[float, dict[str, np.ndarray]]]:
    """Case -> its value and its gradients with respect to the student's outputs and the projections, on a backend."""
    functions = [case.term.bound(case.context, case.label) for case in cases.values()]
    parts = [dict(zip(("student", "teacher", "params", "batch"), case.inputs)) for case in cases.values()]
    for case, part in zip(cases.values(), parts):
        part["batch"] = part["batch"] | {"units": np.array(case.term.counter(case.context)(part["batch"]), np.float32)}
    names = {kind: [list(part[kind]) for part in parts] for kind in parts[0]}
    arrays: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in names}
    keys: dict[str, list[list[str]]] = {kind: [] for kind in names}
    for index, part in enumerate(parts):
        for kind, tensors in part.items():
            own = {name: f"{index}/{kind}/{name}" for name in tensors}
            keys[kind].append(list(own.values()))
            arrays[kind] |= {own[name]: array for name, array in tensors.items()}
    student_names, student_keys = names["student"], keys["student"]
    teacher_names, teacher_keys = names["teacher"], keys["teacher"]
    params_names, params_keys = names["params"], keys["params"]
    batch_names, batch_keys = names["batch"], keys["batch"]

    def chosen(tensors, short, long):
        found = {}
        for index in range(len(short)):
            found[short[index]] = tensors[long[index]]
        return found

    def objective(ops, parameters, frozen, tensors):
        total, values = 0.0, []
        for index in range(len(functions)):
            batch = chosen(tensors, batch_names[index], batch_keys[index])
            student = chosen(parameters, student_names[index], student_keys[index])
            teacher = chosen(frozen, teacher_names[index], teacher_keys[index])
            params = chosen(parameters, params_names[index], params_keys[index])
            value = functions[index](ops, params, student, teacher, batch) / batch["units"]
            total = total + value
            values.append(value)
        return total, ops.stack(values)

    values, gradients = engine.gradients(objective, arrays["student"] | arrays["params"], arrays["teacher"], arrays["batch"])
    return {
        name: (
            float(values[index]),
            {
                short: gradients[long]
                for kind in ("student", "params")
                for short, long in zip(names[kind][index], keys[kind][index])
            },
        )
        for index, name in enumerate(cases)
    }


@dataclass(frozen=True)
class Deviation:
    """How far a term is from its formula."""

    expected: float
    value: float
    gradients: dict[str, float]
    """Tensor -> the largest difference of the gradient with respect to it, relative to its largest entry; NaN where the formula
    does not depend on it."""

    @property
    def relative(self) -> float:
        """The difference of the values."""
        return abs(self.value - self.expected) / max(abs(self.expected), 1e-30)

    @property
    def agrees(self) -> bool:
        """Whether all are within the limits."""
        return self.relative <= VALUE and all(each <= GRADIENT for each in self.gradients.values())


def deviation(case: Case, found: tuple[float, dict[str, np.ndarray]]) -> Deviation:
    """What `results` found on a backend against the formula and its finite differences."""
    value, gradients = found
    apart = {}
    for name, gradient in gradients.items():
        expected = differences(case, name)
        largest = np.abs(expected).max()
        apart[name] = float(np.abs(gradient - expected).max() / largest) if largest > 0 else float("nan")
    return Deviation(case.value(), value, apart)


def differences(case: Case, name: str) -> np.ndarray:
    """Central differences of the formula by every entry of a tensor."""
    tensor = {**case.inputs[0], **case.inputs[2]}[name].astype(np.float64)
    slopes = np.zeros_like(tensor)
    for place in np.ndindex(tensor.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = tensor.copy()
            moved[place] += step
            ends.append(case.value(**{name: moved}))
        slopes[place] = (ends[0] - ends[1]) / 2e-6
    return slopes
