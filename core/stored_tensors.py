"""One tensor of a safetensors file as float32, from each type of floats that weights are stored in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import CheckpointError
from .json_files import parse_json

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights; integers are those of a quantized model, which are not weights alone."""


def read_tensor(file, path: Path, name: str) -> np.ndarray:
    """A tensor of the open safetensors `file` at `path` in float32, whatever type of floats it was stored in. Raises
    CheckpointError for other types."""
    kind = file.get_slice(name).get_dtype()
    if kind not in FLOATS:
        raise CheckpointError(f"{path}: {name} is of type {kind}, expected {', '.join(FLOATS)}")
    return np.asarray(_bfloat16_tensor(path, name) if kind == "BF16" else file.get_tensor(name), np.float32)


def _bfloat16_tensor(path: Path, name: str) -> np.ndarray:
    """A tensor that NumPy has no type for: its 16 bits are the upper half of a float32's."""
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        entry = parse_json(file.read(header_size), f"{path}: the header", CheckpointError)[name]
        start, end = entry["data_offsets"]
        file.seek(8 + header_size + start)
        bits = np.frombuffer(file.read(end - start), "<u2")
    return (bits.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
