"""Blocks to records over processes: in order, with a bounded number of them under way, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import BinaryIO

from ...errors import DataError
from ...files import clear_disk_errors
from .blocks import Source, block_maker
from .documents import Block

Made = tuple[Path, Counter]
"""The file with a block's records, for the caller to remove, and what was counted."""
_AHEAD = 2  # blocks that wait for a process, so that none waits for a block

_make: Callable[[Block, BinaryIO], Counter] | None = None  # of a process that makes blocks


def made_blocks(
    blocks: Iterable[Block], place: Callable[[Block], Path | None], source: Source, processes: int
) -> Iterator[tuple[Block, Made | None]]:
    """Each block with what was made of it, in the order of `blocks`: its records in the file `place(block)`, where that is not
    None. Through files, so that no process ever holds what others have made."""
    if processes == 1:
        _load(source)
        for block in blocks:
            path = place(block)
            yield block, None if path is None else _work(block, path)
        return
    # spawn: a fork of a process with threads (the tokenizer's, a progress bar's) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _start, (source,)) as pool:
        waiting: deque[tuple[Block, Future | None]] = deque()
        working = 0
        try:
            for block in blocks:
                path = place(block)
                future = None if path is None else pool.submit(_work, block, path)
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
        except BrokenProcessPool:
            raise DataError(
                "a worker process was ended from outside, as happens when memory is short; give fewer --processes, "
                "and --resume to go on"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(source: Source) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends the work
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are what is parallel
    _load(source)


def _load(source: Source) -> None:
    global _make
    _make = block_maker(source)


def _end_with_parent() -> None:
    """A worker that waits for blocks would wait for ever once its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(block: Block, path: Path) -> Made:
    assert _make is not None
    with clear_disk_errors(path), path.open("wb") as file:
        return path, _make(block, file)
