"""What the frameworks themselves read from a checkpoint, for the proof of a conversion. Each is imported only when it is asked.

The arrays come as float32 where they are floating-point numbers: NumPy has no bfloat16 of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import CheckpointError
from ..core.json_files import read_object
from .tensorflow_objects import GRAPH_KEY, object_names

_LONGEST = 300
"""Letters of a framework's message."""

MODULES = {"pytorch": "torch", "tf": "tensorflow", "mindspore": "mindspore", "oneflow": "oneflow"}
"""What a conversion calls a framework -> the module that a Python must have."""


def read_with(framework: str, path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    """The tensors called `names` of the checkpoint at `path` (as `Checkpoint.path` has it), as far as the framework finds them.
    Raises CheckpointError, in one line, where it cannot read the file."""
    try:
        return _READERS[framework](path, frozenset(names))
    except CheckpointError:
        raise
    except Exception as error:  # whatever a framework raises about a file
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise CheckpointError(f"{path}: {framework} cannot read it: {reason[:_LONGEST]}") from error


def _read_pytorch(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    import torch
    from safetensors.torch import load_file

    arrays = {}
    for file in _shards(path, ("model.safetensors", "pytorch_model.bin")):
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, map_location="cpu", weights_only=True)
        for name, tensor in _named(state, names, torch.Tensor).items():
            arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
    return arrays


def _named(state: Any, names: Collection[str], kind: type) -> dict[str, Any]:
    """The tensors of these names in the dictionary that has most of them: a training's checkpoint holds the model's state
    beside others, at any depth."""
    found: dict[str, Any] = {}
    for mapping in _mappings(state, []):
        own = {name: mapping[name] for name in names if isinstance(mapping.get(name), kind)}
        found = own if len(own) > len(found) else found
    return found


def _mappings(state: Any, above: list[int]) -> Iterator[Mapping[str, Any]]:
    """Every dictionary in a state, and each with the names of its inner ones behind a point."""
    if not isinstance(state, Mapping) or id(state) in above:
        return
    flat: dict[str, Any] = {}
    inner: list[Mapping[str, Any]] = []
    for key, value in state.items():
        below = list(_mappings(value, [*above, id(state)]))
        inner += below
        flat |= {f"{key}.{name}": found for name, found in below[0].items()} if below else {str(key): value}
    yield flat
    yield from inner


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


def _read_tensorflow(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    import tensorflow

    reader = tensorflow.train.load_checkpoint(str(path).removesuffix(".index"))
    keys = list(reader.get_variable_to_shape_map())
    saved_as = object_names(reader.get_tensor(GRAPH_KEY), keys) if GRAPH_KEY in keys else {}
    wanted = {key: name for key in keys if (name := saved_as.get(key, key)) in names}
    return {name: _float32(np.asarray(reader.get_tensor(key))) for key, name in wanted.items()}


def _read_mindspore(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    import mindspore

    files = _shards(path, ("model.safetensors", "model.ckpt"))
    arrays = {}
    for file in files:
        kind = "safetensors" if file.suffix == ".safetensors" else "ckpt"
        for name, tensor in mindspore.load_checkpoint(str(file), format=kind).items():
            if name in names:
                arrays[name] = (tensor.float() if tensor.is_floating_point() else tensor).asnumpy()
    return arrays


def _read_oneflow(path: Path, names: Collection[str]) -> dict[str, np.ndarray]:
    import oneflow

    state = _named(oneflow.load(str(path)), names, oneflow.Tensor)
    return {name: _float32(tensor.numpy()) for name, tensor in state.items()}


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind in "fV" else array


_READERS: dict[str, Callable[[Path, Collection[str]], dict[str, np.ndarray]]] = {
    "pytorch": _read_pytorch,
    "tf": _read_tensorflow,
    "mindspore": _read_mindspore,
    "oneflow": _read_oneflow,
}
