"""The processes of one run: which of them this is, and how they agree on everything that is not a sum inside a step.

Data parallelism is accumulation in space: each optimizer step is cut into parts, and process `rank` of `size` takes every
`size`-th of them (`Share`). Gradients and losses are summed by the framework, inside the step (`Engine`); what the hosts must
agree on (have all read the same data, shall we stop, what did the others compute) goes through a `World`, which knows no
framework. A run of one process has a `World` that is alone, and pays nothing.
"""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import load, save

from .errors import CrossdistilError, DamagedCache, RunFolderError


@dataclass(frozen=True)
class Share:
    """Which parts of something that is dealt to `size` processes belong to process `rank`: every `size`-th."""

    rank: int = 0
    size: int = 1

    def of(self, parts: Sequence) -> list:
        """Its parts, in order."""
        return list(parts[self.rank :: self.size])

    def holds(self, number: int) -> bool:
        """Whether part `number` is one of them."""
        return number % self.size == self.rank


ALL = Share()
"""Everything: of a process that is alone."""


class World:
    """A run of one process; `core.peers.Peers` is the same of several."""

    rank, size = 0, 1

    def __init__(self) -> None:
        self._asked = 0

    @property
    def share(self) -> Share:
        """What belongs to this process of whatever is dealt out."""
        return Share(self.rank, self.size)

    def exchange(self, data: bytes) -> list[bytes]:
        """What each process gave, by rank. All processes call it, in the same order of calls; it waits for all of them."""
        return [data]

    def proceed(self, step: int) -> bool:
        """Whether step number `step` of the run may begin. After a process was asked to stop, all processes agree on the last
        step that any of them has begun, and none begins one after it."""
        return not self._asked

    def ask_to_stop(self, number: int = signal.SIGINT) -> None:
        """Stop all processes after the step that is under way, since this one got a signal. Signal handlers may call it."""
        self._asked = number

    @property
    def asked(self) -> int:
        """The signal for which all stop, or 0."""
        return self._asked

    def fail(self, text: str, code: int) -> None:
        """Tell the other processes that this one ends with an error, so that they end too."""

    def wait_for_end(self) -> None:
        """Give the news of another process's end the time to arrive, which explains an error of this one's framework."""

    def on_end(self, function: Callable[[int], None]) -> None:
        """Call `function(code)`, with the exit code, if this process is ended because another one failed, while it waits inside a
        framework."""

    def on_word(self, function: Callable[[int, str, bool], int]) -> None:
        """When this process is ended because another one failed, `function(code, text, first_is_gone)` says why, and returns
        the exit code. The flag is set where the first process cannot say it."""

    def close(self) -> None:
        """The work is done; processes that end after this are not missed."""

    # What follows is made of `exchange` alone.

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.exchange(b"")

    def first(self, data: bytes) -> bytes:
        """What the first process gave; the others' `data` is not used."""
        return self.exchange(data if self.rank == 0 else b"")[0]

    def decide(self, flag: bool) -> bool:
        """The flag as the first process has it: for what depends on the machine, where all must do the same."""
        return self.first(b"\1" if flag else b"\0") == b"\1"

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return b"\1" in self.exchange(b"\1" if flag else b"\0")

    def arrays(self, values: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Named arrays of each process, by rank."""
        if self.size == 1:
            return [dict(values)]
        packed = save({name: np.asarray(value, order="C") for name, value in values.items()})
        return [load(data) for data in self.exchange(packed)]

    def same(self, what: str, data: bytes) -> None:
        """Raise CrossdistilError, in all processes, unless all gave the same `data` of `what`."""
        digests = self.exchange(hashlib.sha256(data).digest())
        others = [str(rank) for rank, digest in enumerate(digests) if digest != digests[0]]
        if others:
            ranks = f"rank{'s' if len(others) > 1 else ''} {', '.join(others)}"
            who = f"{ranks} of {self.size} have others than rank 0"
            raise CrossdistilError(f"{what}: {who}; all processes must be given the same")

    def lead(self, function: Callable, *arguments):
        """`function(*arguments)`, called in the first process only: its result there, None in the others. An error of the
        user's is raised in all."""
        result, found = None, ""
        if self.rank == 0:
            try:
                result = function(*arguments)
            except CrossdistilError as error:
                if self.size == 1:
                    raise
                found = _packed_error(error)
        if self.size > 1 and (found := self.first(found.encode()).decode()):
            raise _same_error([found])
        return result

    def together(self, function: Callable, *arguments):
        """`function(*arguments)`, called in each process. If it raises an error of the user's in any, all processes raise it;
        one that not all have is told with the rank."""
        result, found = None, ""
        try:
            result = function(*arguments)
        except CrossdistilError as error:
            found = _packed_error(error)
            if self.size == 1:
                raise
        errors = [data.decode() for data in self.exchange(found.encode())]
        if not any(errors):
            return result
        raise _same_error(errors)


_ANSWERED = {kind.__name__: kind for kind in (RunFolderError, DamagedCache)}
"""Errors that are not always the end: who catches them must know them in every process."""


def _packed_error(error: CrossdistilError) -> str:
    return f"{type(error).__name__}\0{error}"


def _same_error(errors: Sequence[str]) -> CrossdistilError:
    """One error of those of all processes, by rank; empty for a process that had none."""
    kinds, texts = {text.partition("\0")[0] for text in errors if text}, [text.partition("\0")[2] for text in errors]
    kind = _ANSWERED.get(kinds.pop(), CrossdistilError) if len(kinds) == 1 else CrossdistilError
    if len(set(texts)) == 1:
        return kind(texts[0])
    return kind("\n".join(f"rank {rank}: {line}" for rank, text in enumerate(texts) for line in text.splitlines()))
