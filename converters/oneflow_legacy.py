"""OneFlow's folders of variables, `<folder>/<name>/out`, which its versions 0.1 to 0.4 wrote, and whose variables 0.9 still uses.

`out` is the elements, raw, little-endian, C-ordered. Since 0.2 a `meta` lies beside it, a protobuf message as text, and an
empty `snapshot_done` beside the variables, written when all is saved:
  shape {
    dim: 2
    dim: 3
  }
  data_type: kFloat
Without it neither shape nor type is known: 0.1 saved float32, and the model's code had the shapes. The moments of an optimizer
are variables too, `<name>-m` and `<name>-v`. Nothing has a checksum.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import CheckpointError
from ..core.shown import shown
from .tensors import DTYPES, Checkpoint, Tensor, TensorInfo, loaded_content, read_into

NO_CHECKSUM = "has no checksums: a change of its numbers would not be seen"
_ELEMENTS, _META, _DONE = "out", "meta", "snapshot_done"
_TYPES = {
    "kFloat": "F32",
    "kDouble": "F64",
    "kFloat16": "F16",
    "kBFloat16": "BF16",
    "kInt64": "I64",
    "kInt32": "I32",
    "kInt8": "I8",
    "kUInt8": "U8",
    "kBool": "BOOL",
}
_TYPE_NAMES = {dtype: name for name, dtype in _TYPES.items() if dtype != "BF16"}
_NUMBER = r"(?:0|[1-9]\d{0,18})"
_META_TEXT = re.compile(rf"\s*shape\s*\{{((?:\s*dim\s*:\s*{_NUMBER}(?!\d))*)\s*\}}\s*data_type\s*:\s*(\w+)\s*", re.ASCII)
_MAX_META, _MAX_DIMENSIONS = 1 << 12, 32
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,254}")


def is_variables(path: Path) -> bool:
    """Whether a folder holds a variable."""
    return path.is_dir() and any((entry / _ELEMENTS).is_file() or (entry / _META).is_file() for entry in path.iterdir())


def open_variables(path: Path) -> Checkpoint:
    """The variables of a folder, by name. Raises CheckpointError."""
    checkpoint = Checkpoint("OneFlow folder of variables", path, {}, notes=[NO_CHECKSUM])
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir())
    with_meta = any((folder / _META).is_file() for folder in folders)
    for folder in folders:
        contents = [] if folder.is_symlink() else [entry.name for entry in folder.iterdir()]
        if contents and _ELEMENTS not in contents and _META not in contents:
            checkpoint.skipped[folder.name] = f"a folder without the file {_ELEMENTS!r}"
            continue
        checkpoint.tensors[folder.name] = open_variable(folder, folder.name, with_meta)
    if not checkpoint.tensors:
        raise CheckpointError(f"{path}: there is no variable in this folder; expected folders with a file {_ELEMENTS!r}")
    if not with_meta:
        checkpoint.format += " (without shapes)"
        checkpoint.notes.append("has no shapes and types: each is a row of float32 here; the shapes come from the configuration")
    elif not (path / _DONE).is_file():
        checkpoint.notes.append(f"has no file {_DONE!r}, which OneFlow writes last: variables may be missing")
    return checkpoint


def open_variable(folder: Path, name: str, with_meta: bool = True) -> Tensor:
    """The tensor in a folder of `out` and `meta`. Raises CheckpointError with the folder and the tensor's name."""
    place = f"{folder}: {shown(name)}"
    elements = folder / _ELEMENTS
    if folder.is_symlink():
        raise CheckpointError(f"{place}: is a link, which may lead anywhere; expected a folder")
    size = _size(elements, place)
    if with_meta:
        info = _parse_meta(folder / _META, name, place, size)
    elif size % DTYPES["F32"].itemsize:
        raise CheckpointError(f"{place}: {_ELEMENTS} has {size:,} bytes, which is no row of float32")
    else:
        info = TensorInfo(name, (size // DTYPES["F32"].itemsize,), "F32")
    if size != info.size:
        raise CheckpointError(
            f"{place}: {_ELEMENTS} has {size:,} bytes, but {info.size:,} are expected of the shape {list(info.shape)} "
            f"of {info.dtype}; it is damaged or cut off"
        )

    def load() -> np.ndarray:
        array = np.empty(info.shape, DTYPES[info.dtype])
        try:
            with elements.open("rb", buffering=0) as file:
                read_into(file, array.reshape(-1).view(np.uint8), f"{place}: {_ELEMENTS}")
        except OSError as error:
            raise CheckpointError(f"{place}: {_ELEMENTS} cannot be read: {error.strerror or error}") from error
        return array

    return Tensor(info, load)


def write(folder: Path, tensors: Sequence[Tensor], meta: bool = True) -> None:
    """A folder for each tensor; with `meta` as 0.2 to 0.4 wrote it, which `flow.load` of 0.9 also reads, else as 0.1 did."""
    for tensor in tensors:
        info = tensor.info
        if not _NAME.fullmatch(info.name) or info.name == _DONE:
            raise CheckpointError(
                f"{folder}: {shown(info.name)} is no name of a variable; expected letters, digits, _, - and ., at most 255"
            )
        if not meta and info.dtype != "F32":
            raise CheckpointError(f"{folder}: '{info.name}' is {info.dtype}, but without meta only F32 can be told")
        write_variable(folder / info.name, tensor, meta)
    if meta:
        (folder / _DONE).touch()


def write_variable(folder: Path, tensor: Tensor, meta: bool = True) -> None:
    """A folder with the file `out` and, with `meta`, the file that tells its shape."""
    info = tensor.info
    place = f"{folder}: {shown(info.name)}"
    if info.dtype not in _TYPE_NAMES:
        raise CheckpointError(f"{place}: is {info.dtype}, which OneFlow cannot load; it can {', '.join(_TYPE_NAMES)}")
    try:
        folder.mkdir()
    except FileExistsError:
        raise CheckpointError(f"{place}: is already there") from None
    (folder / _ELEMENTS).write_bytes(memoryview(loaded_content(tensor, place)))
    if meta:
        dims = "".join(f"  dim: {size}\n" for size in info.shape)
        (folder / _META).write_text(f"shape {{\n{dims}}}\ndata_type: {_TYPE_NAMES[info.dtype]}\n", encoding="ascii")


def _size(file: Path, place: str) -> int:
    try:
        found = file.lstat()
    except OSError as error:
        raise CheckpointError(f"{place}: {file.name} is missing or cannot be read: {error.strerror or error}") from error
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(f"{place}: {file.name} is a link, folder or device; expected a file (links may lead anywhere)")
    return found.st_size


def _parse_meta(file: Path, name: str, place: str, size: int) -> TensorInfo:
    if _size(file, place) > _MAX_META:
        raise CheckpointError(f"{place}: {_META} is longer than any shape")
    try:
        match = _META_TEXT.fullmatch(file.read_bytes().decode("latin-1"))
    except OSError as error:
        raise CheckpointError(f"{place}: {_META} cannot be read: {error.strerror or error}") from error
    if match is None:
        raise CheckpointError(f"{place}: {_META} is not understood; expected shape {{ dim: ... }} and data_type: kFloat")
    shape = tuple(int(number) for number in re.findall(r"\d+", match[1]))
    if match[2] not in _TYPES:
        known = ", ".join(_TYPES)
        raise CheckpointError(f"{place}: {_META} has the data_type {shown(match[2])}; expected one of {known}")
    info = TensorInfo(name, shape, _TYPES[match[2]])
    if info.dtype == "BF16" and size == 2 * info.size > 0:
        # flow.save turns them into NumPy's float32 on their way to the file, and still calls them kBFloat16.
        info = TensorInfo(name, shape, "F32")
    # A zero beside an impossible size would make it no bytes.
    if len(shape) > _MAX_DIMENSIONS or math.prod(max(1, size) for size in shape) >= 1 << 59:
        raise CheckpointError(f"{place}: {_META} has an impossible shape")
    return info
