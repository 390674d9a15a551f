"""What one line of the log is made of: the sums over the steps since the line before. They are part of a saved state."""

from __future__ import annotations

from typing import Any

import numpy as np

from .objective import Objective


class LogWindow:
    """The interval of the next log line, of a stage of `total` steps."""

    def __init__(self, objective: Objective, total: int):
        self._objective, self._total = objective, total
        self._notes: dict[str, Any] = {}

    def open(self, step: int, tokens: int, seconds: float) -> dict[str, Any]:
        """Begin after `step`, when so many tokens and seconds were over; returns what a saved state keeps, which goes on as steps
        are added."""
        self._notes = {"step": step, "sum": 0.0, "tokens": tokens, "seconds": seconds, "watched": _nothing_watched()}
        return self._notes

    def restore(self, notes: dict[str, Any]) -> None:
        """Go on with the notes of a saved state, which are kept up to date."""
        notes.setdefault("watched", _nothing_watched())  # a state of an earlier version has none
        self._notes = notes

    def add(self, values: np.ndarray, step: int) -> None:
        """Add the values of the steps after `step`, (steps, values) as a train step gives them."""
        # In float64 the sum is exact, so that it is the same wherever the run was interrupted.
        minimised = values[:, : 1 + len(self._objective.names)]
        self._notes["sum"] = (minimised.sum(axis=0, dtype=np.float64) + np.asarray(self._notes["sum"])).tolist()
        self._watch(values, step)

    def means(self, step: int, tokens: int, seconds: float) -> dict[str, Any]:
        """Of the steps up to `step`, when so many tokens and seconds were over: fields of `core.events.Logged`."""
        loss, *terms = (value / (step - self._notes["step"]) for value in self._notes["sum"])
        tokens_per_second = (tokens - self._notes["tokens"]) / max(seconds - self._notes["seconds"], 1e-9)
        return {
            "loss": loss,
            "terms": dict(zip(self._objective.names, terms, strict=True)),
            "tokens_per_second": round(tokens_per_second, 1),
            **self._shown(),
        }

    def _watch(self, values: np.ndarray, step: int) -> None:
        """Add up what is only shown. Each part is a float32, so that its sum in float64 is exact in any order too."""
        watched, norms, indices = self._notes["watched"], values[:, -1], list(self._objective.entropies)
        known = norms[np.isfinite(norms)].astype(np.float64)  # a loss scale leaves out the others
        watched["norms"], watched["norm"] = watched["norms"] + len(known), watched["norm"] + float(known.sum())
        entropies = values[:, 1 + len(self._objective.names) : -1]
        watched["steps"] += len(values)
        watched["entropies"] = (entropies.sum(axis=0, dtype=np.float64) + np.asarray(watched["entropies"])).tolist()
        for number, row in enumerate(entropies):
            weights = self._objective.weights(step + number, self._total)[indices]
            watched["in_loss"] += float((row * weights).sum(dtype=np.float64))

    def _shown(self) -> dict[str, Any]:
        """The means of what is only shown."""
        watched, names = self._notes["watched"], self._objective.names
        steps = max(watched["steps"], 1)
        entropies = [value / steps for value in np.atleast_1d(watched["entropies"]).tolist()]
        return {
            "gradient_norm": watched["norm"] / watched["norms"] if watched["norms"] else None,
            "teacher_entropy": {names[index]: value for index, value in zip(self._objective.entropies, entropies)},
            "loss_entropy": watched["in_loss"] / steps,
        }


def _nothing_watched() -> dict[str, Any]:
    return {"steps": 0, "norm": 0.0, "norms": 0, "entropies": 0.0, "in_loss": 0.0}
