"""Blocks to records over processes: in order, with a bounded number of them under way, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ...files import clear_disk_errors
from .blocks import Source, block_maker
from .documents import Block
from .worker_process import WorkerProcess, serve

Made = tuple[Path, Counter]
"""The file with a block's records, for the caller to remove, and what was counted."""
_AHEAD = 2  # blocks that wait for a process, so that none waits for a block


def made_blocks(
    blocks: Iterable[Block], place: Callable[[Block], Path | None], source: Source, processes: int
) -> Iterator[tuple[Block, Made | None]]:
    """Each block with what was made of it, in the order of `blocks`: its records in the file `place(block)`, where that is not
    None. Through files, so that no process ever holds what others have made. Raises DataError where a process is ended."""
    if processes == 1:
        work = _prepare(source)
        for block in blocks:
            path = place(block)
            yield block, None if path is None else work((block, path))
        return
    with _Pool(source, processes) as pool:
        waiting: deque[tuple[Block, Future | None]] = deque()
        working = 0
        for block in blocks:
            path = place(block)
            future = None if path is None else pool.submit((block, path))
            waiting.append((Block(block.number, [], block.ended, block.position), future))
            working += future is not None
            # Blocks that are not wanted pass at once when they are first, so that the row stays short.
            while waiting and (waiting[0][1] is None or working >= processes + _AHEAD):
                done, future = waiting.popleft()
                working -= future is not None
                yield done, future and future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future and future.result()


class _Pool:
    """Processes that make blocks, each with a thread that waits for it."""

    def __init__(self, source: Source, processes: int):
        self._source, self._opened, self._own = source, contextlib.ExitStack(), threading.local()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(processes)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._opened.close()  # which ends what the threads wait for
        self._threads.shutdown(wait=True)
        self._opened.close()  # what a thread started meanwhile

    def submit(self, work: tuple[Block, Path]) -> Future:
        return self._threads.submit(self._do, work)

    def _do(self, work: tuple[Block, Path]) -> Made:
        if not hasattr(self._own, "worker"):
            with self._lock:
                remedy = "give fewer --processes, and --resume to go on"
                self._own.worker = self._opened.enter_context(WorkerProcess(__name__, "makes examples", remedy))
            self._own.worker.send(self._source)
        self._own.worker.send(work)
        return self._own.worker.receive()


def _prepare(source: Source) -> Callable[[tuple[Block, Path]], Made]:
    make = block_maker(source)

    def work(given: tuple[Block, Path]) -> Made:
        block, path = given
        with clear_disk_errors(path), path.open("wb") as file:
            return path, make(block, file)

    return work


def _serve() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are what is parallel
    serve(_prepare)


if __name__ == "__main__":
    _serve()
