"""What people are shown of a cross-entropy with a teacher: the Kullback-Leibler divergence, by SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter
from scipy.special import expit, rel_entr, softmax

from crossdistil.core.kinds.known_kinds import ONE_CLASS, SEVERAL_LABELS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.reference import ReferenceOps

STUDENT, TEACHER = (np.random.default_rng(seed).normal(0, 3, (6, 4)) for seed in (1, 2))
MASK = np.array([1, 1, 1, 1, 1, 0], float)
BATCH = {"example_mask": MASK, "label_mask": MASK, "labels": np.array([0, 1, 2, 3, 0, 0])}


def values(options: dict, student: np.ndarray = STUDENT, multi_label: bool = False) -> tuple[float, float]:
    """The term and the teacher's entropy, as sums over the real rows."""
    term = TypeAdapter(LOSSES[options["loss"]]).validate_python(options)
    context = TermContext(4, SEVERAL_LABELS if multi_label else ONE_CLASS, None, {"teacher": None})
    arguments = ReferenceOps(), {}, {"logits": student}, {"logits": TEACHER}, BATCH
    return float(term.bound(context, "t")(*arguments)), float(term.bound_entropy(context)(*arguments))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
@pytest.mark.parametrize("squared", [True, False])
def test_kd_ce_above_the_teachers_entropy_is_the_divergence(temperature, reduction, squared):
    value, entropy = values(
        {"loss": "kd_ce", "temperature": temperature, "reduction": reduction, "temperature_squared": squared}
    )
    p, q = softmax(TEACHER / temperature, axis=1), softmax(STUDENT / temperature, axis=1)
    expected = (rel_entr(p, q).sum(axis=1) * MASK).sum() * (temperature**2 if squared else 1)
    assert value - entropy == pytest.approx(expected / (4 if reduction == "mean" else 1), rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kd_multi_label_above_the_teachers_entropy_is_the_divergence(temperature):
    value, entropy = values({"loss": "kd_multi_label", "temperature": temperature}, multi_label=True)
    p, q = expit(TEACHER / temperature), expit(STUDENT / temperature)
    both = rel_entr(p, q) + rel_entr(1 - p, 1 - q)
    assert value - entropy == pytest.approx((both.mean(axis=1) * MASK).sum() * temperature**2, rel=1e-6)


@pytest.mark.parametrize("schedule", ["constant", {"kind": "flsw", "beta": 1, "gamma": 1}, {"kind": "cwsm", "beta": 1}])
@pytest.mark.parametrize("shift", [True, False])
def test_a_student_that_is_its_teacher_is_at_zero(schedule, shift):
    options = {"loss": "kd_ce", "temperature": 8, "temperature_schedule": schedule, "probability_shift": shift}
    if not shift:
        value, entropy = values(options, TEACHER)
        assert value == pytest.approx(entropy, rel=1e-6) and entropy > 0
    value, entropy = values(options)
    assert value > entropy > 0


def test_what_is_no_cross_entropy_with_a_teacher_has_none():
    for name in ("hard_label", "kd_mse", "hidden_mse", "word_kl"):
        assert LOSSES[name].model_construct(loss=name).entropy(TermContext(4, ONE_CLASS)) is None
