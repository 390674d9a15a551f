"""Processes of one run that talk to each other: each holds a connection to the first, which gathers and answers.

Nothing here knows a framework or a launcher: the engines' first sum tells all processes where the first one listens, so that a
run works with any launcher that can start the framework. A thread listens on each side, also while the main thread waits
inside a framework, where no Python runs: a process that ends is missed at once, and all others end with one line that names
it, instead of waiting for it until the framework's own time-out (a minute and more).

A message is a letter and its content: D data to exchange, P are you there?, S please stop, F how far have you begun?, B so far,
L begin no step after that, for this signal, E an error's exit code and text, A end with that code and text, Q nothing more to
come.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import wait

import numpy as np

from .errors import MESSAGE_PREFIX, CrossdistilError
from .meeting import meet
from .place import Place
from .world import World

LOST = 76
"""What `World.on_word` is given as exit code where another process has ended without a word."""
_POLL_SECONDS = 0.2
_PING_SECONDS = 1.0
_GRACE_SECONDS = 1.0
"""How long a process may take to end by itself, with its own words, before it is ended."""
_SETTING = "CROSSDISTIL_WAIT_SECONDS"
_WAIT_SECONDS = 3600.0
_MEETING_SECONDS = 300.0
_MARGIN_SECONDS = 2.0
"""The first process knows best who is silent: the others wait so much longer."""


def wait_seconds() -> float:
    """How long a process that is there, and does not answer, is waited for: CROSSDISTIL_WAIT_SECONDS, or an hour."""
    text = os.environ.get(_SETTING, "").strip() or str(_WAIT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 1 <= seconds <= 10**7:
        raise CrossdistilError(f"{_SETTING}: got '{text[:40]}', expected a number of seconds from 1")
    return seconds


def meeting_seconds() -> float:
    """How long the processes of a run are waited for when it begins: 5 minutes, or less if nobody is ever waited for so long."""
    return min(_MEETING_SECONDS, wait_seconds())


class Peers(World):
    """The `World` of a process that is one of several. `total` sums float32 arrays over all of them (the engine's)."""

    def __init__(self, place: Place, total: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self.rank, self.size = place.rank, place.size
        self._seconds = wait_seconds() + (_MARGIN_SECONDS if place.rank else 0)
        self._inbox = [queue.SimpleQueue() for _ in range(self.size)]  # data that came, by the rank that gave it
        self._steps = threading.Condition()
        self._begun, self._frozen, self._limit = 0, False, None
        self._told, self._ending, self._closing = False, threading.Event(), False
        self._answers: dict[int, int] = {}
        self._endings: list[Callable[[int], None]] = []
        self._say: Callable[[int, str, bool], int] = _print
        self._closed: set[int] = set()
        self._connections, self._names = meet(place, total, meeting_seconds(), self._seconds)
        self._sending = {rank: threading.Lock() for rank in self._connections}
        self._thread = threading.Thread(target=self._listen, name="crossdistil-peers", daemon=True)
        self._thread.start()

    # What a World does.

    def exchange(self, data: bytes) -> list[bytes]:
        if self.rank:
            self._give(0, data)
            packed = self._received(0)
            count = struct.unpack_from(f">{self.size}Q", packed)
            ends = np.cumsum([8 * self.size, *count])
            return [bytes(packed[start:end]) for start, end in zip(ends, ends[1:])]
        found = [data, *(self._received(rank) for rank in range(1, self.size))]
        packed = struct.pack(f">{self.size}Q", *map(len, found)) + b"".join(found)
        for rank in range(1, self.size):
            self._give(rank, packed)
        return found

    def proceed(self, step: int) -> bool:
        with self._steps:
            while self._frozen and (self._limit is None or step >= self._limit):
                if self._limit is not None:
                    return False
                self._steps.wait()
            self._begun = step + 1
            return True

    def ask_to_stop(self, number: int = signal.SIGINT) -> None:
        self._asked = number  # the thread tells: a signal may have come while this thread was sending

    def fail(self, text: str, code: int) -> None:
        self._ending.set()
        if self.rank == 0:
            self._end_others(code, text)
        else:
            self._send(0, b"E", bytes([code]) + text.encode(errors="replace"))

    def wait_for_end(self) -> None:
        """A framework has raised an error: often only since another process is gone, which is told, and ends this one."""
        time.sleep(3 * _GRACE_SECONDS)

    def on_end(self, function: Callable[[int], None]) -> None:
        self._endings.append(function)

    def on_word(self, function: Callable[[int, str, bool], int]) -> None:
        self._say = function

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        for rank in self._connections:
            self._send(rank, b"Q")

    # What goes to and fro.

    def _give(self, rank: int, data: bytes) -> None:
        with self._sending[rank], contextlib.suppress(ConnectionError):  # whose end is noticed where it is read
            try:
                self._connections[rank].send_bytes(b"D" + data)
            except BlockingIOError:
                raise self._silence(rank) from None

    def _send(self, rank: int, kind: bytes, content: bytes = b"") -> None:
        with self._sending[rank], contextlib.suppress(OSError):
            self._connections[rank].send_bytes(kind + content)

    def _received(self, rank: int) -> bytes:
        try:
            return self._inbox[rank].get(timeout=self._seconds)
        except queue.Empty:
            raise self._silence(rank) from None

    def _silence(self, rank: int) -> CrossdistilError:
        waited = f"{self._seconds - (_MARGIN_SECONDS if self.rank else 0):g} s"
        return CrossdistilError(f"{self._names[rank]}: has not ended, and has not answered for {waited} ({_SETTING})")

    def _listen(self) -> None:
        alive = {connection: rank for rank, connection in self._connections.items()}
        silent = dict.fromkeys(self._connections, 0.0)
        before = pinged = time.monotonic()
        while alive:
            ready = wait(list(alive), _POLL_SECONDS)
            # Where this process was stopped for a while, nobody was silent in it.
            passed, before = min(time.monotonic() - before, 1.0), time.monotonic()
            for rank in alive.values():
                silent[rank] += passed
            for connection in ready:
                rank = alive[connection]
                silent[rank] = 0.0
                try:
                    message = connection.recv_bytes()
                except BlockingIOError:  # in the middle of a message
                    silent[rank] = self._seconds + 1
                except (EOFError, OSError):
                    del alive[connection]
                    if rank not in self._closed and not self._closing:
                        self._lost(rank)
                    continue
                else:
                    self._take(rank, message[:1], message[1:])
            for rank in alive.values():
                if silent[rank] > self._seconds and not self._closing:
                    self._end(1, str(self._silence(rank)), first_is_gone=self.rank > 0)
            if self.rank == 0 and before - pinged >= _PING_SECONDS:
                pinged = before
                for rank in alive.values():
                    self._ping(rank)
            if self._asked and not self._told:
                self._told = True
                self._send(0, b"S", bytes([self._asked])) if self.rank else self._freeze()

    def _ping(self, rank: int) -> None:
        """Ask, or say, that one is there, unless something longer is being said."""
        if self._sending[rank].acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._connections[rank].send_bytes(b"P")
            finally:
                self._sending[rank].release()

    def _take(self, rank: int, kind: bytes, content: bytes) -> None:
        if kind == b"D":
            self._inbox[rank].put(content)
        elif kind == b"P":
            if self.rank:
                self._ping(0)
        elif kind == b"S":
            self._asked = self._asked or content[0]
            self._freeze()
        elif kind == b"F":
            self._send(0, b"B", struct.pack(">q", self._pause()))
        elif kind == b"B":
            self._answers[rank] = struct.unpack(">q", content)[0]
            self._decide()
        elif kind == b"L":
            limit, self._asked = struct.unpack(">qB", content)
            self._told = True
            self._stop_at(limit)
        elif kind == b"Q":
            self._closed.add(rank)
        elif kind == b"E":
            self._end(content[0], _with_rank(rank, content[1:].decode(errors="replace")))
        elif kind == b"A":
            self._end(content[0], content[1:].decode(errors="replace"))

    # Where to stop: no process begins another step until all have said how far they are.

    def _freeze(self) -> None:
        if 0 not in self._answers:
            self._answers[0] = self._pause()
            for rank in self._connections:
                self._send(rank, b"F")

    def _pause(self) -> int:
        with self._steps:
            self._frozen = True
            return self._begun

    def _decide(self) -> None:
        if len(self._answers) == self.size:
            limit = max(self._answers.values())
            for rank in self._connections:
                self._send(rank, b"L", struct.pack(">qB", limit, self._asked))
            self._stop_at(limit)

    def _stop_at(self, limit: int) -> None:
        with self._steps:
            self._limit = limit
            self._steps.notify_all()

    # How all end when one does.

    def _lost(self, rank: int) -> None:
        text = f"{self._names[rank]} has ended without a word"
        self._end(LOST, text, first_is_gone=rank == 0)

    def _end(self, code: int, text: str, first_is_gone: bool = False) -> None:
        """End this process, whatever its main thread is doing, unless it does so itself in the next moment."""
        if self.rank == 0:
            self._end_others(code, text)
        if self._ending.wait(_GRACE_SECONDS):
            return
        for function in self._endings:
            function(code)
        os._exit(self._say(code, text, first_is_gone))

    def _end_others(self, code: int, text: str) -> None:
        for rank in self._connections:
            self._send(rank, b"A", bytes([code]) + text.encode(errors="replace"))


def _with_rank(rank: int, text: str) -> str:
    """What rank `rank` says; lines about a rank name it already."""
    return "\n".join(line if line.startswith("rank ") else f"rank {rank}: {line}" for line in text.splitlines())


def _print(code: int, text: str, first_is_gone: bool) -> int:
    for line in text.splitlines():
        print(f"{MESSAGE_PREFIX}{line}", file=sys.stderr, flush=True)
    return 1 if code == LOST else code
