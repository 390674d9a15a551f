"""What the tests of the losses share: a case is a term's options and its formula in NumPy float64; many cases are computed
in one call of an engine, so that a graph mode compiles once for them all.

Padding and fill rows hold large numbers, which would be noticed in every value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from crossdistil.core.losses.base import UNITS, TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.models.outputs import split_name
from crossdistil.core.models.spec import BertConfig

VALUE, GRADIENT = 1e-6, 1e-4
"""Largest relative difference from the formula; a gradient's is relative to the largest of its tensor."""

LENGTHS, REAL = [4, 2, 3, 3], 3
"""Tokens of each row of a batch, the last one a fill row: real ones have one token, whose attention says nothing."""
PADDING, FILL = 40.0, 100.0
"""Added to what should not count; the teacher's fill rows get it with the other sign."""


@dataclass
class Case:
    """A term, where it is used, and what it should be."""

    options: dict[str, Any]
    context: TermContext
    formula: Callable[..., float]
    """`formula(student, teacher, params, batch, start)`: the value. All are dicts of float64 arrays; `start` is the student
    before finite differences move it, for what takes no gradient."""
    edit: Callable[..., None] = lambda student, teacher, batch: None
    """Changes the random inputs."""
    seed: int = 0
    label: str = "stage.term"
    inputs: tuple = field(init=False)

    def __post_init__(self):
        self.term = LOSSES[self.options["loss"]](**self.options)
        assert self.term.problems(self.context) == []
        self.inputs = self._random_inputs()

    def _random_inputs(self):
        generator = np.random.default_rng(self.seed)
        batch = random_batch(self.context, generator)
        student = {
            name: random_output(name, self.context.student, self.context.outputs, generator)
            for name in sorted(self.term.student_outputs(self.context))
        }
        teacher = {}
        for who, names in self.term.teacher_outputs(self.context).items():
            for name in sorted(names):
                config = self.context.teachers[who]
                output = random_output(name, config, self.context.outputs, generator)
                output[REAL:] -= 2 * FILL
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
    if context.regression:
        labels = generator.normal(2, 1, rows).astype(np.float32)
    elif context.multi_label:
        labels = generator.integers(0, 2, (rows, context.outputs)).astype(np.float32)
        labels[REAL:] = 0
    else:
        labels = generator.integers(0, context.outputs, rows).astype(np.int32)
    label_mask = np.ones(rows, np.float32)
    label_mask[1] = 0
    example_mask = (np.arange(rows) < REAL).astype(np.float32)
    return {"attention_mask": mask, "example_mask": example_mask, "label_mask": label_mask, "labels": labels}


def random_output(name: str, config, outputs: int, generator) -> np.ndarray:
    """An output of a forward pass."""
    rows, length = len(LENGTHS), max(LENGTHS)
    kind = split_name(name)[0]
    if kind == "logits":
        values = generator.normal(0, 2, (rows, outputs))
    elif kind == "hidden":
        values = generator.normal(0, 1, (rows, length, config.hidden_size))
    elif kind == "scores":
        values = generator.normal(0, 2, (rows, config.num_attention_heads, length, length))
    else:
        values = generator.normal(0, 1, (rows, config.num_attention_heads, length, config.head_size))
    for row, tokens in enumerate(LENGTHS):
        if kind == "hidden":
            values[row, tokens:] += PADDING
        elif kind != "logits":
            values[row, :, tokens:] += PADDING
        if kind == "scores":
            values[row, :, :, tokens:] += PADDING
    values[REAL:] += FILL
    return values.astype(np.float32)


def results(engine, cases: dict[str, Case]) -> dict[str, tuple[float, dict[str, np.ndarray]]]:
    """Case -> its value and its gradients by the student's outputs and by the projections, on a backend."""
    functions = [case.term.bound(case.context, case.label) for case in cases.values()]
    parts = [dict(zip(("student", "teacher", "params", "batch"), case.inputs)) for case in cases.values()]
    for case, part in zip(cases.values(), parts):
        part["batch"] = part["batch"] | {"units": np.array(UNITS[case.term.unit](part["batch"]), np.float32)}
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


def check(case: Case, found: tuple[float, dict[str, np.ndarray]]) -> None:
    """The value is the formula's, and the gradients are its finite differences."""
    value, gradients = found
    assert value == pytest.approx(case.value(), rel=VALUE)
    student, _, params, _ = case.inputs
    assert set(gradients) == set(student) | set(params)
    for name, gradient in gradients.items():
        expected = differences(case, name)
        largest = np.abs(expected).max()
        assert largest > 0, f"{name} does not matter"
        assert np.abs(gradient - expected).max() <= GRADIENT * largest, f"the gradient by {name}"


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


def real_tokens(batch):
    """(row, place) of every token of a real example."""
    for row in range(REAL):
        for place in range(int(batch["attention_mask"][row].sum())):
            yield row, place


STUDENT_SIZE, TEACHER_SIZES = (2, 4, 2), {"same": (4, 4, 2), "wide": (4, 6, 2), "heads": (4, 12, 3)}
"""(layers, width, heads) of the models that matches are tested between."""


def against(*names: str, student: tuple[int, int, int] = STUDENT_SIZE) -> TermContext:
    """A job with these teachers."""
    return TermContext(2, False, _config(*student), {name: _config(*TEACHER_SIZES[name]) for name in names})


def _config(layers: int, width: int, heads: int) -> BertConfig:
    return BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=8)


def over(pairs, one_pair, who="wide", project=None, mean=False, kind="hidden"):
    """The sum (or mean) over pairs of layers of `one_pair(S, T, batch)`; a pair of two layers a side gives four arrays."""

    def formula(student, teacher, params, batch, start):
        total = 0.0
        for index, (t, s) in enumerate(pairs):
            layers_t, layers_s = (side if isinstance(side, tuple) else (side,) for side in (t, s))
            own = [student[f"{kind}/{layer}"] for layer in layers_s]
            if project is not None:
                name, activation = project
                name = name.format(index)
                own = [activation(x @ params[name + ".weight"].T + params[name + ".bias"]) for x in own]
            total += one_pair(*own, *[teacher[f"{who}/{kind}/{layer}"] for layer in layers_t], batch)
        return total / len(pairs) if mean else total

    return formula
