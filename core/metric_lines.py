"""The sink that writes a run folder's lines: metrics.jsonl, a line per logged step or evaluation, and watched.jsonl beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .events import Evaluated, Logged, Sink

Append = Callable[[dict[str, Any]], None]


class MetricLines(Sink):
    """Hands each line to `append`, which adds it to metrics.jsonl. What is measured and what is minimised is there; what is only
    looked at goes to `append_watched`."""

    def __init__(self, append: Append, append_watched: Append):
        self._append, self._append_watched = append, append_watched

    def logged(self, event: Logged) -> None:
        self._append(
            {
                **_place(event),
                "loss": event.loss,
                "terms": event.terms,
                "learning_rate": event.learning_rate,
                "tokens_per_second": event.tokens_per_second,
            }
        )
        lowest = {"loss": event.loss_entropy, "terms": event.teacher_entropy}
        self._append_watched({**_place(event), "gradient_norm": event.gradient_norm, "teacher_entropy": lowest})

    def evaluated(self, event: Evaluated) -> None:
        self._append({**_place(event), "evaluation": {"dev": event.metrics}})


def _place(event: Logged | Evaluated) -> dict[str, Any]:
    return {"step": event.step, "stage": event.stage, "epoch": event.epoch}
