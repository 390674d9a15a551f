"""The sink that writes a run folder's metrics.jsonl: a line per logged step or evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .events import Evaluated, Logged, Sink


class MetricLines(Sink):
    """Hands each line to `append`, which adds it to the file."""

    def __init__(self, append: Callable[[dict[str, Any]], None]):
        self._append = append

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

    def evaluated(self, event: Evaluated) -> None:
        self._append({**_place(event), "evaluation": {"dev": event.metrics}})


def _place(event: Logged | Evaluated) -> dict[str, Any]:
    return {"step": event.step, "stage": event.stage, "epoch": event.epoch}
