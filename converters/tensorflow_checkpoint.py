"""TensorFlow checkpoints (V2, the "tensor bundle"), read and written without TensorFlow.

BERT itself and most models of its time are published as such files, and TensorFlow belongs to none of the backends. There are
  PREFIX.index                  a sorted table (`leveldb_table`): name -> entry, and "" -> header (`tensorflow_entries`)
  PREFIX.data-0000i-of-0000n    the elements of the tensors of shard i, C-ordered and little-endian, at the offsets of the entries
  checkpoint                    text: which prefix of the folder is the newest (`tensorflow_files`)
Entries have the masked CRC32C of their tensor. Checkpoints that are saved by their objects instead of the names of variables
are the same files, and hold the graph of the objects besides (`tensorflow_objects`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np

from ..core.errors import CheckpointError
from ..core.shown import shown
from ..core.wire import Malformed, mask_crc
from .leveldb_table import read_table, write_table
from .tensorflow_entries import (
    OTHER_TYPES,
    TEXT,
    TYPES,
    Entry,
    is_grid,
    is_part,
    part_key,
    read_entry,
    read_header,
    write_entry,
    write_header,
)
from .tensorflow_files import find_index, index_path, is_checkpoint, shard_path, write_state
from .tensorflow_objects import GRAPH_KEY, object_names, read_text
from .tensors import DTYPES, Checkpoint, Tensor, TensorInfo, in_shards

__all__ = ["is_checkpoint", "open_checkpoint", "write"]

_CHUNK = 1 << 20
_DIMENSIONS = 32  # NumPy's largest number
_LARGEST = (1 << 63) - 1


def open_checkpoint(path: Path) -> Checkpoint:
    """Read and check the index; `path` is a prefix, one of its files, or a folder that holds one checkpoint."""
    try:
        index = find_index(path)
        return _Bundle(index, read_table(index)).checkpoint()
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def write(folder: Path, tensors: Sequence[Tensor], prefix: str = "bert_model.ckpt", shard_size: int | None = None) -> None:
    """Write the tensors in their order; a shard ends before the tensor that would make it larger than `shard_size` bytes."""
    shards = in_shards(tensors, shard_size)
    index = index_path(folder, prefix)
    entries = {b"": write_header(len(shards))}
    for shard, content in enumerate(shards):
        with shard_path(folder, prefix, shard, len(shards)).open("wb") as file:
            for tensor in content:
                info, key = tensor.info, tensor.info.name.encode()
                if key in entries or is_part(key):
                    raise CheckpointError(f"{index}: cannot hold a tensor '{info.name}': the name is empty, or there twice")
                offset = file.tell()
                entries[key] = write_entry(info.dtype, info.shape, shard, offset, info.size, _append(file, index, tensor))
    write_table(index, entries)
    write_state(folder, prefix)


def _append(file: BinaryIO, index: Path, tensor: Tensor) -> int:
    """Write the elements; their masked checksum. A function, so that a tensor is let go before the next one is loaded."""
    info, array, crc = tensor.info, tensor.load(), 0
    if array.shape != info.shape or array.dtype != DTYPES[info.dtype]:
        found = f"{array.dtype} {list(array.shape)}"
        raise CheckpointError(f"{index}: tensor '{info.name}' is {found}, expected {info.dtype} {list(info.shape)}")
    data = array.reshape(-1).view(np.uint8)
    for start in range(0, len(data), _CHUNK):
        chunk = data[start : start + _CHUNK].tobytes()
        crc = google_crc32c.extend(crc, chunk)
        file.write(chunk)
    return mask_crc(crc)


class _Bundle:
    """An index whose entries are checked one by one, and the sizes of its shards."""

    def __init__(self, index: Path, table: dict[bytes, bytes]):
        self._index = index
        self._table = table
        self._sizes: dict[Path, int] = {}
        self._parts = {key for key in table if is_part(key)}
        try:
            self._shards = read_header(table.get(b""))
        except Malformed as error:
            raise CheckpointError(f"{index}: is no index of a TensorFlow checkpoint: {error}") from error

    def checkpoint(self) -> Checkpoint:
        entries = {self._name(key): self._entry(self._name(key), key) for key in self._table if key and not is_part(key)}
        shards = f"{self._shards} shard" + "s" * (self._shards != 1)
        names = self._object_names(entries)
        kind = "V2" if names is None else "V2, object-based"
        result = Checkpoint(f"TensorFlow checkpoint ({kind}, {shards})", self._index, {})
        if names is not None:
            result.notes.append("Object-based: a tensor has its variable's name, or the path to it where the name is not its own")
        if self._parts:
            result.notes.append(f"Variables that are saved in parts: {sum(bool(entry.slices) for entry in entries.values())}")
        for key, entry in entries.items():
            name = key if names is None else names[key]
            if entry.type in TYPES:
                result.tensors[name] = self._tensor(key, name, entry)
            else:
                self._parts.difference_update(part_key(key, extents) for extents in entry.slices)
                kind = OTHER_TYPES.get(entry.type, f"TensorFlow's type {entry.type}")
                reason = "the graph of the saved objects" if key == GRAPH_KEY else f"{kind} is no type of numbers here"
                result.skipped[name] = reason
        if self._parts:
            raise CheckpointError(f"{self._index}: is damaged: it holds parts of tensors that it does not name")
        return result

    def _name(self, key: bytes) -> str:
        try:
            return key.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{self._index}: is damaged: the name {shown(key, 100)} is not UTF-8") from error

    def _entry(self, name: str, key: bytes) -> Entry:
        """The entry, whose data, if it has its own, is in a file that is there."""
        try:
            entry = read_entry(self._table[key])
        except Malformed as error:
            raise CheckpointError(f"{self._index}: the entry of tensor {shown(name)} is damaged: {error}") from error
        if not entry.slices:
            path, size = self._shard(name, entry), entry.size
            if entry.offset + size > self._sizes[path]:
                expected = f"expected at least {entry.offset + size:,} for tensor {shown(name)}"
                raise CheckpointError(f"{path}: is cut off: it has {self._sizes[path]:,} bytes, {expected}")
        return entry

    def _shard(self, name: str, entry: Entry) -> Path:
        if entry.shard >= self._shards:
            raise CheckpointError(f"{self._index}: tensor {shown(name)} is in shard {entry.shard}, but there are {self._shards}")
        path = shard_path(self._index.parent, self._index.stem, entry.shard, self._shards)
        if path not in self._sizes:
            if not path.is_file():
                raise CheckpointError(f"{path}: is missing; tensor {shown(name)} of {self._index.name} is in it")
            self._sizes[path] = path.stat().st_size
        return path

    def _tensor(self, key: str, name: str, entry: Entry) -> Tensor:
        info = TensorInfo(name, entry.shape, TYPES[entry.type])
        self._check_shape(info, entry)
        if not entry.slices:
            return Tensor(info, partial(_load, info, self._shard(name, entry), entry))
        return Tensor(info, partial(_load_parts, info, self._find_parts(key, info, entry)))

    def _check_shape(self, info: TensorInfo, entry: Entry) -> None:
        place, shape = f"{self._index}: tensor {shown(info.name)}", list(entry.shape)
        if len(shape) > _DIMENSIONS:
            raise CheckpointError(f"{place} has {len(shape)} dimensions, expected at most {_DIMENSIONS}")
        # Without the zeros, which hide that the other dimensions are impossible.
        if TensorInfo("", tuple(filter(None, shape)), info.dtype).size > _LARGEST:
            raise CheckpointError(f"{place} has the impossible shape {shape}")
        if not entry.slices and info.size != entry.size:
            raise CheckpointError(f"{place} has {entry.size:,} bytes, expected {info.size:,} for {info.dtype} {shape}")

    def _find_parts(self, key: str, info: TensorInfo, entry: Entry) -> list[tuple[tuple, TensorInfo, Path, Entry]]:
        """(where in the whole, how it is read) of each part."""
        place, found = f"{self._index}: tensor {shown(info.name)}", []
        regions = [
            tuple((start, size if length is None else length) for (start, length), size in zip(extents, entry.shape))
            for extents in entry.slices
        ]
        if any(len(extents) != len(entry.shape) for extents in entry.slices) or not is_grid(regions, entry.shape):
            raise CheckpointError(f"{place}: its {len(regions)} parts do not make its shape {list(entry.shape)}")
        for extents, region in zip(entry.slices, regions):
            encoded, place_of_part = part_key(key, extents), f"{place}: its part at {[start for start, _ in region]}"
            if encoded not in self._parts:
                raise CheckpointError(f"{place_of_part} is missing")
            self._parts.discard(encoded)
            part = self._entry(info.name, encoded)
            if part.slices or part.type != entry.type or part.shape != tuple(length for _, length in region):
                raise CheckpointError(f"{place_of_part} has another type or shape than the tensor says")
            part_info = TensorInfo(info.name, part.shape, info.dtype)
            self._check_shape(part_info, part)
            where = (*(slice(start, start + length) for start, length in region), ...)
            found.append((where, part_info, self._shard(info.name, part), part))
        # Parts can be at the same place of a small file, and then make a tensor that is larger than any memory.
        if info.size > sum(self._sizes.values()):
            raise CheckpointError(f"{place} has {info.size:,} bytes, more than all shards")
        return found

    def _object_names(self, entries: dict[str, Entry]) -> dict[str, str] | None:
        """Key -> name; None if variables were saved by their names."""
        entry = entries.get(GRAPH_KEY)
        if entry is None or entry.type != TEXT or entry.slices:
            return None
        path = self._shard(GRAPH_KEY, entry)
        with path.open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        try:
            return object_names(read_text(data, entry.crc), list(entries))
        except Malformed as error:
            raise CheckpointError(f"{path}: tensor '{GRAPH_KEY}' is damaged: {error}") from error


def _load(info: TensorInfo, path: Path, entry: Entry) -> np.ndarray:
    array = np.empty(info.shape, DTYPES[info.dtype])
    _read_into(array, info, path, entry)
    return array


def _load_parts(info: TensorInfo, parts: Sequence[tuple[tuple, TensorInfo, Path, Entry]]) -> np.ndarray:
    array = np.empty(info.shape, DTYPES[info.dtype])
    for where, part_info, path, entry in parts:
        target = array[where]
        if target.flags.c_contiguous:
            _read_into(target, part_info, path, entry)
        else:
            target[...] = _load(part_info, path, entry)
    return array


def _read_into(array: np.ndarray, info: TensorInfo, path: Path, entry: Entry) -> None:
    place, target, crc = f"{path}: tensor {shown(info.name)}", array.reshape(-1).view(np.uint8), 0
    try:
        with path.open("rb") as file:
            file.seek(entry.offset)
            for start in range(0, len(target), _CHUNK):
                chunk = memoryview(target[start : start + _CHUNK])
                if file.readinto(chunk) != len(chunk):
                    raise CheckpointError(f"{place} is cut off")
                crc = google_crc32c.extend(crc, bytes(chunk))
    except OSError as error:
        raise CheckpointError(f"{place} cannot be read: {error.strerror or error}") from error
    if mask_crc(crc) != entry.crc:
        raise CheckpointError(f"{place} is damaged: the checksum of its data is wrong")
