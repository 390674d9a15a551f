"""Checksums of a flat file of numbers by block, in a file beside it: opening reads none of the numbers, and a block is compared
when one of its numbers is first used.

The file of sums is the CRC-32C of each block, 4 bytes little-endian, then that of all these bytes.
"""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np

from .errors import DamagedCache
from .files import replace_file

BLOCK = 1 << 20
"""Bytes; the last block of a file is what is left."""
_SUM = np.dtype("<u4")


def write_sums(numbers: Path, sums: Path) -> None:
    """Read the file of numbers and put the sums in their place in one go. Raises OSError, RunFolderError."""
    found = []
    with numbers.open("rb") as file:
        while block := file.read(BLOCK):
            found.append(google_crc32c.value(block))
    data = np.array(found, _SUM).tobytes()
    with replace_file(sums) as temporary:
        temporary.write_bytes(data + google_crc32c.value(data).to_bytes(_SUM.itemsize, "little"))


class CheckedNumbers:
    """The numbers of a file, which is mapped, and what is known of its blocks. Raises DamagedCache, here where the file has not
    the size of `count` numbers or its sums are not as they were written. `remedy` ends a message."""

    def __init__(self, numbers: Path, sums: Path, dtype: np.dtype, count: int, remedy: str):
        self._path, self._width, self._remedy = numbers, dtype.itemsize, remedy
        found, expected = numbers.stat().st_size, count * dtype.itemsize
        if found != expected:
            raise DamagedCache(f"{numbers}: has {found:,} bytes, expected {expected:,}; {remedy}")
        try:
            data = sums.read_bytes()
        except OSError as error:
            raise DamagedCache(f"{sums}: {error.strerror}; {remedy}") from error
        data, own = data[: -_SUM.itemsize], data[-_SUM.itemsize :]
        blocks = -(-expected // BLOCK)
        if len(data) != blocks * _SUM.itemsize or int.from_bytes(own, "little") != google_crc32c.value(data):
            raise DamagedCache(f"{sums}: damaged; {remedy}")
        self._sums = np.frombuffer(data, _SUM)
        self._unseen, self._left = np.ones(blocks, bool), blocks
        mapped = np.memmap(numbers, np.uint8, "r")
        self._bytes = memoryview(mapped)
        self.flat = np.asarray(mapped).view(dtype)
        """Slicing a plain array costs a fraction of slicing a np.memmap."""

    def check(self, starts: np.ndarray, ends: np.ndarray) -> None:
        """Compare the blocks, of which some number is from one of the `starts` to before its end, that were not compared yet."""
        if not self._left:
            return
        firsts, lasts = starts * self._width // BLOCK, (ends * self._width - 1) // BLOCK
        for first, last in zip(firsts.tolist(), lasts.tolist()):
            for block in range(first, last + 1):
                if self._unseen[block]:
                    self._compare(block)

    def _compare(self, block: int) -> None:
        data = self._bytes[block * BLOCK : (block + 1) * BLOCK].tobytes()  # all that the library takes
        if google_crc32c.value(data) != self._sums[block]:
            place = f"bytes {block * BLOCK:,} to {block * BLOCK + len(data) - 1:,}"
            raise DamagedCache(f"{self._path}: block {block + 1:,} of {len(self._sums):,} ({place}) is damaged; {self._remedy}")
        self._unseen[block] = False
        self._left -= 1
