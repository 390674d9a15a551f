"""How the processes of a run meet: the first one listens, one sum of the engine tells all where, and the others connect to it.

So it works with any launcher that can start the framework, and no port has to be chosen by anyone. A stranger who connects does
not know the token that the sum carried, and is sent away.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import struct
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

import numpy as np

from .errors import CrossdistilError
from .place import Place

_TOLD_BYTES = 128
_POLL_SECONDS = 0.2
_ANSWER_SECONDS = 10.0
"""How long one who has connected may take to prove that it is of this run."""


def meet(
    place: Place, total: Callable[[np.ndarray], np.ndarray], meeting_seconds: float, silent_seconds: float
) -> tuple[dict[int, Connection], dict[int, str]]:
    """The first process's connections to all others by rank, or another one's to the first, and how to call those at the other
    end. Raises CrossdistilError where one has not come after `meeting_seconds`. What is sent or begun to be received on the
    connections raises BlockingIOError when the other end has not moved for `silent_seconds`."""
    server, token = None, b""
    if place.rank == 0:
        server, token = _server(place), secrets.token_bytes(16)
    with contextlib.closing(server) if server is not None else contextlib.nullcontext():
        told = "" if server is None else f"{server.getsockname()[1]} {token.hex()} {_own_address()}"
        port, token, address = _told(total, told)
        deadline = time.monotonic() + meeting_seconds
        if server is not None:
            found = _accepted(server, place, token, deadline)
        else:
            found = {0: _connected(place, address, port, token, deadline)}
    names = {0: f"rank 0 of {place.size}"}
    for rank, connection in found.items():
        _limit(connection, silent_seconds)
        _notice_death(connection, place.local_size == place.size)
        if place.rank == 0:
            pid, host = connection.recv_bytes().decode().split(" ", 1)
            names[rank] = f"rank {rank} of {place.size} (process {pid} on {host})"
        else:
            connection.send_bytes(f"{os.getpid()} {socket.gethostname()}".encode())
    return found, names


def master() -> str:
    """Where the launcher says that the first process is."""
    return os.environ.get("MASTER_ADDR") or os.environ.get("MS_SCHED_HOST") or "127.0.0.1"


def _told(total: Callable[[np.ndarray], np.ndarray], text: str) -> tuple[int, bytes, str]:
    """What the first process's text says, given to all by one sum, to which the others add zeros."""
    values = np.zeros(_TOLD_BYTES, np.float32)
    values[: len(text)] = list(text.encode())
    port, token, address = total(values).astype(np.uint8).tobytes().rstrip(b"\0").decode().split(" ")
    return int(port), bytes.fromhex(token), address


def _server(place: Place) -> socket.socket:
    if place.local_size == place.size:
        return socket.create_server(("127.0.0.1", 0), backlog=place.size)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    return socket.create_server(("", 0), family=family, backlog=place.size, dualstack_ipv6=both)


def _accepted(server: socket.socket, place: Place, token: bytes, deadline: float) -> dict[int, Connection]:
    found: dict[int, Connection] = {}
    while len(found) < place.size - 1:
        server.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            accepted, _ = server.accept()
        except TimeoutError:
            missing = ", ".join(str(rank) for rank in range(1, place.size) if rank not in found)
            raise CrossdistilError(f"rank {missing} of {place.size}: did not come to rank 0 in time") from None
        connection = _as_connection(accepted)
        try:
            deliver_challenge(connection, token)
            answer_challenge(connection, token)
            found[int(connection.recv_bytes(16))] = connection
        except (AuthenticationError, OSError, EOFError, ValueError):  # somebody else
            connection.close()
    return found


def _connected(place: Place, address: str, port: int, token: bytes, deadline: float) -> Connection:
    """The first process is where the launcher says, or else where it says itself: a machine's own name for itself may be one
    that only it knows."""
    hosts = ["127.0.0.1"] if place.local_size == place.size else list(dict.fromkeys([master(), address]))
    while True:
        for host in hosts:
            try:
                connection = _as_connection(socket.create_connection((host, port), _ANSWER_SECONDS))
                answer_challenge(connection, token)
                deliver_challenge(connection, token)
                connection.send_bytes(str(place.rank).encode())
                return connection
            except (AuthenticationError, OSError, EOFError) as error:
                why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        if time.monotonic() > deadline:
            raise CrossdistilError(f"rank 0 of {place.size}: is not reached at {' or '.join(hosts)}, port {port}: {why}")
        time.sleep(_POLL_SECONDS)


def _as_connection(found: socket.socket) -> Connection:
    found.setblocking(True)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection = Connection(found.detach())
    _limit(connection, _ANSWER_SECONDS)
    return connection


def _own_address() -> str:
    """The address of this machine on the way to where the launcher says that the first process is."""
    with contextlib.suppress(OSError):
        for family, kind, _, _, target in socket.getaddrinfo(master(), 9, type=socket.SOCK_DGRAM):
            with socket.socket(family, kind) as probe:  # connecting a datagram socket sends nothing
                probe.connect(target)
                return probe.getsockname()[0]
    return "127.0.0.1"


def _limit(connection: Connection, seconds: float) -> None:
    """How long one call waits for the other end to move."""
    with socket.socket(fileno=os.dup(connection.fileno())) as found:
        whole = int(seconds)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            found.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", whole, int((seconds - whole) * 1e6)))


def _notice_death(connection: Connection, here: bool) -> None:
    """Have the system ask whether another machine is still there: without an answer for 30 s, or for 2 minutes where something
    was sent to it, the connection ends."""
    if here:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("KEEPIDLE", 10), ("KEEPINTVL", 5), ("KEEPCNT", 4), ("USER_TIMEOUT", 120_000)):
            if hasattr(socket, f"TCP_{name}"):
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"), value)
