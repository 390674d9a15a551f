"""Which optimizer, with which numbers, over which parameters; the arithmetic itself is each backend's, or a plugin's.

With g the clipped gradient, t the step from 1, and one learning rate a step:
  adamw      m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
             p = p (1 - lr wd) - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)       (Loshchilov and Hutter 2019)
  bert_adam  the same m and v;  p = p - lr (m / (sqrt(v) + eps) + wd p)               (Devlin et al. 2018, their code)
  adadelta   g = g + wd p;  v = b2 v + (1-b2) g^2;  d = sqrt(u + eps) / sqrt(v + eps) g
             u = b2 u + (1-b2) d^2;  p = p - lr d                     (Zeiler 2012, who calls b2 rho; his lr is 1)
Adadelta's decay is part of the gradient, as in torch.optim.Adadelta: apart from it, a learning rate of 1 would make it huge.
Gradients are clipped by their global norm: g * min(1, limit / (norm + 1e-6)).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .models.known_families import is_norm

CLIP_EPSILON = 1e-6


@dataclass(frozen=True)
class OwnUpdate:
    """The arithmetic of an optimizer that is a plugin's, as `core.plugins.register_optimizer` describes it."""

    function: Callable[..., Any]
    """`f(ops, parameter, gradient, state, now) -> (parameter, state)`."""
    kinds: tuple[str, ...]
    """What it keeps of each parameter: names of tensors of the parameter's shape, which begin as zeros."""


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer, its constants, and what it trains; the learning rate comes with each step."""

    name: str
    """`adamw`, `bert_adam`, `adadelta`, or any name for an `own` one."""
    beta1: float = 0.9
    beta2: float = 0.999  # adadelta's rho
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    max_gradient_norm: float | None = 1.0
    trainable: frozenset[str] | None = None
    """Names of the parameters that are changed; None is all. The others get no update and no decay."""
    clip_frozen: bool = False
    """Count the gradients of the other parameters in the norm that is clipped (BERT-of-Theseus's published code)."""
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    """Parameter -> its learning rate over the step's, where that is not 1."""
    own: OwnUpdate | None = None
    """An optimizer of a plugin, in place of one of ours."""

    def is_trained(self, name: str) -> bool:
        """Whether a parameter is changed."""
        return self.trainable is None or name in self.trainable

    def is_differentiated(self, name: str) -> bool:
        """Whether the gradient by a parameter is needed."""
        return self.clip_frozen or self.is_trained(name)

    def split(self, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of `parameters` that a gradient is needed by, and the others."""
        changing = {name: value for name, value in parameters.items() if self.is_differentiated(name)}
        return changing, {name: value for name, value in parameters.items() if name not in changing}

    def rate_factor(self, name: str) -> float:
        """A parameter's learning rate over the step's."""
        return self.rate_factors.get(name, 1.0)


    def constants(self) -> dict[str, float]:
        """What an own update is told that is the same in every step."""
        return {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}

    def numbers(self, step: int) -> dict[str, float]:
        """What an own update is told of a step, counted from 1, beside its learning rate: the bias corrections, from float64."""
        return {"step": float(step), "correction1": 1.0 - self.beta1**step, "correction2": 1.0 - self.beta2**step}


def held(beta: float) -> float:
    """`beta` as a kernel holds it that has its constants in float32: of 0.999, 1 - beta is 1.3e-5 smaller there, relatively."""
    return float(np.float32(beta))


def correction(beta: float, step: int) -> float:
    """1 - beta^step for such a kernel, whose moments are sums of (1 - beta) beta^i of its own beta: with that of float64 every
    update of AdamW would be 6e-6 too large, as sqrt(v) is too small."""
    return 1.0 - held(beta) ** step


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to a parameter: not to biases and not to layer normalisation."""
    return not (name.endswith("bias") or is_norm(name))
