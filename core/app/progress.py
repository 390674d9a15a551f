"""Tells how far training is: a live bar in a terminal, plain lines anywhere else."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def make_console(quiet: bool = False, stderr: bool = False) -> Console:
    """A console that wraps lines only in a terminal: a log keeps one line an event."""
    console = Console(highlight=False, quiet=quiet, stderr=stderr)
    console.soft_wrap = not console.is_terminal
    return console


class TrainingProgress:
    """The `core.training.Progress` of the command line. Use it as a context manager."""

    def __init__(self, title: str, console: Console):
        self._title, self._console = title, console
        self._bar: Progress | None = None
        self._task = None
        self._printed = 0.0
        self._started = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> TrainingProgress:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("loss {task.fields[loss]:.4f} · {task.fields[speed]:,.0f} tokens/s ·"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=self._console,
            )
            self._task = self._bar.add_task(self._title, total=None, loss=float("nan"), speed=0.0)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, done: int, total: int, loss: float, tokens_per_second: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, loss=loss, speed=tokens_per_second)
            return
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        elif now - self._printed < 10 and done < total:
            return
        self._printed = now
        left = ""
        if done > self._first and done < total:
            seconds = (now - self._started) / (done - self._first) * (total - done)
            left = f", {duration(seconds)} left"
        self._console.print(
            f"{self._title}: step {done}/{total}, loss {loss:.4f}, {tokens_per_second:,.0f} tokens/s{left}",
        )

    def evaluated(self, step: int, metrics: dict[str, float], best: bool) -> None:
        text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self._console.print(f"{self._title}: step {step}, dev {text}{' (best)' if best else ''}")


def duration(seconds: float) -> str:
    """Minutes and seconds, as text."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
