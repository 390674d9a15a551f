"""The answers of a file by how sure it is of them, in groups of the same size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_GROUPS = 5


def about_group(
    chosen: np.ndarray, same: np.ndarray, gold: np.ndarray, teacher_right: np.ndarray, student_right: np.ndarray
) -> dict[str, Any]:
    """What is said of a group, the `chosen` of all (n,) booleans: how often both say the `same`, and of those that have a label
    of their own (`gold`) how often each is right, or how far."""
    about: dict[str, Any] = {"texts": int(chosen.sum()), "agreement": float(same[chosen].mean())}
    if (labelled := chosen & gold).any():
        right = float(teacher_right[labelled].mean()), float(student_right[labelled].mean())
        about |= {"labelled": int(labelled.sum()), "teacher_right": right[0], "student_right": right[1]}
    return about


def by_confidence(sure: np.ndarray, group: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
    """`by_confidence`, with what `group` says of each group (booleans), where the confidence (n,) of all is known and differs."""
    if np.isnan(sure).any() or len(np.unique(sure)) < 2:
        return {}
    edges = np.unique(np.quantile(sure, np.linspace(0, 1, _GROUPS + 1)[1:-1], method="lower"))
    places = np.searchsorted(edges, sure, side="left")
    groups = [
        {"from": float(sure[places == place].min()), "to": float(sure[places == place].max()), **group(places == place)}
        for place in np.unique(places)
    ]
    return {"by_confidence": groups}
