"""Tells how many of many things are done: a live bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .progress import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_SECONDS = 10  # between two lines of a log


class CountProgress:
    """Use it as a context manager, and call `count(done, total)`."""

    def __init__(self, title: str, things: str, console: Console):
        self._title, self._things, self._console = title, things, console
        self._bar: Progress | None = None
        self._task = None
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> CountProgress:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task(self._title, total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def count(self, done: float, total: float) -> None:
        """`done` of `total` are finished."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif time.monotonic() - self._printed >= _SECONDS:
            self._printed = time.monotonic()
            seconds = (self._printed - self._started) * (total - done) / done if done else 0
            left = f", {duration(seconds)} left" if seconds >= 1 else ""
            self._console.print(f"{self._title}: {done:,} of {total:,} {self._things}{left}")
