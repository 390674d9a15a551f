"""What was trained beside a model and is no part of it: in a canonical folder, in a file of its own.

Of these maps only TinyBERT's have names that other frameworks' checkpoints know: `fit_dense`, one for all layers, and in its
second version `fit_denses.N`, one for the embeddings (0) and for each layer. Training calls them `projection.fit_dense` and
`projection.fit_denses.N`, and a later distillation goes on from them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..core.projections import PROJECTIONS
from . import safetensors_files
from .tensors import Tensor

PROJECTION = ("fit_dense.", "fit_denses.")
"""What the canonical names of TinyBERT's maps from the student's to the teacher's width start with."""
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
