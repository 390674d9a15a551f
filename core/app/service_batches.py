"""Requests of many clients as batches of one model: a bounded queue, and the thread that works it off.

The thread takes what waits, a few batches' worth at most, sorts it by length and computes a batch at a time; a request is
answered as soon as its last text is. While it computes the queue fills, so that batches grow with the load; an idle thread starts
at once, or after `max_wait` seconds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from .service_model import Answer, Item

_BATCHES = 4
"""Worth of texts that are sorted by length together: most of what sorting saves, and no request waits for long."""


class Model(Protocol):
    """What computes answers."""

    def answers(self, items: Sequence[Item]) -> Iterator[tuple[list[int], list[Answer]]]:
        """(numbers of items, their answers), a batch at a time."""


class Observer(Protocol):
    """Who counts what is computed; called from the thread."""

    def batch(self, answers: Sequence[Answer]) -> None:
        """A batch was computed."""


class QueueFull(Exception):
    """There are too many texts waiting."""


class Job:
    """A request's texts, and their answers when they are there."""

    def __init__(self, items: Sequence[Item], loop: asyncio.AbstractEventLoop):
        self.items = items
        self.answered: asyncio.Future[list[Answer]] = loop.create_future()
        self.answers: list[Answer | None] = [None] * len(items)
        self.left = len(items)
        self.since = time.monotonic()
        self.is_given_up = False
        """Nobody waits for it any more: it is not computed if that has not begun."""

    def give_up(self) -> None:
        """The client is gone, or its time is over."""
        self.is_given_up = True
        if not self.answered.done():
            self.answered.cancel()


class Batcher:
    """The queue and its thread. `submit` is called in the event loop."""

    def __init__(self, limit: int, batch: int, max_wait: float, observer: Observer):
        """At most `limit` texts wait; `batch` of them are computed together."""
        self._limit, self._batch, self._max_wait, self._observer = limit, batch, max_wait, observer
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return self._waiting

    @property
    def is_full(self) -> bool:
        """Whether not one text more can wait."""
        return self._waiting >= self._limit

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, load: Callable[[], Model]) -> None:
        """Load the model in the thread, and wait for that; raises what loading raises."""
        loaded, failed = threading.Event(), []

        def work() -> None:
            try:
                model = load()
            except BaseException as error:
                failed.append(error)
                return
            finally:
                loaded.set()
            self._work(model)

        self._thread = threading.Thread(target=work, name="inference", daemon=True)
        self._thread.start()
        while not loaded.wait(0.1):  # in steps: a signal is handled between two
            pass
        if failed:
            raise failed[0]

    def serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """Jobs come from this loop."""
        self._loop = loop

    def submit(self, items: Sequence[Item]) -> Job:
        """Queue a request's texts. Raises QueueFull."""
        job = Job(items, self._loop)
        with self._changed:
            if self._waiting + len(items) > self._limit:
                raise QueueFull
            self._jobs.append(job)
            self._waiting += len(items)
            self._changed.notify()
        return job

    def stop(self) -> None:
        """End the thread after the batch that is under way; what is queued has lost who waited for it."""
        with self._changed:
            self._is_stopping = True
            self._jobs.clear()
            self._waiting = 0
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self, model: Model) -> None:
        while (jobs := self._next()) is not None:
            try:
                self._compute(model, jobs)
            except Exception as error:
                # One text that fails must not fail those of others.
                rest = [job for job in jobs if job.left]
                for job in rest:
                    job.answers, job.left = [None] * len(job.items), len(job.items)
                    try:
                        if len(rest) == 1:
                            raise error
                        self._compute(model, [job])
                    except Exception as own:
                        self._tell(_fail, job, own)

    def _next(self) -> list[Job] | None:
        """The jobs of some batches, or None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_stopping)
            if not self._jobs:
                return None
            if self._max_wait and self._waiting < self._batch:
                rest = self._jobs[0].since + self._max_wait - time.monotonic()
                self._changed.wait_for(lambda: self._waiting >= self._batch or self._is_stopping, max(0.0, rest))
            jobs, texts = [], 0
            while self._jobs and (not jobs or texts + len(self._jobs[0].items) <= _BATCHES * self._batch):
                job = self._jobs.popleft()
                self._waiting -= len(job.items)
                if not job.is_given_up:
                    jobs.append(job)
                    texts += len(job.items)
            return jobs

    def _compute(self, model: Model, jobs: list[Job]) -> None:
        places = [(job, number) for job in jobs for number in range(len(job.items))]
        for numbers, answers in model.answers([job.items[number] for job, number in places]):
            done = []
            for place, answer in zip(numbers, answers, strict=True):
                job, number = places[place]
                job.answers[number] = answer
                job.left -= 1
                if not job.left:
                    done.append(job)
            self._observer.batch(answers)
            self._tell(_finish, done)

    def _tell(self, function: Callable, *arguments: object) -> None:
        if not self._loop.is_closed():  # else it has ended without waiting for its answers
            self._loop.call_soon_threadsafe(function, *arguments)


def _finish(jobs: list[Job]) -> None:
    for job in jobs:
        if not job.answered.done():
            job.answered.set_result(job.answers)


def _fail(job: Job, error: Exception) -> None:
    if not job.answered.done():
        job.answered.set_exception(error)
