"""MindSpore's `.ckpt` files, read and written without MindSpore, whose environment few readers of such a file have.

A file is a row of tagged values (`mindspore_values`), their elements in little-endian order. A tensor of more than 512 MiB is
cut into several values that follow each other with the same tag and the same dims, those of the whole tensor. Behind the values
may be `crc_num` and ten bytes: the CRC32 of all that is before them, as a big-endian number. MindSpore of the time before this
trailer takes it for damage. Texts are values of the type `str`, in UTF-32; dims of a single 0 mean a scalar to MindSpore. A file
that was saved with a key begins with the number of its cipher.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..core.errors import CheckpointError
from ..core.shown import shown
from ..core.wire import BYTES, VARINT, Malformed, delimited, number, read_varint, varint
from .mindspore_values import CONTENT, DIMS, MAP_TENSOR, MAX_TAG, TAG, TENSOR, TYPE, VALUE, Entry, read_entries
from .tensors import DTYPES, Checkpoint, Tensor, TensorInfo, loaded_content, read_into

SLICE_SIZE = 512 << 20
"""Bytes of a tensor that MindSpore puts into one value."""

_TYPES = {
    **{"Float64": "F64", "Float32": "F32", "Float16": "F16", "BFloat16": "BF16", "Bool": "BOOL"},
    **{f"Int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"UInt{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}
_TYPE_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_TEXT = "str"
_OTHER_TYPES = {"Complex64", "Complex128", "Float8E4M3FN", "Float8E5M2", "HiFloat8", "Int4"}
_TRAILER, _CRC_SIZE = b"crc_num", 10
_CIPHERS = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
_CHUNK = 1 << 20


def is_checkpoint(path: Path) -> bool:
    """Whether a file, or a `.ckpt` in a folder, begins as MindSpore's do: with a tag and a type of elements, or encrypted."""
    try:
        files = [path] if path.is_file() else path.glob("*.ckpt")
        return any(_begins_well(file) for file in files)
    except (OSError, ValueError):
        return False


def open_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a file, or of the only one in a folder. The checksum, where there is one, is verified here."""
    path = _find_file(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            end, has_checksum = _check(file, size, path)
            entries = read_entries(file, end, path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    checkpoint = Checkpoint("MindSpore checkpoint", path, {})
    if not has_checksum:
        checkpoint.notes.append("has no checksum: a change of its numbers would not be seen")
    for entry in entries:
        if reason := _no_numbers(entry):
            checkpoint.skipped[entry.tag] = reason
        else:
            checkpoint.tensors[entry.tag] = _tensor(path, entry)
    return checkpoint


def write(
    folder: Path, tensors: Sequence[Tensor], file_name: str = "model.ckpt", crc: bool = True, slice_size: int = SLICE_SIZE
) -> None:
    """The bytes that `mindspore.save_checkpoint(..., crc_check=crc)` writes for these tensors."""
    path = folder / file_name
    written = set()
    with path.open("wb") as file:
        checksum = 0
        for tensor in tensors:
            if tensor.info.name in written:
                raise CheckpointError(f"{path}: there are two tensors {shown(tensor.info.name)}")
            written.add(tensor.info.name)
            checksum = _write_tensor(file, tensor, path, slice_size, checksum)
        if crc:
            file.write(_TRAILER + checksum.to_bytes(_CRC_SIZE, "big"))


# ---------------------------------------------------------------------------------------------- reading

def _begins_well(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(3 * MAX_TAG)
    if _cipher(head):
        return True
    try:
        # Lengths are not compared with the file's: a file that is cut off is a damaged checkpoint.
        position = _expect(head, 0, VALUE)
        _, position = read_varint(head, position)
        size, position = read_varint(head, _expect(head, position, TAG))
        head[position : position + size].decode()
        if head[position + size :][:1] == varint(MAP_TENSOR << 3 | BYTES):
            return True
        _, position = read_varint(head, _expect(head, position + size, TENSOR))
        while head[position] == DIMS << 3 | VARINT:
            _, position = read_varint(head, position + 1)
        size, position = read_varint(head, _expect(head, position, TYPE))
        return head[position : position + size].decode() in {*_TYPES, *_OTHER_TYPES, _TEXT}
    except (Malformed, IndexError, UnicodeDecodeError):
        return False


def _expect(data: bytes, position: int, field: int) -> int:
    """Where the length of a field of bytes begins."""
    if data[position] != field << 3 | BYTES:
        raise Malformed
    return position + 1


def _find_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file; expected a .ckpt file of MindSpore, or a folder with one")
    files = sorted(file for file in path.glob("*.ckpt") if file.is_file())
    files = [file for file in files if _begins_well(file)] or files
    if not files:
        raise CheckpointError(f"{path}: there is no .ckpt file in this folder")
    if len(files) > 1:
        names = ", ".join(file.name for file in files[:10]) + (", ..." if len(files) > 10 else "")
        raise CheckpointError(f"{path}: there are {len(files)} checkpoints in this folder; name one of {names}")
    return files[0]


def _cipher(head: bytes) -> str | None:
    return _CIPHERS.get(int.from_bytes(head[:4], "little"))


def _check(file: BinaryIO, size: int, path: Path) -> tuple[int, bool]:
    """(end of the message, whether there is a checksum, which is then right)."""
    file.seek(0)
    if cipher := _cipher(file.read(4)):
        raise CheckpointError(f"{path}: is encrypted ({cipher}); load it in MindSpore with its key and save it without one")
    end = size - len(_TRAILER) - _CRC_SIZE
    if end < 0:
        return size, False
    file.seek(end)
    trailer = file.read(len(_TRAILER) + _CRC_SIZE)
    if not trailer.startswith(_TRAILER):
        return size, False
    file.seek(0)
    checksum, left = 0, end
    while left:
        chunk = file.read(min(_CHUNK, left))
        if not chunk:
            raise CheckpointError(f"{path}: became shorter while it was read")
        checksum = zlib.crc32(chunk, checksum)
        left -= len(chunk)
    if checksum != int.from_bytes(trailer[len(_TRAILER) :], "big"):
        raise CheckpointError(f"{path}: is damaged: the checksum at its end is not that of its content")
    return end, True


def _info(entry: Entry, path: Path) -> TensorInfo:
    """Raises CheckpointError unless the content is what shape and type say."""
    place = f"{path}: {shown(entry.tag)}"
    if entry.kind not in _TYPES:
        raise CheckpointError(f"{place}: has the type {shown(entry.kind)}, which MindSpore does not have")
    there = sum(part.size for part in entry.parts)
    itemsize = DTYPES[_TYPES[entry.kind]].itemsize
    info = TensorInfo(entry.tag, () if entry.dims == (0,) and there == itemsize else entry.dims, _TYPES[entry.kind])
    # Negative sizes are numbers beyond 2^63. A zero beside an impossible size would make it no bytes.
    if math.prod(max(1, size) for size in entry.dims) * itemsize >= 1 << 63:
        raise CheckpointError(f"{place}: the shape {list(entry.dims)} is impossible")
    if there != info.size:
        raise CheckpointError(
            f"{place}: has {there:,} bytes, but {info.size:,} are expected of the shape {list(entry.dims)} of {entry.kind}"
        )
    return info


def _no_numbers(entry: Entry) -> str | None:
    """Why an entry is no tensor of numbers; None for one that is."""
    if entry.kind is None:
        return "a hash table (MapParameter)"
    if entry.kind == _TEXT:
        return "a text"
    if entry.kind in _OTHER_TYPES:
        return f"its type {entry.kind} is not supported"
    return None


def _tensor(path: Path, entry: Entry) -> Tensor:
    info = _info(entry, path)

    def load() -> np.ndarray:
        array = np.empty(info.shape, DTYPES[info.dtype])
        content, position = array.reshape(-1).view(np.uint8), 0
        try:
            with path.open("rb", buffering=0) as file:
                for part in entry.parts:
                    file.seek(part.start)
                    end = position + part.size
                    read_into(file, content[position:end], f"{path}: {shown(info.name)}: the file")
                    position = end
        except OSError as error:
            raise CheckpointError(f"{path}: {shown(info.name)}: cannot be read: {error.strerror or error}") from error
        return array

    return Tensor(info, load)


# ---------------------------------------------------------------------------------------------- writing

def _write_tensor(file: BinaryIO, tensor: Tensor, path: Path, slice_size: int, checksum: int) -> int:
    """The checksum of the file after this tensor. Its array is gone when this returns, before the next one is read."""
    info = tensor.info
    place = f"{path}: {shown(info.name)}"
    content = loaded_content(tensor, place)
    if info.shape == (0,):
        raise CheckpointError(f"{place}: has the shape [0], which MindSpore would read as a scalar")
    dims = b"".join(number(DIMS, size) for size in info.shape)
    head = dims + delimited(TYPE, _TYPE_NAMES[info.dtype].encode())
    tag = delimited(TAG, info.name.encode())
    for start in range(0, max(1, info.size), slice_size):
        part = memoryview(content[start : start + slice_size])
        for piece in (_headers(tag, head, len(part)), part):
            file.write(piece)
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _headers(tag: bytes, head: bytes, size: int) -> bytes:
    """All of a value but its last `size` bytes, the elements. Lengths come before what they measure, so inner ones first."""
    head += _announced(CONTENT, size)
    head = tag + _announced(TENSOR, len(head) + size) + head
    return _announced(VALUE, len(head) + size) + head


def _announced(field: int, size: int) -> bytes:
    return varint(field << 3 | BYTES) + varint(size)
