"""What PyTorch's and safetensors' files share: arrays at places in a file, and a model in several files with an index.

The index is a JSON file beside them, `{"metadata": {"total_size": bytes}, "weight_map": {tensor's name: file's name}}`, as
transformers writes it (`model.safetensors.index.json`, `pytorch_model.bin.index.json`) and MindSpore (`param_name_map.json`).
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..core.errors import CheckpointError
from ..core.json_files import read_json
from ..core.plain_names import is_plain_name
from ..core.shown import plain, shown
from .tensors import DTYPES, Checkpoint, Tensor, TensorInfo, in_shards

MAX_DIMENSIONS = 32
"""NumPy's limit."""
MAX_NUMBER = 1 << 48
"""Above any number of elements, and safe to multiply and print."""

_BLOCK = 1 << 20
_PART = re.compile(r"(.*)-[0-9]{5}-of-([0-9]{5})(\..*)")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file to read; what a disk refuses is a CheckpointError."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file, which is left at its start."""
    size = file.seek(0, 2)
    file.seek(0)
    return size


def check_shape(shape: Any, where: str) -> tuple[int, ...]:
    """A shape that an array can have, of numbers that are safe to multiply."""
    numbers = isinstance(shape, (tuple, list)) and len(shape) <= MAX_DIMENSIONS
    if not (numbers and all(type(size) is int and 0 <= size < MAX_NUMBER for size in shape)):
        raise CheckpointError(f"{where} has no shape, expected up to {MAX_DIMENSIONS} numbers")
    if math.prod(filter(None, shape)) >= MAX_NUMBER:
        raise CheckpointError(f"{where} has a shape of too many elements")
    return tuple(shape)


def is_name(name: Any) -> bool:
    """Whether every format can hold this tensor's name: some text, and no halves of characters."""
    return isinstance(name, str) and 0 < len(name) <= 1000 and name.isprintable()


def read_bytes(file: BinaryIO, offset: int, size: int, where: str) -> np.ndarray:
    """An array of these bytes of a file; CheckpointError if it ends before."""
    if offset + size > size_of(file):
        raise CheckpointError(f"{where} is cut off: it ends at byte {offset + size:,} of a file that has {size_of(file):,}")
    data = np.empty(size, np.uint8)
    file.seek(offset)
    if file.readinto(data) != size:
        raise CheckpointError(f"{where} is cut off")
    return data


def read_blocks(file: BinaryIO, offset: int, size: int, where: str) -> Iterator[np.ndarray]:
    """The same in blocks."""
    for start in range(offset, offset + size, _BLOCK):
        yield read_bytes(file, start, min(_BLOCK, offset + size - start), where)


def as_tensor(data: np.ndarray, info: TensorInfo, where: str) -> np.ndarray:
    """An array of bytes as one of the tensor's shape and type."""
    if info.dtype == "BOOL" and data.size and data.max() > 1:
        raise CheckpointError(f"{where} is damaged: it is of truth values, and has a byte that is neither 0 nor 1")
    return data.view(DTYPES[info.dtype]).reshape(info.shape)


def loaded_bytes(tensor: Tensor, path: Path) -> memoryview:
    """What a writer writes of a tensor, loaded; CheckpointError if that is not what its `info` says."""
    array = tensor.load()
    info = tensor.info
    if array.shape != info.shape or array.dtype != DTYPES[info.dtype]:
        expected = f"{info.dtype} {list(info.shape)}"
        raise CheckpointError(f"{path}: {info.name} was loaded as {array.dtype} {list(array.shape)}, expected {expected}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def check_names(tensors: Sequence[Tensor], path: Path) -> None:
    """CheckpointError if a name is empty, no text, or there twice."""
    seen = set()
    for tensor in tensors:
        name = tensor.info.name
        if not is_name(name) or name in seen:
            raise CheckpointError(f"{path}: cannot hold a tensor named {shown(name)}" + (" twice" if name in seen else ""))
        seen.add(name)


def open_shards(index: Path, open_file: Callable[[Path], Checkpoint]) -> tuple[dict[str, Tensor], list[Checkpoint]]:
    """The tensors in the order of the index, and its files."""
    content = read_json(index, CheckpointError)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: has no weight_map, expected names of tensors and the file of each")
    for name, file_name in places.items():
        if not (is_name(name) and is_plain_name(file_name)):
            raise CheckpointError(f"{index}: {plain(name)} has no name of a file beside the index: {shown(file_name)}")
    _check_parts(index, set(places.values()))
    shards = {}
    for file_name in dict.fromkeys(places.values()):
        path = index.parent / file_name
        if not path.is_file():
            first = next(name for name, place in places.items() if place == file_name)
            raise CheckpointError(f"{path}: is missing; {index.name} expects {first} in it")
        shards[file_name] = open_file(path)
    for name, file_name in places.items():
        if name not in shards[file_name].tensors:
            raise CheckpointError(f"{index.parent / file_name}: has no {name}, which {index.name} expects in it")
    for file_name, shard in shards.items():
        for name in shard.tensors:
            if places.get(name) != file_name:
                raise CheckpointError(f"{shard.path}: has {name}, which {index.name} does not expect in it")
    return {name: shards[file_name].tensors[name] for name, file_name in places.items()}, list(shards.values())


def _check_parts(index: Path, files: set[str]) -> None:
    """The files are numbered: an index that has lost all tensors of one is noticed."""
    parts = filter(None, map(_PART.fullmatch, files))
    for stem, count, suffix in {part.groups() for part in parts}:
        for number in range(1, min(int(count), len(files) + 1) + 1):
            name = f"{stem}-{number:05d}-of-{count}{suffix}"
            if name not in files:
                raise CheckpointError(f"{index}: has no tensor in {plain(name)}, one of {int(count):,} files")


def write_shards(
    folder: Path,
    tensors: Sequence[Tensor],
    file_name: str,
    shard_size: int | None,
    write_file: Callable[[Path, Sequence[Tensor]], None],
) -> None:
    """Write one file, or files of up to `shard_size` bytes (more where one tensor has more) and their index."""
    check_names(tensors, folder / file_name)
    shards = in_shards(tensors, shard_size)
    if len(shards) == 1:
        write_file(folder / file_name, tensors)
        return
    stem, _, suffix = file_name.rpartition(".")
    places = {}
    for number, shard in enumerate(shards, 1):
        name = f"{stem}-{number:05d}-of-{len(shards):05d}.{suffix}"
        write_file(folder / name, shard)
        places |= {tensor.info.name: name for tensor in shard}
    index = {"metadata": {"total_size": sum(tensor.info.size for tensor in tensors)}, "weight_map": places}
    text = json.dumps(index, indent=2, sort_keys=True) + "\n"
    (folder / f"{file_name}.index.json").write_text(text, encoding="utf-8")
