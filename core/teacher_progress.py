"""How far a teacher cache is written: a byte for each batch, in a file that any number of processes mark at once.

The file is a digest of which rows each batch has, then the bytes. A batch is marked after its outputs are on the disk, so that
an interrupted writer, or several of them in another number, go on with the batches that are not.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .files import replace_file

_DONE = 0xA5  # no single flipped bit makes it of 0


class Progress:
    """The record of a cache that is written in the batches of `plan` (batches, batch size): rows, of which -1 only fills."""

    def __init__(self, path: Path, plan: np.ndarray):
        self.path, self.plan = path, plan
        self._head = hashlib.sha256(f"{plan.shape}".encode() + np.ascontiguousarray(plan, "<i8").tobytes()).digest()

    def begin(self, keep: bool) -> None:
        """Make the file; what one of the same plan says is kept if `keep` is given. Raises OSError."""
        if keep and self._read() is not None:
            return
        with replace_file(self.path) as temporary:
            temporary.write_bytes(self._head + bytes(len(self.plan)))

    def done(self) -> np.ndarray:
        """Whether each batch is on the disk: (batches,) bool."""
        found = self._read()
        return np.zeros(len(self.plan), bool) if found is None else np.frombuffer(found, np.uint8) == _DONE

    def rows(self) -> int:
        """How many rows are on the disk."""
        return int((self.plan[self.done()] >= 0).sum())

    def mark(self, batches: Sequence[int]) -> None:
        """These batches are on the disk. Raises OSError."""
        # A byte at a time, and not the file: other processes mark theirs.
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for batch in batches:
                os.pwrite(descriptor, bytes([_DONE]), len(self._head) + batch)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _read(self) -> bytes | None:
        """The byte of each batch, or None where there is no file of this plan."""
        try:
            found = self.path.read_bytes()
        except OSError:
            return None
        head, marks = found[: len(self._head)], found[len(self._head) :]
        return marks if head == self._head and len(marks) == len(self.plan) else None
