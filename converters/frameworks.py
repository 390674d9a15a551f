"""What the frameworks themselves read from a checkpoint, for the proof of a conversion. Each is imported only when it is asked.

The arrays come as float32 where they are floating-point numbers: NumPy has no bfloat16 of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..core.errors import CheckpointError
from ..core.json_files import read_object
from .tensorflow_objects import GRAPH_KEY, object_names

MODULES = {"pytorch": "torch", "tf": "tensorflow", "mindspore": "mindspore", "oneflow": "oneflow"}
"""What a conversion calls a framework -> the module that a Python must have."""


def read_with(framework: str, path: Path) -> dict[str, np.ndarray]:
    """The tensors of the checkpoint at `path` (as `Checkpoint.path` has it) by their names there."""
    return _READERS[framework](path)


def _read_pytorch(path: Path) -> dict[str, np.ndarray]:
    import torch
    from safetensors.torch import load_file

    arrays = {}
    for file in _shards(path, ("model.safetensors", "pytorch_model.bin")):
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
        for name, tensor in state.items():
            arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return arrays


def _shards(path: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of a checkpoint that is a file, or a folder with one file or with an index of several."""
    if path.is_file() and path.suffix != ".json":
        return [path]
    for name in names:
        index = path if path.is_file() else path / f"{name}.index.json"
        if index.is_file():
            files = read_object(index, CheckpointError)["weight_map"].values()
            return [index.parent / file for file in dict.fromkeys(files)]
        if (path / name).is_file():
            return [path / name]
    raise CheckpointError(f"{path}: none of {', '.join(names)}")


def _read_tensorflow(path: Path) -> dict[str, np.ndarray]:
    import tensorflow

    reader = tensorflow.train.load_checkpoint(str(path).removesuffix(".index"))
    keys = list(reader.get_variable_to_shape_map())
    names = object_names(reader.get_tensor(GRAPH_KEY), keys) if GRAPH_KEY in keys else {}
    return {names.get(key, key): _float32(np.asarray(reader.get_tensor(key))) for key in keys}


def _read_mindspore(path: Path) -> dict[str, np.ndarray]:
    import mindspore

    files = _shards(path, ("model.safetensors", "model.ckpt"))
    arrays = {}
    for file in files:
        kind = "safetensors" if file.suffix == ".safetensors" else "ckpt"
        for name, tensor in mindspore.load_checkpoint(str(file), format=kind).items():
            arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).asnumpy()
    return arrays


def _read_oneflow(path: Path) -> dict[str, np.ndarray]:
    import oneflow

    return {name: _float32(tensor.numpy()) for name, tensor in oneflow.load(str(path)).items()}


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind in "fV" else array


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    "pytorch": _read_pytorch,
    "tf": _read_tensorflow,
    "mindspore": _read_mindspore,
    "oneflow": _read_oneflow,
}
