"""PyTorch checkpoints that `torch.load(..., weights_only=True)` reads, written without PyTorch and a tensor at a time.

The zip archive is the one that `torch_pickle` describes, with each storage at a multiple of 64 bytes, as PyTorch has it for
mapping files into memory: the header before a storage is padded by an extra field. Each tensor has a storage of its own.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from .model_files import loaded_bytes, write_shards
from .tensors import Tensor, TensorInfo
from .torch_objects import DTYPE_NAMES, STORAGE_NAMES

FILE = "pytorch_model.bin"
"""The usual name of a model's file."""

_FOLDER = "archive"
_ALIGNMENT = 64
_DATE = (1980, 1, 1, 0, 0, 0)
"""The first one that an archive can have: the same tensors give the same bytes."""
_HEADER_SIZE, _ZIP64_SIZE, _EXTRA = 30, 20, struct.Struct("<2sH")
_UNIX = 3
_TORCH_NAMES = {own: name for name, own in DTYPE_NAMES.items()}


def write(folder: Path, tensors: Sequence[Tensor], file_name: str = FILE, shard_size: int | None = None) -> None:
    """Write the tensors to a file, or to files of up to `shard_size` bytes with the index that transformers reads."""
    write_shards(folder, tensors, file_name, shard_size, _write_file)


def _write_file(path: Path, tensors: Sequence[Tensor]) -> None:
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes | memoryview) -> None:
            _add(archive, file, name, data)

        add("data.pkl", _pickle([tensor.info for tensor in tensors]))
        add(".format_version", b"1")
        add(".storage_alignment", str(_ALIGNMENT).encode())
        add("byteorder", b"little")
        for key, tensor in enumerate(tensors):
            add(f"data/{key}", loaded_bytes(tensor, path))
        add("version", b"3\n")


def _add(archive: zipfile.ZipFile, file: BinaryIO, name: str, data: bytes | memoryview) -> None:
    entry = zipfile.ZipInfo(f"{_FOLDER}/{name}", _DATE)
    entry.create_system = _UNIX
    entry.file_size = len(data)
    # zipfile's own rule, which it does not tell: the size of the header depends on it.
    large = len(data) * 1.05 > zipfile.ZIP64_LIMIT
    used = file.tell() + _HEADER_SIZE + len(entry.filename) + _EXTRA.size + (_ZIP64_SIZE if large else 0)
    padding = -used % _ALIGNMENT
    entry.extra = _EXTRA.pack(b"FB", padding) + b"Z" * padding
    with archive.open(entry, "w", force_zip64=large) as stream:
        stream.write(data)


def _pickle(infos: Sequence[TensorInfo]) -> bytes:
    """The pickle of an OrderedDict of tensors, in protocol 2, as PyTorch writes it."""
    entries = b"".join(_text(info.name) + _tensor(str(key), info) for key, info in enumerate(infos))
    return b"\x80\x02" + _EMPTY_DICT + b"(" + entries + b"u."


def _tensor(key: str, info: TensorInfo) -> bytes:
    strides, step = [], 1
    for size in reversed(info.shape):
        strides.insert(0, step)
        step *= max(size, 1)
    dtype = _TORCH_NAMES[info.dtype]
    storage = STORAGE_NAMES.get(dtype)
    if storage is not None:
        version, kind, count, last = "_rebuild_tensor_v2", _global("torch", storage), info.elements, b""
    else:
        version, kind, count = "_rebuild_tensor_v3", _global("torch.storage", "UntypedStorage"), info.size
        last = _global("torch", dtype)
    reference = b"(" + _text("storage") + kind + _text(key) + _text("cpu") + _number(count) + b"tQ"
    arguments = reference + _number(0) + _numbers(info.shape) + _numbers(strides) + b"\x89" + _EMPTY_DICT + last
    return _global("torch._utils", version) + b"(" + arguments + b"tR"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


_EMPTY_DICT = _global("collections", "OrderedDict") + b")R"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(number: int) -> bytes:
    if number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)


def _numbers(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_number, numbers)) + b"t"
