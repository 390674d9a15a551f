"""The projections in a model folder: trained beside a student and no part of it, for a later distillation to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from .errors import CheckpointError
from .stored_tensors import TensorFile

PROJECTIONS = "projections.safetensors"


def projection_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the projections that a model folder holds, if any. Raises CheckpointError for a damaged file."""
    return _projections(folder, _shapes)


def load_projections(folder: Path) -> dict[str, np.ndarray]:
    """The same with their values."""
    return _projections(folder, load_file)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    file = TensorFile(path)
    return {name: file.tensor(name).shape for name in file}


def _projections(folder: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    path = folder / PROJECTIONS
    if not path.is_file():
        return {}
    try:
        return read(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged or not a safetensors file: {error}") from error
