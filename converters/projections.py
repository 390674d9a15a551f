"""What was trained beside a model and is no part of it: in a canonical folder, in a file of its own.

Of these maps only one has a name that other frameworks' checkpoints know, TinyBERT's `fit_dense`; training calls it
`projection.fit_dense`, and a later distillation goes on from it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..core.checkpoint import PROJECTIONS
from . import safetensors_files
from .tensors import Tensor

PROJECTION = "fit_dense."
"""What the canonical names of TinyBERT's map from the student's to the teacher's width start with."""
_TRAINED = "projection."
_UNPLACED = "projection of a training that has no name in other frameworks"


def read_projections(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(canonical name -> tensor, name -> why it is dropped) of the projections in a model folder. Raises CheckpointError."""
    file = path / PROJECTIONS
    if not file.is_file():
        return {}, {}
    found, dropped = {}, {}
    for name, tensor in safetensors_files.open_checkpoint(file).tensors.items():
        canonical = name.removeprefix(_TRAINED)
        if canonical.startswith(PROJECTION):
            found[canonical] = tensor
        else:
            dropped[name] = _UNPLACED
    return found, dropped


def write_projections(folder: Path, tensors: list[Tensor]) -> None:
    """Write projections by canonical names into a model folder, as training names them and loads them: in float32."""
    renamed = []
    for tensor in tensors:
        info = replace(tensor.info, name=_TRAINED + tensor.info.name, dtype="F32")
        renamed.append(Tensor(info, lambda tensor=tensor: tensor.load().astype("<f4")))
    if renamed:
        safetensors_files.write(folder, renamed, file_name=PROJECTIONS)
