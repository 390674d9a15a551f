"""The tensors of a safetensors file as float32, read when they are asked for: the file is mapped into memory, so that what is
stored as float32 is held once, by the page cache, which all processes of a machine share."""

from __future__ import annotations

import math
import mmap
import os
import time
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from .errors import CheckpointError
from .json_files import parse_json

_TYPES = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
"""Types of weights; integers are those of a quantized model, which are not weights alone. NumPy has no bfloat16: its 16 bits are
the upper half of a float32's."""
NO_WEIGHTS = "holds no weights, only what tells which model a cache or an export is of; give the folder that has them"
_TICK_NS = 2_000_000_000  # of FAT, the coarsest there is
_AT_ONCE = 1 << 20  # numbers that are looked at


@dataclass(frozen=True)
class FileState:
    """What tells that a file was changed. The last is the time of the last change of any kind, which no program can set back."""

    path: Path
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> FileState:
        """Of a file at `path` with that status."""
        return cls(path.resolve(), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def is_settled(self) -> bool:
        """Whether another change would show: one within a tick of the file system's clock after the last does not."""
        return time.time_ns() - max(self.modified_ns, self.changed_ns) > _TICK_NS

    def holds(self) -> bool:
        """Whether the file is still as it was."""
        try:
            return FileState.of(self.path, os.stat(self.path)) == self
        except OSError:
            return False


class TensorFile:
    """A mapped safetensors file."""

    def __init__(self, path: Path):
        """Raises CheckpointError, SafetensorError, OSError or ValueError where it is damaged: what is cut off is found here, and
        not when a tensor is used."""
        with safe_open(path, framework="numpy"):  # which checks that the tensors fill the file
            pass
        with path.open("rb") as file:
            self.path, self.state = path, FileState.of(path, os.fstat(file.fileno()))
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(self._map[:8], "little")
        header = parse_json(self._map[8 : 8 + length], f"{path}: the header", CheckpointError)
        header.pop("__metadata__", None)
        self._entries, self._first = header, 8 + length
        ends = [entry["data_offsets"][1] for entry in header.values()]
        if self._first + max(ends, default=0) != len(self._map):
            raise CheckpointError(f"{path}: is being written: its size changed while it was opened")

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def tensor(self, name: str) -> StoredTensor:
        """The tensor of that name, which is there. Raises CheckpointError for a type that is none of weights."""
        entry = self._entries[name]
        if entry["dtype"] not in _TYPES:
            raise CheckpointError(f"{self.path}: {name} is of type {entry['dtype']}, expected {', '.join(_TYPES)}")
        start, end = (self._first + offset for offset in entry["data_offsets"])
        return StoredTensor(self, entry["dtype"], tuple(entry["shape"]), start, end)

    def bytes(self, start: int, end: int) -> np.ndarray:
        """A part of the file, which cannot be written to."""
        return np.frombuffer(self._map, np.uint8, end - start, start)

    def release(self, start: int, end: int) -> None:
        """Take a part of the file out of this process's memory, until it is read again."""
        if hasattr(self._map, "madvise") and end > start:
            first = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, end - first)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a mapped file."""

    file: TensorFile
    kind: str
    shape: tuple[int, ...]
    start: int
    end: int

    def read(self) -> np.ndarray:
        """Its values in float32; a view of the file that cannot be written to, where it holds them so."""
        stored = self.file.bytes(self.start, self.end).view(_TYPES[self.kind]).reshape(self.shape)
        if self.kind == "BF16":
            return np.left_shift(stored, 16, dtype=np.uint32).view(np.float32)
        return stored if self.kind == "F32" and stored.flags.aligned else stored.astype(np.float32)

    def release(self) -> None:
        """It is not needed for now."""
        self.file.release(self.start, self.end)


class StoredTensors(Mapping[str, np.ndarray]):
    """Tensors by canonical name. What iterates over `items` has one of them in memory at a time."""

    def __init__(self, stored: Mapping[str, StoredTensor]):
        self._stored = dict(stored)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def items(self) -> ItemsView[str, np.ndarray]:
        """Names and tensors."""
        return _Items(self)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is not read for it."""
        return self._stored[name].shape

    @property
    def state(self) -> FileState | None:
        """Of the file that holds them."""
        return next((stored.file.state for stored in self._stored.values()), None)

    def release(self, name: str) -> None:
        """A tensor is not needed for now."""
        self._stored[name].release()


class SomeRows(StoredTensors):
    """Tensors of a file, of which some have only some of their rows here."""

    def __init__(self, whole: StoredTensors, names: Iterable[str], rows: np.ndarray):
        super().__init__(whole._stored)
        self._cut, self._rows = frozenset(names), rows

    def __getitem__(self, name: str) -> np.ndarray:
        array = super().__getitem__(name)
        return array[self._rows] if name in self._cut else array

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of what is here."""
        shape = super().shape(name)
        return (len(self._rows), *shape[1:]) if name in self._cut else shape

    @property
    def state(self) -> None:
        """No file holds these tensors as they are here."""
        return None


class NamedTensors(Mapping[str, np.ndarray]):
    """The names of a model's tensors that are not read, or drawn, yet."""

    def __init__(self, names: Iterable[str] = ()):
        self._names = dict.fromkeys(names)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        raise self._unread(name)

    def _unread(self, name: str) -> Exception:
        return RuntimeError(f"{name} is planned, and not loaded")

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names


class AbsentTensors(NamedTensors):
    """The names of a model's tensors where the weights themselves are elsewhere, and the digest of the model."""

    def __init__(self, names: Iterable[str], digest: str, folder: Path):
        super().__init__(names)
        self.digest, self.folder = digest, folder

    def _unread(self, name: str) -> Exception:
        return CheckpointError(f"{self.folder}: {NO_WEIGHTS}")


class _Items(ItemsView):
    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        for name in self._mapping:
            yield name, self._mapping[name]
            self._mapping.release(name)


def is_finite(array: np.ndarray) -> bool:
    """Whether all values are; a part after the other, without an array of that size."""
    flat = array.reshape(-1)
    return all(np.isfinite(flat[first : first + _AT_ONCE]).all() for first in range(0, math.prod(array.shape), _AT_ONCE))
