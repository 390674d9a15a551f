"""Temperatures that differ from example to example (Wen et al. 2019, arXiv 1911.07471, as TextBrewer has them).

With T the temperature of the term, v and t the student's and the teacher's logits of an example, and the mean over the real
examples of the whole effective batch, however it is cut into micro-batches:
  flsw   w = (1 - cos(v, t))^gamma                     (focal loss style weights)
  cwsm   w = 1 / (max softmax(v) + 0.001)              (confidence weighted by the student's maximum)
  tau = T + beta (mean w - w)
An example that the student gets wrong gets a low temperature, and so targets that are sharp. No gradient flows through tau.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, model_validator

from ..number_keys import NumberKeys
from .base import is_real

# TextBrewer's, added to a logits vector's length, and to a probability.
FLSW_EPSILON, CWSM_EPSILON = 1e-4, 1e-3
_MOST_FACTORS = 8


class TemperatureSchedule(NumberKeys):
    """`constant`, or `{kind: flsw, beta: 1, gamma: 2}`, or `{kind: cwsm, beta: 1}`."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    kind: Literal["constant", "flsw", "cwsm"] = "constant"
    """One temperature, or weights by focal loss or by confidence."""
    beta: float | None = Field(None, gt=0, allow_inf_nan=False)
    """How far temperatures spread."""
    gamma: float | None = Field(None, gt=0, allow_inf_nan=False)
    """The exponent of `flsw`."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _what_a_kind_takes(self):
        takes = {"constant": (), "flsw": ("beta", "gamma"), "cwsm": ("beta",)}[self.kind]
        for name in ("beta", "gamma"):
            if name in takes and getattr(self, name) is None:
                raise ValueError(f"{self.kind} needs {name}, for example {{kind: {self.kind}, " + _example(takes) + "}")
            if name not in takes and getattr(self, name) is not None:
                raise ValueError(f"{self.kind} takes no {name}")
        return self

    def lowest(self, temperature: float, classes: int) -> float:
        """A bound that no example's temperature is below."""
        if self.kind == "constant":
            return temperature
        # 1 - cos is 0 to 2, and the largest probability is 1 / classes to 1.
        spread = 2.0**self.gamma if self.kind == "flsw" else 1 / (1 / classes + CWSM_EPSILON) - 1 / (1 + CWSM_EPSILON)
        return temperature - self.beta * spread


def _example(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name}: 1" for name in names)


def make_sums(schedule: TemperatureSchedule):
    """`sums(ops, student, teacher, batch) -> [sum of w, number]` of the real examples with logits (B, C); not of a constant."""
    weigh = _make_weigh(schedule)

    def sums(ops, student, teacher, batch):
        mask = batch["example_mask"]
        return [ops.sum(weigh(ops, ops.stop_gradient(student), teacher) * mask), ops.sum(mask)]

    return sums


def make_soften(schedule: TemperatureSchedule, temperature: float):
    """`soften(ops, student, teacher, batch, sums) -> (student / tau, teacher / tau, tau^2)` of logits (B, C); the last is a
    number, or (B,) where examples have temperatures of their own, from the `sums` (2,) of the whole effective batch."""
    if schedule.kind == "constant":
        inverse, square = 1.0 / temperature, temperature**2

        def soften(ops, student, teacher, batch, sums):
            return student * inverse, teacher * inverse, square

        return soften

    weigh, beta = _make_weigh(schedule), schedule.beta

    def soften_each(ops, student, teacher, batch, sums):
        weights = weigh(ops, ops.stop_gradient(student), teacher)  # (B,)
        mask = is_real(ops, batch)
        # A batch may consist of padding rows only.
        tau = (sums[0] / (sums[1] + 1e-12) - weights) * beta + temperature
        # What padding rows hold must not make numbers that are not finite: a mask does not remove those.
        tau = ops.stop_gradient(tau * mask + (1.0 - mask))
        inverse = ops.reshape(1.0 / tau, (-1, 1))
        return student * inverse, teacher * inverse, tau * tau

    return soften_each


def _make_weigh(schedule: TemperatureSchedule):
    return _focal(schedule.gamma) if schedule.kind == "flsw" else _confidence


def _focal(gamma: float):
    factors = int(gamma) if gamma == int(gamma) and gamma <= _MOST_FACTORS else 0

    def weigh(ops, student, teacher):
        lengths = (_length(ops, student) + FLSW_EPSILON) * (_length(ops, teacher) + FLSW_EPSILON)
        distance = ops.relu(1.0 - ops.sum(student * teacher, axis=1) / lengths)
        if factors == 0:
            return ops.exp(ops.log(distance + 1e-30) * gamma)
        # More exact than exp and log on some backends.
        power = distance
        for _ in range(factors - 1):
            power = power * distance
        return power

    return weigh


def _length(ops, x):
    return ops.sqrt(ops.sum(x * x, axis=1))


def _confidence(ops, student, teacher):
    probabilities = ops.softmax(student)
    return 1.0 / (ops.pick(probabilities, ops.argmax(probabilities)) + CWSM_EPSILON)
