"""Tells how far training is: a live bar in a terminal, plain lines anywhere else.

Steps are counted and timed when the device is given them, so that nothing here waits for it; the loss is shown when the loop
has read it anyway. Tokens a second are those of result.json: real tokens of the stage so far, over the seconds of all its steps,
the first one and compilation included. The time that is left goes by the steps after the first, without compilation. What is
drawn is drawn in this thread, at most a few times a second.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from ..events import Evaluated, LiveSink, Logged
from .waiting import Waiting

if TYPE_CHECKING:  # few commands draw a bar
    from rich.progress import Progress

DRAW_SECONDS = 0.25
"""In a terminal, the least time between two pictures of the bar."""
FIRST_LINE_SECONDS, LAST_LINE_SECONDS = 3.0, 60.0
"""Elsewhere, the least time between two lines at first and in the end; in between it is a fifth of what has passed."""


def make_console(quiet: bool = False, stderr: bool = False) -> Console:
    """A console that wraps lines only in a terminal: a log keeps one line an event."""
    console = Console(highlight=False, quiet=quiet, stderr=stderr)
    console.soft_wrap = not console.is_terminal
    return console


class TrainingProgress(LiveSink):
    """The sink of the command line, for one stage. Use it as a context manager."""

    def __init__(self, title: str, console: Console):
        self._title, self._console = title, console
        self._bar: Progress | None = None
        self._done = self._total = self._shown = 0
        self._loss: float | None = None
        self._rate, self._speed = _Rate(), _Speed()
        self._first = Waiting(self._console.print)
        self._started = self._next = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._first.done()
        if self._bar is not None:
            self._draw(self._figures())
            self._bar.stop()

    def start(self, done: int, total: int) -> None:
        self._done, self._total, self._shown = done, total, done
        self._speed.go_on(time.monotonic())
        if self._console.is_terminal and not self._console.quiet:
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
                TextColumn("{task.fields[text]}", markup=False),
                console=self._console,
                auto_refresh=False,
            )
            text = f"step {done + 1:,} is under way"
            self._task = self._bar.add_task(self._title, total=total, completed=done, text=text)
            self._bar.start()
        else:  # the bar shows it
            self._first.doing(f"{self._title}: step {done + 1:,} of {total:,} is under way")

    def advance(self, done: int, tokens: int) -> None:
        now = time.monotonic()
        self._first.done()
        self._rate.count(done, now)
        self._speed.tokens = tokens
        self._done = done
        if now >= self._next and done < self._total:  # the last step's picture has its loss
            self._show(now)

    def measured(self, tokens: int, seconds: float) -> None:
        self._speed.measured(tokens, seconds, time.monotonic())

    def logged(self, event: Logged) -> None:
        self._loss = event.shown_loss
        if self._done == self._total > self._shown:
            self._show(time.monotonic())

    def evaluate(self) -> None:
        now = time.monotonic()
        self._rate.pause(now)
        self._speed.pause(now)
        self._draw("evaluating")

    def evaluated(self, event: Evaluated) -> None:
        now = time.monotonic()
        self._rate.go_on(now)
        self._speed.go_on(now)
        text = ", ".join(f"{name} {value:.4f}" for name, value in event.metrics.items())
        # Steps are the stage's here, as in the bar.
        self._console.print(f"{self._title}: step {self._done}, dev {text}{' (best)' if event.best else ''}")
        self._draw(self._figures())

    def compiles(self, shape: Sequence[int]) -> None:
        """A graph is about to be compiled for batches of a shape."""
        self._first.done()  # the backend says what it compiles
        self._rate.skip()
        self._draw(f"compiling for {shape_text(shape)}")

    def _show(self, now: float) -> None:
        self._shown = self._done
        if self._bar is not None:
            self._next = now + DRAW_SECONDS
            self._draw(self._figures())
            return
        pause = (now - self._started) / 5
        self._next = now + min(max(pause, FIRST_LINE_SECONDS), LAST_LINE_SECONDS)
        figures = self._figures().replace(" · ", ", ")
        self._console.print(f"{self._title}: step {self._done}/{self._total}{', ' if figures else ''}{figures}")

    def _draw(self, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, text=text, refresh=True)

    def _figures(self) -> str:
        """Those that are known: the loss, the speed, the time left."""
        parts = [] if self._loss is None else [f"loss {self._loss:.4f}"]
        each, left = self._rate.seconds_per_step, self._total - self._done
        if each is not None:
            parts.append(f"{self._speed.tokens_per_second(time.monotonic()):,.0f} tokens/s")
            parts += [f"{duration(left * each)} left"] if left else []
        return " · ".join(parts)


class _Speed:
    """Tokens a second of a stage: what the loop has measured, and since then by the clock."""

    def __init__(self) -> None:
        self.tokens = 0
        self._seconds = 0.0
        self._since: float | None = None

    def measured(self, tokens: int, seconds: float, now: float) -> None:
        """By the loop, which has waited for the device."""
        self.tokens, self._seconds, self._since = tokens, seconds, now

    def pause(self, now: float) -> None:
        """Something other than steps takes the time from now on, until `go_on`."""
        self._seconds, self._since = self._spent(now), None

    def go_on(self, now: float) -> None:
        self._since = now

    def tokens_per_second(self, now: float) -> float:
        return self.tokens / max(self._spent(now), 1e-9)

    def _spent(self, now: float) -> float:
        return self._seconds + (0.0 if self._since is None else now - self._since)


class _Rate:
    """Seconds a step since the first step of this process, which starts slower than the others, without the time that evaluation
    and compilation take: what the time that is left goes by."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._since = 0.0
        self._waits = True
        self._steps, self._seconds = 0, 0.0

    def count(self, done: int, now: float) -> None:
        if not self._waits:
            self._steps += done - self._last
            self._seconds += now - self._since
        self._last, self._since, self._waits = done, now, False

    def skip(self) -> None:
        """Do not count the next step: of one that waits for a compilation it is not known what it takes itself."""
        self._waits = True

    def pause(self, now: float) -> None:
        """Something other than steps takes the time from now on, until `go_on`; the device has done all of them."""
        if not self._waits:
            self._seconds += now - self._since

    def go_on(self, now: float) -> None:
        self._since, self._waits = now, self._last is None

    @property
    def seconds_per_step(self) -> float | None:
        """None as long as it is not known."""
        return self._seconds / self._steps if self._steps else None


def shape_text(shape: Sequence[int]) -> str:
    """`32 x 64 tokens`."""
    return f"{' x '.join(map(str, shape))} tokens"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as text."""
    minutes, rest = divmod(int(seconds), 60)
    hours, short = divmod(minutes, 60)
    if hours:
        return f"{hours}h {short:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
