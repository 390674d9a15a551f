"""OneFlow waits for the other processes of a run while it is imported, in C++, for ever, and no thread or signal handler of this
process runs meanwhile: so another process watches it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator

from ...core.errors import MESSAGE_PREFIX
from ...core.peers import meeting_seconds


@contextlib.contextmanager
def not_for_ever(terminal: int) -> Iterator[None]:
    """End this process with a line on the file descriptor `terminal` if it is in this for longer than processes of a run are
    waited for. A process that is alone waits for nobody."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or "RANK" not in os.environ:
        yield
        return
    seconds, waiting = meeting_seconds(), os.getpid()
    ended, end = os.pipe()
    watcher = os.fork()
    if watcher == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's, which is for those that it watches
        os.close(end)
        if not select.select([ended], [], [], seconds)[0]:
            os.write(terminal, f"{MESSAGE_PREFIX}{_text(seconds)}\n".encode())
            os.kill(waiting, signal.SIGALRM)
        os._exit(0)
    os.close(ended)
    try:
        yield
    finally:  # the pipe also ends where this process does
        os.close(end)
        os.waitpid(watcher, 0)


def _text(seconds: float) -> str:
    rank, size, host, port = (os.environ.get(name, "?") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return (
        f"rank {rank} of {size}: OneFlow has waited for the other processes at {host}:{port} for {seconds:g} s, "
        "and not all came"
    )
