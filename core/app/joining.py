"""How a process joins the others of its run, and how all of them end together: with one line, whichever of them failed.

The first process speaks for all. What the others print is kept, and goes to `logs/rank-N.log` in the run folder once there is
one; on the terminal they say only what the first one cannot.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ..engine import Engine
from ..errors import MESSAGE_PREFIX, BackendError
from ..peers import LOST, Peers
from ..place import DEVICES, Place
from ..run_files import LOGS
from ..shown import plain
from ..world import World
from .error_lines import what_is_left, words_of
from .interruption import Saved


def join(engine: Engine) -> World:
    """The world of the run that this process is of; waits for the other processes, if there are any."""
    if engine.place.size == 1:
        return World()
    try:
        return Peers(engine.place, engine.total)
    except RuntimeError as error:
        raise BackendError(f"the {engine.place.size} processes do not meet: {' '.join(str(error).split())}") from error


class Voice:
    """What one of several processes prints. Use it as a context manager around its work: it ends where its standard output and
    standard errors are what they were."""

    def __init__(self, place: Place):
        self._place = place
        self._before: dict[int, int] = {}
        self._kept = None
        self._errors = _descriptor(sys.stderr, 2)
        self.log: Path | None = None

    def __enter__(self) -> Voice:
        if self._place.rank:
            # The framework's, and Python's where those are others.
            self._before = {number: os.dup(number) for number in {1, 2, _descriptor(sys.stdout, 1), self._errors}}
            self._kept = tempfile.TemporaryFile("w+b")
            self._to(dict.fromkeys(self._before, self._kept.fileno()))
            logging.disable(logging.NOTSET)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before:
            self._to(self._before)
            for descriptor in self._before.values():
                os.close(descriptor)
            self._kept.close()
            self._before = {}

    @staticmethod
    def _to(targets: dict[int, int]) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        for number, target in targets.items():
            os.dup2(target, number)

    def write_log(self, folder: Path) -> None:
        """From now on, all that this process and its framework print goes to its log, and before it what they have printed.
        Without a folder of its own machine to write to, it goes nowhere."""
        if not self._before:
            return
        try:
            (folder / LOGS).mkdir(parents=True, exist_ok=True)
            path = folder / LOGS / f"rank-{self._place.rank}.log"
            log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError:
            return
        self._to(dict.fromkeys(self._before, log))
        os.close(log)
        self._kept.seek(0)
        with contextlib.suppress(OSError):
            os.write(1, self._kept.read())
        self.log = path

    def say(self, code: int, text: str, first_is_gone: bool) -> int:
        """`World.on_word`: in the log, and on the terminal if nobody else says it there."""
        place = self._place
        # On each machine one says it; who has started all processes sees that one has ended, and says it better.
        speaks = place.local_rank == 0 or (first_is_gone and place.rank == 1)
        if code == LOST:
            text = f"{text}; {what_is_left()}"
        seen = code == LOST and place.launcher == DEVICES and place.local_size == place.size
        for line in text.splitlines():
            line = f"{MESSAGE_PREFIX}{plain(line, 3000)}\n"
            with contextlib.suppress(OSError):
                if place.rank:
                    os.write(self._errors, line.encode(errors="replace"))
                if speaks and not seen:
                    os.write(self._before.get(self._errors, self._errors), line.encode(errors="replace"))
        return 1 if code == LOST and not seen else code


def _descriptor(stream: TextIO, otherwise: int) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return otherwise


@contextlib.contextmanager
def ending_together(world: World, place: Place) -> Iterator[Voice]:
    """Whatever ends one process ends all, and the first one says it: an error that leaves this has `told` set where its process
    need not say it again."""
    voice = Voice(place)
    world.on_word(voice.say)
    with voice:
        try:
            yield voice
        except BaseException as error:
            if world.size > 1:
                _tell(world, voice, error)
            raise
        world.close()


def _tell(world: World, voice: Voice, error: BaseException) -> None:
    if isinstance(error, Saved) or (isinstance(error, KeyboardInterrupt) and str(error)):
        world.close()  # all have agreed to stop
    else:
        code, text = words_of(error)
        if code == 1:
            # A framework says of a process that is gone only that its sum has failed, and each framework in its own words.
            world.wait_for_end()
        where = f"; {voice.log} has more" if code == 1 and voice.log is not None else ""
        world.fail(text + where, code)
        if world.rank:
            traceback.print_exc() if code == 1 else print(f"{MESSAGE_PREFIX}{text}", file=sys.stderr, flush=True)
    error.told = world.rank > 0
