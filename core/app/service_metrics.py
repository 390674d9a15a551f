"""What a service counts, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .service_model import Answer

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # memory, processor time, open files
        common = {"registry": self._registry, "namespace": "crossdistil"}
        self._requests = Counter("requests", "Answers to requests.", ["path", "status"], **common)
        self._seconds = Histogram("request_seconds", "From a request's head to its answer.", ["path"], buckets=_SECONDS, **common)
        self._sizes = Histogram("batch_texts", "Texts that were computed together.", buckets=_SIZES, **common)
        self._tokens = Counter("tokens", "Tokens of the texts that were computed.", **common)
        self._cut = Counter("truncated_texts", "Texts that are longer than what the model is given.", **common)
        self._queue = Gauge("queue_texts", "Texts that wait.", **common)
        self.answered = 0
        """Requests, whatever the status."""

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Whenever it is asked for, `waiting()` is how many texts are in the queue."""
        self._queue.set_function(waiting)

    def request(self, path: str, status: int, seconds: float | None = None) -> None:
        """A request was answered; `path` is one of a few, whatever the client asked for."""
        self.answered += 1
        self._requests.labels(path, str(status)).inc()
        if seconds is not None:
            self._seconds.labels(path).observe(seconds)

    def batch(self, answers: Sequence[Answer]) -> None:
        """A batch was computed."""
        self._sizes.observe(len(answers))
        self._tokens.inc(sum(answer.tokens for answer in answers))
        self._cut.inc(sum(answer.truncated for answer in answers))

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
