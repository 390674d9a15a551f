"""The table of names and values through which the processes of a run find each other (torch's TCPStore): with an error that says
who is missing, where torch would wait for as long as for a sum.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed as dist

from ...core.errors import BackendError
from ...core.peers import meeting_seconds
from ...core.place import Place

_PORT = 29500
"""torch's own default."""
_POLL_SECONDS = 0.05


def meet(place: Place, device: str) -> dist.Store:
    """The table, once all processes have come. `device` is what no two of them may have, or empty. Raises BackendError."""
    seconds = meeting_seconds()
    store = _store(place, timedelta(seconds=seconds))
    started = time.monotonic()
    size = store.compare_set("size", "", str(place.size)).decode()
    if size != str(place.size):
        others = f"the first that came of {size}; tell all the same"
        raise BackendError(f"rank {place.rank}: was told of {place.size} processes, and {others}")
    store.set(f"rank {place.rank}", f"device {device}")
    store.add("came", 1)
    while (came := store.add("came", 0)) < place.size:
        if time.monotonic() - started > seconds:
            missing = ", ".join(str(rank) for rank in range(place.size) if not store.check([f"rank {rank}"]))
            raise BackendError(
                f"only {came} of {place.size} processes came within {seconds:g} s; missing: rank {missing}. If none is to come, "
                "unset RANK and WORLD_SIZE"
            )
        time.sleep(_POLL_SECONDS)
    if device:
        devices = [store.get(f"rank {rank}").decode() for rank in range(place.size)]
        same = [str(rank) for rank in range(place.size) if devices[rank] == f"device {device}"]
        if len(same) > 1:
            raise BackendError(f"ranks {' and '.join(same)}: have the same GPU ({device}); start one process for each")
    return store


def _store(place: Place, wait: timedelta) -> dist.Store:
    host, text = os.environ.get("MASTER_ADDR", "127.0.0.1"), os.environ.get("MASTER_PORT", str(_PORT))
    if not text.isdecimal() or not 0 < int(text) < 2**16:
        raise BackendError(f"MASTER_PORT: got '{text[:40]}', expected 1 to 65535")
    port = int(text)
    # torchrun's agent has made one already, which all attempts of all its runs share.
    made = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise BackendError(f"MASTER_ADDR: the name {host} is not known here: {error.strerror}") from error
    if place.rank:
        _wait_for(host, port, wait.total_seconds(), place)
    try:
        with _without_traces():
            store = dist.TCPStore(
                host, port, place.size, place.rank == 0 and not made, wait, wait_for_workers=False, multi_tenant=True
            )
    except (RuntimeError, ValueError) as error:
        text = str(error)
        if "EADDRINUSE" in text:
            raise BackendError(f"port {port} of {host}: is in use by another program; choose another one") from error
        what = "is no rank 0 of this run" if place.rank else "cannot be listened on"
        raise BackendError(f"port {port} of {host}: {what}: {text.splitlines()[0]}") from error
    names = ("CROSSDISTIL_LAUNCHED", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    return dist.PrefixStore("/".join(["crossdistil", *(os.environ.get(name, "") for name in names)]), store)


@contextlib.contextmanager
def _without_traces() -> Iterator[None]:
    """What C++ prints of an error that is raised as well goes nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _wait_for(host: str, port: int, seconds: float, place: Place) -> None:
    """Until somebody listens there: torch, whose tries leave C++ traces, comes after."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), 10).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                why = error.strerror or type(error).__name__
                who = f"rank 0 of {place.size}: is not reached at {host}:{port}"
                raise BackendError(f"{who} within {seconds:g} s: {why}") from error
        time.sleep(_POLL_SECONDS)
