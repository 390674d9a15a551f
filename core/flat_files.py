"""Files of numbers alone, whose size is known before: made in full, then written in any order and by several processes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np


class NumberWriter:
    """Writes numbers to places of a file. Not through a map: of a full disk that is an error and not the end of the process, and
    processes of several machines may write into one page."""

    def __init__(self, path: Path, dtype: np.dtype):
        self._path, self._dtype = path, dtype

    def __enter__(self) -> NumberWriter:
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def write(self, start: int, numbers: np.ndarray) -> None:
        """Put them behind the first `start` numbers of the file."""
        data = np.ascontiguousarray(numbers, self._dtype).view(np.uint8).data
        place = start * self._dtype.itemsize
        while data:
            written = os.pwrite(self._descriptor, data, place)
            data, place = data[written:], place + written

    def flush(self) -> None:
        """Wait until they are on the disk."""
        os.fsync(self._descriptor)


def reserve(path: Path, size: int) -> bool:
    """Make a file of that size; returns whether it was one before."""
    with path.open("ab") as file:
        before = file.tell()
        if before > size:
            file.truncate(size)
        try:
            # Reserved now: a full disk is an error here, and a killed process where a mapped file finds it out.
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError) as error:  # macOS lacks it, and some file systems do
            if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            file.truncate(size)
    return before == size
