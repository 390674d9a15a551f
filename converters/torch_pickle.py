"""PyTorch's checkpoints (`.bin`, `.pt`, `.pth`, `.pkl`), read without PyTorch and without running what they hold.

Since PyTorch 1.6 a file is a zip archive whose entries are not compressed: `NAME/data.pkl`, a pickle of everything but the
numbers, `NAME/data/KEY` for the bytes of each storage, `NAME/byteorder`. Before, it was a row of pickles: a magic number, a
version, facts of the machine, the pickle of everything, the storages' keys; and then for each storage the number of its
elements (int64) and its bytes. In the pickle a tensor is a call of `torch._utils._rebuild_tensor_v2` with a storage, an offset,
a shape and strides, and a storage is a reference ('storage', type, key, device, elements). Tensors may share a storage.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..core.errors import CheckpointError
from ..core.safe_pickle import Refused, load, load_next
from ..core.shown import plain, shown
from .model_files import MAX_NUMBER, as_tensor, check_shape, open_shards, opened, read_blocks, read_bytes, size_of
from .tensors import DTYPES, Checkpoint, Tensor, TensorInfo
from .torch_objects import ALLOWED, DTYPE_NAMES, Storage, TorchTensor, named_tensors
from .torch_pickle_write import FILE, write

__all__ = ["FILE", "INDEX", "is_checkpoint", "open_checkpoint", "write"]

INDEX = f"{FILE}.index.json"
"""What a folder may have, if not `FILE`."""

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
_MAX_DIRECTORY = 1 << 24
"""Bytes that `zipfile` may read at once: some hundred belong to an entry, which takes a kilobyte of memory."""
_SMALL_VIEW = 1 << 20
_COUNT = struct.Struct("<q")


@dataclass(frozen=True)
class _Place:
    """Where a storage's bytes are."""

    offset: int
    size: int
    checksum: int | None


@dataclass
class _Source:
    """A file's storages."""

    path: Path
    places: Mapping[str, _Place]
    verified: set[str] = field(default_factory=set)


def is_checkpoint(path: Path) -> bool:
    """Whether a file's content is PyTorch's, or a folder has a model's file by its usual name."""
    if path.is_dir():
        return any((path / name).is_file() for name in (FILE, INDEX))
    if not path.is_file():
        return False
    with opened(path) as file:
        start = file.read(_LOCAL_HEADER.size + 1000)
    if start.startswith(_ZIP):
        return _is_archive(path, start)
    return _begins_old(path)


def open_checkpoint(path: Path) -> Checkpoint:
    """A file, or the folder of one or of several with an index. Raises CheckpointError."""
    if not path.is_dir():
        return _open_file(path)
    if (path / FILE).is_file():
        return _open_file(path / FILE)
    if not (path / INDEX).is_file():
        raise CheckpointError(f"{path}: has neither {FILE} nor {INDEX}")
    tensors, shards = open_shards(path / INDEX, _open_file)
    notes = list(dict.fromkeys(note for shard in shards for note in shard.notes))
    skipped = {name: reason for shard in shards for name, reason in shard.skipped.items()}
    return Checkpoint(f"{shards[0].format}, {len(shards)} file{'s' * (len(shards) > 1)}", path, tensors, notes, skipped)


def _open_file(path: Path) -> Checkpoint:
    notes: list[str] = []
    with opened(path) as file:
        start = file.read(len(_ZIP))
    try:
        root, source, kind = (_read_archive if start == _ZIP else _read_old)(path, notes)
    except Refused as error:
        raise CheckpointError(f"{error}; if a whole model was saved, save its state_dict() instead") from error
    found, skipped = named_tensors(root, str(path), notes)
    tensors = {}
    for name, tensor in found.items():
        info, place = _check(name, tensor, source)
        tensors[name] = Tensor(info, lambda info=info, tensor=tensor, place=place: _load(info, tensor, place, source))
    return Checkpoint(kind, path, tensors, notes, skipped)


# ---------------------------------------------------------------------------------------------- archives


class _Limited(io.FileIO):
    """A file for `zipfile`, which reads a directory of any claimed size at once."""

    def read(self, size: int = -1) -> bytes:
        if size > _MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"the directory has {size:,} bytes, expected at most {_MAX_DIRECTORY:,}")
        return super().read(size)


def _is_archive(path: Path, start: bytes) -> bool:
    """By the first entry, which tells it of a file that is cut off as well, or by the directory."""
    if len(start) >= _LOCAL_HEADER.size:
        length = _LOCAL_HEADER.unpack(start[: _LOCAL_HEADER.size])[9]
        if start[_LOCAL_HEADER.size :][:length].endswith(b"/data.pkl"):
            return True
    try:
        return any(entry.filename.endswith("/data.pkl") for entry in _directory(path))
    except CheckpointError:
        return False


def _directory(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with _Limited(path) as file, zipfile.ZipFile(file) as archive:
            return archive.infolist()
    except Exception as error:  # `zipfile` raises many kinds for a damaged directory
        reason = plain(str(error))
        raise CheckpointError(f"{path}: is cut off or damaged: its directory of entries cannot be read ({reason})") from error


def _read_archive(path: Path, notes: list[str]) -> tuple[Any, _Source, str]:
    directory = _directory(path)
    entries = {entry.filename: entry for entry in directory}
    if len(entries) != len(directory):
        raise CheckpointError(f"{path}: has an entry twice in its directory")
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"{path}: has {len(pickles)} entries NAME/data.pkl, expected 1 as PyTorch writes it")
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in entries:
        raise CheckpointError(f"{path}: is a TorchScript program; save the model's state_dict() instead")
    # As after torch.serialization.set_crc32_options(False)
    checksums = any(entry.CRC for entry in directory)
    if not checksums:
        notes.append("was saved without checksums: changed bytes cannot be noticed")
    with opened(path) as file:
        size = size_of(file)
        places = {}
        for name, entry in entries.items():
            if name == pickles[0] or name == f"{prefix}byteorder" or name.startswith(f"{prefix}data/"):
                places[name.removeprefix(prefix)] = _find(file, size, entry, checksums, path)
        if "byteorder" in places:
            order = _read_entry(file, places["byteorder"], f"{path}: {prefix}byteorder").decode("latin-1")
            if order != "little":
                raise CheckpointError(f"{path}: was saved with byte order {shown(order)}, expected 'little'")
        data = _read_entry(file, places["data.pkl"], f"{path}: {pickles[0]}")
    storages = {name.removeprefix("data/"): place for name, place in places.items() if name.startswith("data/")}
    root = load(data, f"{path}: {pickles[0]}", ALLOWED, Storage.from_reference)
    return root, _Source(path, storages), "PyTorch checkpoint"


def _find(file: BinaryIO, size: int, entry: zipfile.ZipInfo, checksums: bool, path: Path) -> _Place:
    where = f"{path}: {plain(entry.filename)}"
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED or entry.compress_size != entry.file_size:
        raise CheckpointError(f"{where} is compressed or encrypted, which PyTorch's are not")
    if not 0 <= entry.header_offset <= size - _LOCAL_HEADER.size:
        raise CheckpointError(f"{where} is cut off: it begins at byte {entry.header_offset:,} of {size:,}")
    file.seek(entry.header_offset)
    header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    name_length, extra_length = header[9:]
    if header[0] != _ZIP or file.read(name_length) != entry.orig_filename.encode("utf-8"):
        raise CheckpointError(f"{where} is not where the directory has it")
    offset = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if entry.file_size > size - offset:
        raise CheckpointError(f"{where} is cut off: it would end at byte {offset + entry.file_size:,} of {size:,}")
    return _Place(offset, entry.file_size, entry.CRC if checksums else None)


def _read_entry(file: BinaryIO, place: _Place, where: str) -> bytes:
    data = read_bytes(file, place.offset, place.size, where)
    if place.checksum is not None and zlib.crc32(data) != place.checksum:
        raise CheckpointError(f"{where} is damaged: its checksum is wrong")
    return data.tobytes()


# ---------------------------------------------------------------------------------------------- the old format


def _begins_old(path: Path) -> bool:
    with opened(path) as file:
        try:
            return load_next(file, min(size_of(file), 100), str(path), {}) == _MAGIC
        except CheckpointError:
            return False


def _read_old(path: Path, notes: list[str]) -> tuple[Any, _Source, str]:
    if not _begins_old(path):
        raise CheckpointError(f"{path}: is no PyTorch checkpoint: neither a zip archive nor a pickle with PyTorch's magic number")
    with opened(path) as file:
        size = size_of(file)

        def pickle(what: str, *arguments: Any) -> Any:
            return load_next(file, size, f"{path}: {what}", *(arguments or ({},)))

        pickle("the magic number")
        version, machine = pickle("the version"), pickle("the facts of the machine")
        if version != _PROTOCOL or not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise CheckpointError(f"{path}: is not of version {_PROTOCOL} and little-endian, as PyTorch writes it")
        storages: dict[str, Storage] = {}

        def reference(identity: Any) -> Storage:
            storage = Storage.from_reference(identity)
            known = storages.setdefault(storage.key, storage)
            if (known.dtype, known.elements) != (storage.dtype, storage.elements):
                raise CheckpointError(f"{path}: describes the storage {plain(storage.key)} in two ways")
            return storage

        root = pickle("the pickle", ALLOWED, reference)
        keys = pickle("the storages' keys")
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
            raise CheckpointError(f"{path}: the storages' keys are not those of its tensors")
        places = {}
        for key in keys:
            count = file.read(_COUNT.size)
            expected = storages[key].elements
            if len(count) < _COUNT.size:
                break  # found again when the tensor is known, to be named
            if key in places or _COUNT.unpack(count)[0] != expected:
                raise CheckpointError(f"{path}: the storage {plain(key)} is damaged: it has not {expected:,} elements")
            places[key] = _Place(file.tell(), storages[key].size, None)
            file.seek(min(file.tell() + storages[key].size, size))
        if file.tell() != size:
            raise CheckpointError(f"{path}: {size - file.tell():,} bytes follow the last storage")
    notes.append("is of PyTorch's format before 1.6, which has no checksums: changed bytes cannot be noticed")
    return root, _Source(path, places), "PyTorch checkpoint (format before 1.6)"


# ---------------------------------------------------------------------------------------------- tensors


def _check(name: str, tensor: TorchTensor, source: _Source) -> tuple[TensorInfo, _Place]:
    """What is known of a tensor, and its storage; CheckpointError unless all its elements are in the file."""
    where = f"{source.path}: {name}"
    if tensor.dtype not in DTYPE_NAMES:
        raise CheckpointError(f"{where} is of type {tensor.dtype}, expected one of {', '.join(DTYPE_NAMES)}")
    dtype = DTYPE_NAMES[tensor.dtype]
    item = DTYPES[dtype].itemsize
    info = TensorInfo(name, check_shape(tensor.shape, where), dtype)
    if len(tensor.strides) != len(info.shape) or not all(0 <= stride < MAX_NUMBER for stride in tensor.strides):
        raise CheckpointError(f"{where} has no strides, expected {len(info.shape)} numbers")
    place = source.places.get(tensor.storage.key)
    if place is None:
        raise CheckpointError(f"{where}: its storage {plain(tensor.storage.key)} is missing or cut off")
    if place.size != tensor.storage.size:
        raise CheckpointError(f"{where}: its storage has {place.size:,} bytes, expected {tensor.storage.size:,}")
    if _end(tensor) * item > place.size:
        raise CheckpointError(f"{where}: shape {list(info.shape)} and strides {list(tensor.strides)} reach beyond its storage")
    if info.size > max(place.size, _SMALL_VIEW):
        raise CheckpointError(f"{where}: is a view that repeats {place.size:,} bytes as {info.size:,}; save its .contiguous()")
    if place.offset + _end(tensor) * item > source.path.stat().st_size:
        raise CheckpointError(f"{where} is cut off")
    return info, place


def _end(tensor: TorchTensor) -> int:
    """The element behind the last one that is the tensor's."""
    if 0 in tensor.shape:
        return 0
    return tensor.offset + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides)) + 1


def _load(info: TensorInfo, tensor: TorchTensor, place: _Place, source: _Source) -> np.ndarray:
    where, item = f"{source.path}: {info.name}", DTYPES[info.dtype].itemsize
    end = _end(tensor) * item
    first = min(tensor.offset * item, end)
    with opened(source.path) as file:
        data = read_bytes(file, place.offset + first, end - first, where)
        if place.checksum is not None and tensor.storage.key not in source.verified:
            # Of the whole storage, which may be more than the tensor.
            checksum = 0
            for block in read_blocks(file, place.offset, first, where):
                checksum = zlib.crc32(block, checksum)
            checksum = zlib.crc32(data, checksum)
            for block in read_blocks(file, place.offset + end, place.size - end, where):
                checksum = zlib.crc32(block, checksum)
            if checksum != place.checksum:
                raise CheckpointError(f"{where} is damaged: the checksum of its storage {plain(tensor.storage.key)} is wrong")
            source.verified.add(tensor.storage.key)
    if _is_contiguous(tensor):
        return as_tensor(data, info, where)
    flat = as_tensor(data, TensorInfo(info.name, (len(data) // item,), info.dtype), where)
    strides = [stride * item for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(flat, info.shape, strides).copy(order="C")


def _is_contiguous(tensor: TorchTensor) -> bool:
    if math.prod(tensor.shape) == 0:
        return True
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
