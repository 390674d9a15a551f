"""safetensors files of Hugging Face and of MindSpore, one or several with an index, read and written a tensor at a time.

A file is the size of the header (uint64), the header, and the tensors' bytes. The header is JSON, {name: {"dtype": "F32",
"shape": [2, 3], "data_offsets": [first byte, byte behind the last]}} with offsets that begin behind the header, and maybe
"__metadata__": {text: text}. The bytes are little-endian and without gaps. The library `safetensors` maps files into memory
and takes whole dictionaries of arrays; hence this module. There are no checksums, but MindSpore can add one of all names and
tensors in the names' order, as text in `crc_num`; it is verified when the first tensor is read.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import CheckpointError
from ..core.json_files import MAX_BYTES, parse_json
from ..core.shown import plain
from .model_files import (
    as_tensor,
    check_shape,
    is_name,
    loaded_bytes,
    open_shards,
    opened,
    read_blocks,
    read_bytes,
    size_of,
    write_shards,
)
from .tensors import DTYPES, Checkpoint, Tensor, TensorInfo

FILE, INDEX, MINDSPORE_INDEX = "model.safetensors", "model.safetensors.index.json", "param_name_map.json"
"""What a folder may have."""

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
_METADATA = "__metadata__"
_WRITERS = {"pt": "PyTorch", "ms": "MindSpore", "tf": "TensorFlow", "np": "NumPy", "flax": "Flax"}
_ORDER = ("U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "I8", "U8", "BOOL")
"""Of the types in a file, as the library has it, so that each tensor is aligned."""


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins as a safetensors file does, or a folder has one by its usual name."""
    if path.is_dir():
        return any((path / name).is_file() for name in (FILE, INDEX, MINDSPORE_INDEX))
    if not path.is_file():
        return False
    with opened(path) as file:
        size = size_of(file)
        start = file.read(_LENGTH.size + 1)
    return len(start) > _LENGTH.size and start[-1:] == b"{" and _LENGTH.unpack(start[:-1])[0] <= size - _LENGTH.size


def open_checkpoint(path: Path) -> Checkpoint:
    """A file, or the folder of one or of several with an index. Raises CheckpointError."""
    if not path.is_dir():
        return _open_file(path)
    if (path / FILE).is_file():
        return _open_file(path / FILE)
    for name in (INDEX, MINDSPORE_INDEX):
        if (path / name).is_file():
            tensors, shards = open_shards(path / name, _open_file)
            notes = list(dict.fromkeys(note for shard in shards for note in shard.notes))
            return Checkpoint(f"{shards[0].format}, {len(shards)} file{'s' * (len(shards) > 1)}", path, tensors, notes)
    raise CheckpointError(f"{path}: has neither {FILE} nor {INDEX} nor {MINDSPORE_INDEX}")


def _open_file(path: Path) -> Checkpoint:
    with opened(path) as file:
        size = size_of(file)
        start = file.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            raise CheckpointError(f"{path}: is no safetensors file: it has {size} bytes")
        (length,) = _LENGTH.unpack(start)
        if length > size - _LENGTH.size:
            raise CheckpointError(
                f"{path}: is no safetensors file, or cut off: its header would have {length:,} bytes, the file has {size:,}"
            )
        where = f"{path}: the header"
        if length > MAX_BYTES:
            raise CheckpointError(f"{where} would have {length:,} bytes, expected at most {MAX_BYTES:,}")
        header = parse_json(bytes(read_bytes(file, _LENGTH.size, length, where)), where, CheckpointError)
    if not isinstance(header, dict):
        raise CheckpointError(f"{where} is no object of tensors")
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{where} has {_METADATA} that is no object of texts")
    infos, places = {}, {}
    for name, entry in header.items():
        infos[name], places[name] = _read_entry(name, entry, metadata, path)
    _check_places(places, size - _LENGTH.size - length, path)

    notes = []
    checksum = metadata.get("crc_num")
    if checksum is not None and any(not info.shape and info.dtype[0] in "IU" for info in infos.values()):
        # MindSpore takes bytes(array), which for an integer without dimensions is as many zeros as the integer says.
        notes.append("its checksum cannot be verified: MindSpore makes a wrong one where there are integers without dimensions")
        checksum = None
    first = _LENGTH.size + length
    data = _Data(path, infos, {name: first + begin for name, (begin, _) in places.items()}, checksum)
    tensors = {name: Tensor(info, lambda name=name: data.load(name)) for name, info in infos.items()}
    writer = _WRITERS.get(metadata.get("format"))
    if metadata.get("remove_redundancy") == "True":
        notes.append("was saved with remove_redundancy: parameters of other ranks may be missing")
    return Checkpoint(f"safetensors ({writer})" if writer else "safetensors", path, tensors, notes)


def _read_entry(name: str, entry: Any, metadata: Mapping[str, str], path: Path) -> tuple[TensorInfo, tuple[int, int]]:
    where = f"{path}: {plain(name)}"
    if not is_name(name):
        raise CheckpointError(f"{where} is no name of a tensor")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where} is not described by dtype, shape and data_offsets")
    dtype, offsets = entry["dtype"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise CheckpointError(f"{where} is of type {plain(str(dtype))}, expected one of {', '.join(DTYPES)}")
    if metadata.get(name) == "Int4":
        raise CheckpointError(f"{where} is of type Int4, two numbers in a byte, expected one of {', '.join(DTYPES)}")
    info = TensorInfo(name, check_shape(entry["shape"], where), dtype)
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(number) is int and number >= 0 for number in offsets)):
        raise CheckpointError(f"{where} has data_offsets that are not two numbers")
    begin, end = offsets
    if end - begin != info.size:
        raise CheckpointError(
            f"{where} has {end - begin:,} bytes by its offsets, and {info.size:,} by its shape {list(info.shape)} of {dtype}"
        )
    return info, (begin, end)


def _check_places(places: Mapping[str, tuple[int, int]], size: int, path: Path) -> None:
    """The tensors must fill the file: what overlaps or is left out shows that header and data do not belong together."""
    expected = 0
    for name, (begin, end) in sorted(places.items(), key=lambda item: item[1]):
        if end > size:
            raise CheckpointError(f"{path}: {name} is cut off: it ends at byte {end:,} of the data, which has {size:,}")
        if begin != expected:
            raise CheckpointError(f"{path}: {name} begins at byte {begin:,} of the data, expected {expected:,}")
        expected = end
    if expected != size:
        raise CheckpointError(f"{path}: the tensors end at byte {expected:,} of the data, which has {size:,}")


class _Data:
    """The tensors' bytes in a file."""

    def __init__(self, path: Path, infos: Mapping[str, TensorInfo], offsets: Mapping[str, int], checksum: str | None):
        self.path, self.infos, self.offsets, self.checksum = path, infos, offsets, checksum

    def load(self, name: str) -> np.ndarray:
        info, where = self.infos[name], f"{self.path}: {name}"
        with opened(self.path) as file:
            if self.checksum is not None:
                self._verify(file)
            return as_tensor(read_bytes(file, self.offsets[name], info.size, where), info, where)

    def _verify(self, file: Any) -> None:
        checksum = 0
        for name in sorted(self.infos):
            checksum = zlib.crc32(name.encode(), checksum)
            for block in read_blocks(file, self.offsets[name], self.infos[name].size, f"{self.path}: {name}"):
                checksum = zlib.crc32(block, checksum)
        if str(checksum) != self.checksum:
            expected = plain(self.checksum)
            raise CheckpointError(f"{self.path}: is damaged: the checksum of its tensors is {checksum}, expected {expected}")
        self.checksum = None


def write(
    folder: Path,
    tensors: Sequence[Tensor],
    file_name: str = FILE,
    metadata: Mapping[str, str] = {"format": "pt"},
    shard_size: int | None = None,
) -> None:
    """Write the tensors to a file, or to files of up to `shard_size` bytes with the index that transformers reads."""
    write_shards(folder, tensors, file_name, shard_size, lambda path, shard: _write_file(path, shard, metadata))


def _write_file(path: Path, tensors: Sequence[Tensor], metadata: Mapping[str, str]) -> None:
    # By type and then name, as the library does: the same tensors give the same bytes.
    ordered = sorted(tensors, key=lambda tensor: (_ORDER.index(tensor.info.dtype), tensor.info.name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for tensor in ordered:
        info = tensor.info
        if info.name == _METADATA:
            raise CheckpointError(f"{path}: cannot hold a tensor named {_METADATA}")
        header[info.name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [end, end + info.size]}
        end += info.size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(_LENGTH.pack(len(text)) + text)
        for tensor in ordered:
            file.write(loaded_bytes(tensor, path))
