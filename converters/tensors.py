"""What every checkpoint format is to the rest: named tensors, each read when it is asked for and written when it is there.

A format is a module with `open_checkpoint(path) -> Checkpoint` and `write(folder, tensors, ...)`. Nothing here knows what the
names mean, and no more than one tensor need be in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np

from ..core.errors import CheckpointError

DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "BF16": ml_dtypes.bfloat16,
        "I64": "<i8",
        "I32": "<i4",
        "I16": "<i2",
        "I8": "i1",
        "U64": "<u8",
        "U32": "<u4",
        "U16": "<u2",
        "U8": "u1",
        "BOOL": "?",
    }.items()
}
"""Type of the elements as safetensors names it -> NumPy's. Formats translate their own names to these."""


def dtype_name(dtype: np.dtype) -> str:
    """The name of a NumPy type; KeyError for one that no checkpoint holds."""
    return _NAMES[np.dtype(dtype).newbyteorder("<")]


_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    """A key of `DTYPES`."""

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar, whose shape is ()."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def size(self) -> int:
        """Bytes."""
        return self.elements * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Tensor:
    """A tensor that is read by calling `load()`: a C-ordered array of exactly `info`'s shape and type."""

    info: TensorInfo
    load: Callable[[], np.ndarray]


@dataclass
class Checkpoint:
    """An opened checkpoint: the header is read and checked, the tensors are not."""

    format: str
    """What it is, for people: `TensorFlow checkpoint (V2, 2 shards)`."""
    path: Path
    """The file or folder as errors name it."""
    tensors: dict[str, Tensor]
    """By the names that the file has, in its order."""
    notes: list[str] = field(default_factory=list)
    """What its user should know: that there are no checksums in it, say."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> reason, of entries that are no tensors of numbers (a saved object graph, a text)."""
    framework: str = ""
    """Who reads it, as `layouts.LAYOUTS` calls it; set by `formats.open_checkpoint`."""


def in_shards(tensors: Sequence[Tensor], shard_size: int | None) -> list[list[Tensor]]:
    """The tensors in their order, in one shard, or in shards of up to `shard_size` bytes (more where one tensor has more)."""
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shard_size is not None and shards[-1] and filled + tensor.info.size > shard_size:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.info.size
    return shards


def loaded_content(tensor: Tensor, place: str) -> np.ndarray:
    """Load a tensor that is to be written at `place`: its bytes (size,) uint8. Raises CheckpointError if it is not what its
    header, which may be written already, says."""
    info, array = tensor.info, tensor.load()
    if array.shape != info.shape or array.dtype != DTYPES[info.dtype]:
        raise CheckpointError(f"{place}: is {array.dtype} {array.shape}, but was announced as {info.dtype} {info.shape}")
    return array.reshape(-1).view(np.uint8)


def read_into(file: BinaryIO, content: np.ndarray, what: str) -> None:
    """Fill an array of bytes (size,) uint8 from a file, from where it stands. Raises CheckpointError, in which `what` names the
    file, where it ends before: it was long enough when it was opened."""
    position = 0
    while position < len(content):
        count = file.readinto(memoryview(content[position:]))
        if not count:
            raise CheckpointError(f"{what} became shorter since it was opened")
        position += count
