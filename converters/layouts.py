"""The ways in which each framework's checkpoints are written. The command line's help names them: what writes one is loaded when
it is."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .tensors import Tensor


@dataclass(frozen=True)
class Layout:
    """A way to write a checkpoint: names of a dialect in files of a format."""

    description: str
    dialect: str
    writer: str
    """The module here whose `write` it is."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of that function."""

    def write(self, folder: Path, tensors: Sequence[Tensor]) -> None:
        """Write the tensors into a folder."""
        importlib.import_module(f".{self.writer}", __package__).write(folder, tensors, **self.settings)


LAYOUTS: dict[str, dict[str, Layout]] = {
    "pytorch": {
        "safetensors": Layout("model.safetensors", "canonical", "safetensors_files"),
        "bin": Layout("pytorch_model.bin", "canonical", "torch_pickle"),
    },
    "tf": {"google": Layout("bert_model.ckpt of Google's code", "tensorflow", "tensorflow_checkpoint")},
    "mindspore": {
        "ckpt": Layout("model.ckpt of the model zoo", "mindspore", "mindspore_checkpoint"),
        # MindSpore of that time does not know the checksum at the end of the file.
        "ckpt-old": Layout("model.ckpt of the model zoo before r1.2", "mindspore-old", "mindspore_checkpoint", {"crc": False}),
        "safetensors": Layout("MindSpore's safetensors", "mindspore", "safetensors_files", {"metadata": {"format": "ms"}}),
    },
    "oneflow": {
        "state-dict": Layout("folder of OneFlow 0.9's flow.save", "oneflow", "oneflow_folder"),
        "legacy": Layout("folder of variables with their shapes (0.2 to 0.4)", "oneflow-legacy", "oneflow_legacy"),
        "legacy-raw": Layout("folder of variables without shapes (0.1)", "oneflow-legacy", "oneflow_legacy", {"meta": False}),
    },
}
"""Framework -> name of a layout -> the layout; the first is the default."""
