"""PyTorch's files as rows of bytes: the pickle of everything but the numbers, and where the storages are, in the zip archives
since PyTorch 1.6 and in the rows of pickles before. `torch_pickle` makes tensors of them.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..core.errors import CheckpointError
from ..core.safe_pickle import load, load_next
from ..core.shown import plain, shown
from .model_files import opened, read_bytes, size_of
from .torch_objects import ALLOWED, Storage

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_ZIP = b"PK\x03\x04"
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 1
_MAX_DIRECTORY = 1 << 24
"""Bytes that `zipfile` may read at once: some hundred belong to an entry, which takes a kilobyte of memory."""
_COUNT = struct.Struct("<q")


@dataclass(frozen=True)
class Place:
    """Where a storage's bytes are."""

    offset: int
    size: int
    checksum: int | None


@dataclass
class Source:
    """A file's storages."""

    path: Path
    places: Mapping[str, Place]
    verified: set[str] = field(default_factory=set)


def is_torch_file(path: Path) -> bool:
    """Whether a file's content is PyTorch's."""
    with opened(path) as file:
        start = file.read(_LOCAL_HEADER.size + 1000)
    return _is_archive(path, start) if start.startswith(_ZIP) else _begins_old(path)


def read_root(path: Path, notes: list[str]) -> tuple[Any, Source, str]:
    """(what the pickle holds, the storages, the name of the format); `notes` get what the user should know of the file. Raises
    CheckpointError, and Refused for a pickle that would run code."""
    with opened(path) as file:
        start = file.read(len(_ZIP))
    return (_read_archive if start == _ZIP else _read_old)(path, notes)


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


def _read_archive(path: Path, notes: list[str]) -> tuple[Any, Source, str]:
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
    return root, Source(path, storages), "PyTorch checkpoint"


def _find(file: BinaryIO, size: int, entry: zipfile.ZipInfo, checksums: bool, path: Path) -> Place:
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
    return Place(offset, entry.file_size, entry.CRC if checksums else None)


def _read_entry(file: BinaryIO, place: Place, where: str) -> bytes:
    data = read_bytes(file, place.offset, place.size, where)
    if place.checksum is not None and zlib.crc32(data) != place.checksum:
        raise CheckpointError(f"{where} is damaged: its checksum is wrong")
    return data.tobytes()


def _begins_old(path: Path) -> bool:
    with opened(path) as file:
        try:
            return load_next(file, min(size_of(file), 100), str(path), {}) == _MAGIC
        except CheckpointError:
            return False


def _read_old(path: Path, notes: list[str]) -> tuple[Any, Source, str]:
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
            places[key] = Place(file.tell(), storages[key].size, None)
            file.seek(min(file.tell() + storages[key].size, size))
        if file.tell() != size:
            raise CheckpointError(f"{path}: {size - file.tell():,} bytes follow the last storage")
    notes.append("is of PyTorch's format before 1.6, which has no checksums: changed bytes cannot be noticed")
    return root, Source(path, places), "PyTorch checkpoint (format before 1.6)"
