"""Processes of one run that talk to each other: each holds a connection to the first, which gathers and answers.

Nothing here knows a framework or a launcher: the engines' first sum tells all processes where the first one listens, so that a
run works with any launcher that can start the framework. A thread listens on each side, also while the main thread waits
inside a framework, where no Python runs: a process that ends is missed at once, and all others end with one line that names
it, instead of waiting for it until the framework's own time-out (a minute and more).

A message is a letter and its content: D data to exchange, S please stop, F how far have you begun?, B so far, L begin no step
after that, E an error's exit code and text, A end, Q nothing more to come.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait

import numpy as np

from .errors import MESSAGE_PREFIX, CrossdistilError
from .world import Place, World

_TOKEN_BYTES, _ADDRESS_BYTES = 16, 4
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 1.0
"""How long a process may take to end by itself, with its own words, before it is ended."""
_SETTING = "CROSSDISTIL_WAIT_SECONDS"
_WAIT_SECONDS = 3600.0


class Peers(World):
    """The `World` of a process that is one of several. `total` sums float32 arrays over all of them (the engine's)."""

    def __init__(self, place: Place, total: Callable[[np.ndarray], np.ndarray]):
        super().__init__()
        self.rank, self.size = place.rank, place.size
        self._seconds = float(os.environ.get(_SETTING, _WAIT_SECONDS))
        self._inbox = [queue.SimpleQueue() for _ in range(self.size)]  # data that came, by the rank that gave it
        self._sending = threading.Lock()
        self._steps = threading.Condition()
        self._begun, self._frozen, self._limit = 0, False, None
        self._told, self._ending, self._closing = False, threading.Event(), False
        self._answers: dict[int, int] = {}
        self._endings: list[Callable[[], None]] = []
        self._closed: set[int] = set()
        listener, address, token = self._meeting(total)
        self._connections = self._accept(listener, token) if listener is not None else {0: _connected(address, token)}
        if listener is None:
            self._send(0, b"D", f"{self.rank} {os.getpid()} {socket.gethostname()}".encode())
        for connection in self._connections.values():
            _notice_death(connection)
        self._thread = threading.Thread(target=self._listen, name="crossdistil-peers", daemon=True)
        self._thread.start()

    # How they meet.

    def _meeting(self, total: Callable) -> tuple[Listener | None, tuple[str, int], bytes]:
        """Where the first process listens, told to all by one sum to which only the first adds something but zeros."""
        told, listener = np.zeros(_ADDRESS_BYTES + 2 + _TOKEN_BYTES, np.float32), None
        if self.rank == 0:
            host, token = _own_address(), secrets.token_bytes(_TOKEN_BYTES)
            listener = Listener((host, 0), "AF_INET", self.size, authkey=token)
            told[:] = [*socket.inet_aton(host), *struct.pack(">H", listener.address[1]), *token]
        told = total(told).astype(np.uint8).tobytes()
        (port,) = struct.unpack_from(">H", told, _ADDRESS_BYTES)
        return listener, (socket.inet_ntoa(told[:_ADDRESS_BYTES]), port), told[_ADDRESS_BYTES + 2 :]

    def _accept(self, listener: Listener, token: bytes) -> dict[int, Connection]:
        self._names = {}
        found: dict[int, Connection] = {}
        with contextlib.closing(listener):
            while len(found) < self.size - 1:
                try:
                    connection = listener.accept()
                except AuthenticationError:  # somebody else
                    continue
                rank, pid, host = connection.recv_bytes()[1:].decode().split(" ", 2)
                found[int(rank)] = connection
                self._names[int(rank)] = f"rank {rank} of {self.size} (process {pid} on {host})"
        return found

    # What a World does.

    def exchange(self, data: bytes) -> list[bytes]:
        if self.rank:
            self._send(0, b"D", data)
            packed = self._received(0)
            count = struct.unpack_from(f">{self.size}Q", packed)
            ends = np.cumsum([8 * self.size, *count])
            return [bytes(packed[start:end]) for start, end in zip(ends, ends[1:])]
        found = [data, *(self._received(rank) for rank in range(1, self.size))]
        packed = struct.pack(f">{self.size}Q", *map(len, found)) + b"".join(found)
        for rank in range(1, self.size):
            self._send(rank, b"D", packed)
        return found

    def proceed(self, step: int) -> bool:
        with self._steps:
            while self._frozen and (self._limit is None or step >= self._limit):
                if self._limit is not None:
                    return False
                self._steps.wait()
            self._begun = step + 1
            return True

    def ask_to_stop(self) -> None:
        self._asked = True  # the thread tells: a signal may have come while this thread was sending

    def fail(self, text: str, code: int) -> None:
        self._ending.set()
        if self.rank == 0:
            self._end_others(code)
        else:
            self._send(0, b"E", bytes([code]) + text.encode(errors="replace"))

    def wait_for_end(self) -> None:
        """A framework has raised an error: often only since another process is gone, which is told, and ends this one."""
        time.sleep(3 * _GRACE_SECONDS)

    def on_end(self, function: Callable[[], None]) -> None:
        self._endings.append(function)

    def close(self) -> None:
        self._closing = True
        for rank in self._connections:
            self._send(rank, b"Q")

    # What goes to and fro.

    def _send(self, rank: int, kind: bytes, content: bytes = b"") -> None:
        with self._sending, contextlib.suppress(OSError):  # a process that is gone is noticed where its end is read
            self._connections[rank].send_bytes(kind + content)

    def _received(self, rank: int) -> bytes:
        try:
            return self._inbox[rank].get(timeout=self._seconds)
        except queue.Empty:
            who = f"rank {rank} of {self.size}" if self.rank else self._names[rank]
            text = f"{who}: was waited for in vain for {self._seconds:g} s ({_SETTING}); it is alive, and does not answer"
            raise CrossdistilError(text) from None

    def _listen(self) -> None:
        alive = {connection: rank for rank, connection in self._connections.items()}
        while alive:
            for connection in wait(list(alive), _POLL_SECONDS):
                rank = alive[connection]
                try:
                    message = connection.recv_bytes()
                except (EOFError, OSError):
                    del alive[connection]
                    if rank not in self._closed and not self._closing:
                        self._lost(rank)
                    continue
                self._take(rank, message[:1], message[1:])
            if self._asked and not self._told:
                self._told = True
                self._send(0, b"S") if self.rank else self._freeze()

    def _take(self, rank: int, kind: bytes, content: bytes) -> None:
        if kind == b"D":
            self._inbox[rank].put(content)
        elif kind == b"S":
            self._freeze()
        elif kind == b"F":
            self._send(0, b"B", struct.pack(">q", self._pause()))
        elif kind == b"B":
            self._answers[rank] = struct.unpack(">q", content)[0]
            self._decide()
        elif kind == b"L":
            self._stop_at(struct.unpack(">q", content)[0])
        elif kind == b"Q":
            self._closed.add(rank)
        elif kind == b"E":
            self._end(content[0], f"rank {rank}: {content[1:].decode(errors='replace')}")
        elif kind == b"A":
            self._end(content[0], "")

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
                self._send(rank, b"L", struct.pack(">q", limit))
            self._stop_at(limit)

    def _stop_at(self, limit: int) -> None:
        with self._steps:
            self._limit = limit
            self._steps.notify_all()

    # How all end when one does.

    def _lost(self, rank: int) -> None:
        if self.rank:
            self._end(1, f"rank 0 of {self.size} has ended without a word")
        else:
            self._end(1, f"{self._names[rank]} has ended without a word; --resume goes on from the last saved state")

    def _end(self, code: int, text: str) -> None:
        """End this process, whatever its main thread is doing, unless it does so itself in the next moment."""
        if self.rank == 0:
            self._end_others(code)
        if self._ending.wait(_GRACE_SECONDS):
            return
        for function in self._endings:
            function()
        for line in text.splitlines():
            print(f"{MESSAGE_PREFIX}{line}", file=sys.stderr, flush=True)
        os._exit(code)

    def _end_others(self, code: int) -> None:
        for rank in self._connections:
            self._send(rank, b"A", bytes([code]))


def _own_address() -> str:
    """The address of this machine on the way to where the launcher says that the first process is; itself, for one machine."""
    host = os.environ.get("MASTER_ADDR") or os.environ.get("MS_SCHED_HOST") or "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        probe.connect((host, 9))
        return probe.getsockname()[0]


def _connected(address: tuple[str, int], token: bytes) -> Connection:
    deadline = time.monotonic() + 60
    while True:
        try:
            return Client(address, authkey=token)
        except ConnectionRefusedError:  # it is listening, unless it is gone
            if time.monotonic() > deadline:
                raise CrossdistilError(f"rank 0: does not answer at {address[0]}:{address[1]}") from None
            time.sleep(_POLL_SECONDS)


def _notice_death(connection: Connection) -> None:
    """Have the system ask whether the other machine is still there: after 30 s without an answer the connection ends."""
    with socket.socket(fileno=os.dup(connection.fileno())) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
