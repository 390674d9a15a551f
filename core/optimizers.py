"""Which optimizer, with which numbers; the arithmetic itself is each backend's.

With g the clipped gradient, t the step from 1, and one learning rate a step:
  adamw      m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2
             p = p (1 - lr wd) - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)       (Loshchilov and Hutter 2019)
  bert_adam  the same m and v;  p = p - lr (m / (sqrt(v) + eps) + wd p)               (Devlin et al. 2018, their code)
Gradients are clipped by their global norm: g * min(1, limit / (norm + 1e-6)).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

CLIP_EPSILON = 1e-6


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and its constants; the learning rate comes with each step."""

    name: str
    """`adamw` or `bert_adam`."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-6
    weight_decay: float = 0.01
    max_gradient_norm: float | None = 1.0


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to a parameter: not to biases and not to layer normalisation."""
    return not (name.endswith("bias") or "LayerNorm" in name)


def split_by_decay(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Parameter names with and without weight decay, in their given order."""
    names = list(names)
    return [n for n in names if is_decayed(n)], [n for n in names if not is_decayed(n)]
