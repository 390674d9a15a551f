"""Which format a checkpoint has, decided from its content (`layouts`: how each framework's is written)."""

from __future__ import annotations

import re
from pathlib import Path

from ..core.errors import CheckpointError
from ..core.hub_names import hub_hint
from . import mindspore_checkpoint, oneflow_folder, safetensors_files, tensorflow_checkpoint, torch_pickle
from .foreign_formats import foreign_format
from .tensors import Checkpoint

WEIGHTS_FOLDER = "weights"
"""Where a OneFlow checkpoint, itself a folder of folders, lies in a folder that also has a configuration."""

# In the order in which they are looked for: a folder may hold the same weights in several formats.
_READERS = {
    safetensors_files: "pytorch",
    torch_pickle: "pytorch",
    tensorflow_checkpoint: "tf",
    mindspore_checkpoint: "mindspore",
    oneflow_folder: "oneflow",
}
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".pkl", ".ckpt")
_OTHERS = re.compile(r"(training_args|optimizer|scheduler|scaler|rng_state|adapter_model|projections).*")
"""Files with such a suffix that trainers put beside a model's."""


def is_checkpoint(path: Path) -> bool:
    """Whether there is a checkpoint in a file, in a folder, or under a TensorFlow prefix, of a format that is known, be it only
    to say that it is not read."""
    nested = path / WEIGHTS_FOLDER
    return (
        any(reader.is_checkpoint(path) for reader in _READERS)
        or (nested.is_dir() and oneflow_folder.is_checkpoint(nested))
        or bool(_files(path))
        or bool(foreign_format(path))
    )


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file, in a folder, or under a TensorFlow prefix. Raises CheckpointError."""
    nested = path / WEIGHTS_FOLDER
    found = [reader for reader in _READERS if reader.is_checkpoint(path)]
    if not found and nested.is_dir() and oneflow_folder.is_checkpoint(nested):
        path, found = nested, [oneflow_folder]
    if not found and (files := _files(path)):
        if len(files) > 1:
            raise CheckpointError(f"{path}: holds {len(files)} checkpoints, {', '.join(map(str, files[:6]))}; name one of them")
        path = path / files[0]
        found = [reader for reader in _READERS if reader.is_checkpoint(path)]
    if not found:
        raise CheckpointError(f"{path}: {foreign_format(path) or _what_is_there(path)}")
    checkpoint = found[0].open_checkpoint(path)
    checkpoint.framework = "mindspore" if "MindSpore" in checkpoint.format else _READERS[found[0]]
    if len(found) > 1:
        others = ", ".join(reader.__name__.rsplit(".", 1)[1].replace("_", " ") for reader in found[1:])
        checkpoint.notes.append(f"the folder holds other formats as well, which were not read: {others}")
    return checkpoint


def whole_folder(path: Path) -> Path:
    """The folder that a checkpoint is the weights of."""
    return path if path.is_dir() and path.name != WEIGHTS_FOLDER else path.parent


def _files(folder: Path) -> list[str]:
    """Files in a folder that hold a model under a name that says nothing."""
    if not folder.is_dir():
        return []
    files = [file for file in sorted(folder.iterdir()) if file.suffix in _SUFFIXES and not _OTHERS.fullmatch(file.name)]
    return [file.name for file in files if file.is_file() and any(reader.is_checkpoint(file) for reader in _READERS)]


def _what_is_there(path: Path) -> str:
    expected = "expected a checkpoint of PyTorch, safetensors, TensorFlow, MindSpore or OneFlow"
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
        return f"no checkpoint in this folder ({shown or 'it is empty'}); {expected}"
    if not path.exists():
        beside = sorted(path.parent.glob(f"{path.name}*")) if path.parent.is_dir() else []
        if beside:
            return f"incomplete: there is only {beside[0].name}; {expected}"
        return f"no such file; {expected}{hub_hint(path)}"
    with path.open("rb") as file:
        start = file.read(8)
    return f"not recognised (it starts with {start!r}, {path.stat().st_size:,} bytes); {expected}"
