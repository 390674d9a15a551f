"""What the tests of the losses share: a case is a term's options and its formula in NumPy float64 (`core.losses.checking`)."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.losses import checking
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.losses.checking import GRADIENT, LENGTHS, REAL, VALUE, deviation, results
from crossdistil.core.models.families.bert import BertConfig

__all__ = ["LENGTHS", "REAL", "VALUE", "Case", "against", "check", "over", "real_tokens", "results"]


class Case(checking.Case):
    """A case of a loss of the catalogue, by its options."""

    def __init__(self, options, *arguments, **more):
        super().__init__(LOSSES[options["loss"]](**options), *arguments, **more)
        assert not self.term.problems(self.context), self.term.problems(self.context)


def check(case: Case, found: tuple[float, dict[str, np.ndarray]]) -> None:
    """The value is the formula's, and the gradients are its finite differences."""
    student, _, params, _ = case.inputs
    assert set(found[1]) == set(student) | set(params)
    apart = deviation(case, found)
    assert apart.value == pytest.approx(apart.expected, rel=VALUE)
    for name, difference in apart.gradients.items():
        assert difference <= GRADIENT, f"the gradient with respect to {name}"


def real_tokens(batch):
    """(row, place) of every token of a real example."""
    for row in range(REAL):
        for place in range(int(batch["attention_mask"][row].sum())):
            yield row, place


STUDENT_SIZE, TEACHER_SIZES = (2, 4, 2), {"same": (4, 4, 2), "wide": (4, 6, 2), "heads": (4, 12, 3)}
"""(layers, width, heads) of the models that matches are tested between."""


def against(*names: str, student: tuple[int, int, int] = STUDENT_SIZE) -> TermContext:
    """A job with these teachers."""
    return TermContext(2, ONE_CLASS, _config(*student), {name: _config(*TEACHER_SIZES[name]) for name in names})


def _config(layers: int, width: int, heads: int) -> BertConfig:
    return BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=8)


def over(pairs, one_pair, who="wide", project=None, mean=False, kind="hidden", taught=None):
    """The sum (or mean) over pairs of layers of `one_pair(S, T, batch)`; a pair of two layers a side gives four arrays.
    The teacher's outputs are of the kind `taught` if that is another."""

    def formula(student, teacher, params, batch, start):
        total = 0.0
        for index, (t, s) in enumerate(pairs):
            layers_t, layers_s = (side if isinstance(side, tuple) else (side,) for side in (t, s))
            own = [student[f"{kind}/{layer}"] for layer in layers_s]
            if project is not None:
                name, activation = project
                name = name.format(index)
                own = [activation(x @ params[name + ".weight"].T + params[name + ".bias"]) for x in own]
            total += one_pair(*own, *[teacher[f"{who}/{taught or kind}/{layer}"] for layer in layers_t], batch)
        return total / len(pairs) if mean else total

    return formula
