"""How the states of a text's tokens become one vector: a sentence embedding (Reimers and Gurevych 2019, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from ..ops import Ops, Tensor
from .components import last_token, mean_of_tokens

MODES = ("mean", "cls", "last")
EPSILON = 1e-12
"""Inside the square root of a length: the gradient of a norm is finite at 0."""


@dataclass(frozen=True)
class Pooling:
    """What is taken of the states behind the last layer."""

    mode: str = "mean"
    """`mean` of all tokens, special ones among them, `cls`, the first one, or `last`, the last that is no padding."""
    normalised: bool = False
    """Whether the vector is scaled to length 1."""

    def __str__(self) -> str:
        return f"{self.mode}{', length 1' if self.normalised else ''}"


def make_pooling(pooling: Pooling, positions: int):
    """`pool(ops, x, mask) -> (batch, width)` in float32, of the states (batch, length, width) and the mask (batch, length) of a
    model that has so many `positions`."""
    mode, normalised = pooling.mode, pooling.normalised

    def pool(ops, x, mask):
        if mode == "mean":
            vectors = ops.float32(mean_of_tokens(ops, x, mask))
        elif mode == "cls":
            vectors = ops.float32(x[:, 0])
        else:
            vectors = last_token(ops, x, mask, positions)
        return to_length_one(ops, vectors) if normalised else vectors

    return pool


def to_length_one(ops: Ops, x: Tensor) -> Tensor:
    """The rows of (batch, width), each scaled to length 1; rows of zeros stay zeros."""
    return x / ops.reshape(ops.sqrt(ops.sum(x * x, axis=1) + EPSILON), (-1, 1))
