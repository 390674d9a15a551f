"""The largest logits of each row, and what the others come to, in place of all of them: what a cache of a teacher with many
classes keeps (`teacher_cache.top_k`).

With z the logits (C,) and K the places of the k largest: the kept logits stay as they are, and each of the others becomes
    log(sum over c not in K of exp z_c) - log(C - k),
so that the k probabilities stay the teacher's own, and what is left of 1 is shared evenly by the other classes. A temperature
then divides these logits as it would all others. With k = C nothing changes.
"""

from __future__ import annotations

import numpy as np


def packed_size(classes: int, kept: int) -> int:
    """How many numbers a row takes: the kept logits, their classes, and the logit of each other class."""
    return classes if kept >= classes else 2 * kept + 1


def packed(logits: np.ndarray, kept: int) -> np.ndarray:
    """(..., C) to (..., `packed_size`): the largest logits, the first of equals first; their classes; what each other one has."""
    classes = logits.shape[-1]
    if kept >= classes:
        return logits
    order = np.argsort(-logits, axis=-1, kind="stable")
    places, others = order[..., :kept], np.take_along_axis(logits, order[..., kept:], axis=-1).astype(np.float64)
    largest = others.max(axis=-1, keepdims=True)
    mass = largest + np.log(np.exp(others - largest).sum(axis=-1, keepdims=True))
    rest = (mass - np.log(classes - kept)).astype(logits.dtype)
    return np.concatenate([np.take_along_axis(logits, places, axis=-1), places.astype(logits.dtype), rest], axis=-1)


def unpacked(numbers: np.ndarray, classes: int, kept: int) -> np.ndarray:
    """(..., `packed_size`) to (..., C). What is 0 throughout, as padding is, stays 0."""
    if kept >= classes:
        return numbers
    logits = np.repeat(numbers[..., -1:], classes, axis=-1)
    np.put_along_axis(logits, numbers[..., kept : 2 * kept].astype(np.int64), numbers[..., :kept], axis=-1)
    return logits
