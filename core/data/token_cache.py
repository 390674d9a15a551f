"""Token tables and other arrays on disk, memory-mapped: made once from data that need not fit in memory, and never trusted
unread.

An entry is a folder with an .npy file for each array and `sha256`, their checksums. Processes may share the cache: one makes an
entry, and the others that need it wait. A damaged entry is made again, and a cache that cannot be written is done without.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from ..cache_folder import kind_folder
from ..files import put_folder
from ..locks import hold_folder, made_by_one
from ..workplaces import remove_dead, workplace
from .token_table import TokenTable

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Some rows of a table: their tokens in one array, and of each row its length and its first length."""

Arrays = Mapping[str, np.ndarray]
"""A piece of some arrays, by name."""

TABLE_ARRAYS = {"ids": np.dtype("<i4"), "offsets": np.dtype("<i8"), "first_lengths": np.dtype("<i4")}
_HEADER = 128  # bytes before the numbers in the .npy files that are written here
_BLOCK = 1 << 22


def cached_table(
    key: str, cache_folder: Path | None, make: Callable[[], Iterator[Rows]], pad_id: int, apart: bool = False, types: bool = True
) -> TokenTable:
    """The table of that key (a digest of all it depends on), from the cache (the default one unless given) or put
    there as `make()` yields it."""
    arrays = cached_arrays("tokens", key, cache_folder, TABLE_ARRAYS, lambda: _pieces(make()))
    return TokenTable(**arrays, pad_id=pad_id, apart=apart, types=types)


def table_of(rows: Iterator[Rows], pad_id: int, apart: bool = False, types: bool = True) -> TokenTable:
    """The table of these rows, in memory."""
    return TokenTable(**gathered(TABLE_ARRAYS, _pieces(rows)), pad_id=pad_id, apart=apart, types=types)


def _pieces(rows: Iterator[Rows]) -> Iterator[Arrays]:
    """The arrays of a table, piece by piece."""
    count = 0
    yield {"offsets": np.zeros(1, np.int64)}
    for tokens, lengths, first_lengths in rows:
        yield {"ids": tokens, "offsets": count + np.cumsum(lengths), "first_lengths": first_lengths}
        count += len(tokens)


def cached_arrays(
    kind: str, key: str, cache_folder: Path | None, dtypes: Mapping[str, np.dtype], make: Callable[[], Iterator[Arrays]]
) -> dict[str, np.ndarray]:
    """The arrays of that kind and key, one axis each: from the cache, or put there piece by piece as `make()` yields them."""
    folder = kind_folder(kind, cache_folder) / key
    remove_dead(folder.parent)  # also where nothing is left to be written
    stored = _load(folder, dtypes)
    if stored is not None:
        return stored
    problem: Exception | str = "what was written cannot be read back"
    with made_by_one(folder):
        stored = _load(folder, dtypes)
        if stored is None:
            try:
                _store(folder, dtypes, make())
            except OSError as error:  # no reason to stop, and none to complain where another process was faster
                problem = error
            stored = _load(folder, dtypes)
    if stored is None:
        logging.getLogger(__name__).warning("%s: the tokens could not be cached: %s", folder, problem)
        return gathered(dtypes, make())
    return stored


def update_with_file(digest, path: Path) -> None:
    """Add a file's content to a `hashlib` digest."""
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)


def _checksums(folder: Path, names: Iterable[str]) -> str:
    sums = []
    for name in names:
        digest = hashlib.sha256()
        update_with_file(digest, folder / f"{name}.npy")
        sums.append(digest.hexdigest())
    return "\n".join(sums)


def _load(folder: Path, dtypes: Mapping[str, np.dtype]) -> dict[str, np.ndarray] | None:
    """The entry, memory-mapped and in use from now on, or None where there is none or not the one that was written."""
    try:
        hold_folder(folder)
        if (folder / "sha256").read_text(encoding="ascii") != _checksums(folder, dtypes):
            return None
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in dtypes}
    except (OSError, ValueError):
        return None


def _store(folder: Path, dtypes: Mapping[str, np.dtype], parts: Iterator[Arrays]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with workplace(folder) as working:
        entry = working / folder.name
        entry.mkdir()
        with contextlib.ExitStack() as stack:
            files = {
                name: stack.enter_context(GrowingArray(entry / f"{name}.npy", dtype)) for name, dtype in dtypes.items()
            }
            for part in parts:
                for name, values in part.items():
                    files[name].append(values)
        (entry / "sha256").write_text(_checksums(entry, dtypes), encoding="ascii")
        put_folder(entry, folder, working)


def gathered(dtypes: Mapping[str, np.dtype], parts: Iterator[Arrays]) -> dict[str, np.ndarray]:
    """The arrays of these pieces, in memory."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in dtypes}
    for part in parts:
        for name, values in part.items():
            found[name].append(np.asarray(values, dtypes[name]))
    return {name: np.concatenate(found[name] or [np.zeros(0, dtype)]) for name, dtype in dtypes.items()}


class GrowingArray:
    """An .npy file of one axis whose length is not known before the end; its header is written last, in the room left."""

    def __init__(self, path: Path, dtype: np.dtype):
        self._path, self._dtype, self.count = path, dtype, 0

    def __enter__(self):
        self._file = self._path.open("wb")
        self._file.write(bytes(_HEADER))
        return self

    def append(self, values: np.ndarray) -> None:
        """Write some more."""
        self._file.write(np.ascontiguousarray(values, self._dtype).data)
        self.count += len(values)

    def __exit__(self, *_):
        text = f"{{'descr': '{self._dtype.str}', 'fortran_order': False, 'shape': ({self.count},), }}"
        magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER - 10)
        with self._file as file:
            file.seek(0)
            file.write(magic + text.ljust(_HEADER - 11).encode("ascii") + b"\n")
