"""Worlds of several processes without processes: threads of this one, which exchange what processes would."""

from __future__ import annotations

import threading
from collections.abc import Callable

from crossdistil.core.world import World


class Threads(World):
    """What one of `size` threads has; those of one run share `board` and `barrier`."""

    def __init__(self, rank: int, size: int, board: list[bytes], barrier: threading.Barrier):
        super().__init__()
        self.rank, self.size, self._board, self._barrier = rank, size, board, barrier

    def exchange(self, data: bytes) -> list[bytes]:
        self._board[self.rank] = bytes(data)
        self._barrier.wait(60)
        found = list(self._board)
        self._barrier.wait(60)
        return found


def together(size: int, function: Callable[[World], object], kind: type[Threads] = Threads) -> list:
    """What `function(world)` returns, or the error that it raises, in each of `size` threads."""
    board, barrier, answers = [b""] * size, threading.Barrier(size), [None] * size

    def run(rank: int) -> None:
        try:
            answers[rank] = function(kind(rank, size, board, barrier))
        except Exception as error:
            answers[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
