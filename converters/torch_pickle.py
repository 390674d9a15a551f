"""PyTorch's checkpoints (`.bin`, `.pt`, `.pth`, `.pkl`), read without PyTorch and without running what they hold.

Since PyTorch 1.6 a file is a zip archive whose entries are not compressed: `NAME/data.pkl`, a pickle of everything but the
numbers, `NAME/data/KEY` for the bytes of each storage, `NAME/byteorder`. Before, it was a row of pickles: a magic number, a
version, facts of the machine, the pickle of everything, the storages' keys; and then for each storage the number of its
elements (int64) and its bytes. In the pickle a tensor is a call of `torch._utils._rebuild_tensor_v2` with a storage, an offset,
a shape and strides, and a storage is a reference ('storage', type, key, device, elements). Tensors may share a storage.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import numpy as np

from ..core.errors import CheckpointError
from ..core.safe_pickle import Refused
from ..core.shown import plain
from .model_files import MAX_NUMBER, as_tensor, check_shape, open_shards, opened, read_blocks, read_bytes
from .tensors import DTYPES, Checkpoint, Tensor, TensorInfo
from .torch_archive import Place, Source, is_torch_file, read_root
from .torch_objects import DTYPE_NAMES, TorchTensor, named_tensors
from .torch_pickle_write import FILE, write

__all__ = ["FILE", "INDEX", "is_checkpoint", "open_checkpoint", "write"]

INDEX = f"{FILE}.index.json"
"""What a folder may have, if not `FILE`."""

_SMALL_VIEW = 1 << 20


def is_checkpoint(path: Path) -> bool:
    """Whether a file's content is PyTorch's, or a folder has a model's file by its usual name."""
    if path.is_dir():
        return any((path / name).is_file() for name in (FILE, INDEX))
    return path.is_file() and is_torch_file(path)


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
    try:
        root, source, kind = read_root(path, notes)
    except Refused as error:
        raise CheckpointError(f"{error}; if a whole model was saved, save its state_dict() instead") from error
    found, skipped = named_tensors(root, str(path), notes)
    tensors = {}
    for name, tensor in found.items():
        info, place = _check(name, tensor, source)
        tensors[name] = Tensor(info, lambda info=info, tensor=tensor, place=place: _load(info, tensor, place, source))
    return Checkpoint(kind, path, tensors, notes, skipped)


def _check(name: str, tensor: TorchTensor, source: Source) -> tuple[TensorInfo, Place]:
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


def _load(info: TensorInfo, tensor: TorchTensor, place: Place, source: Source) -> np.ndarray:
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
