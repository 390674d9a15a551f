"""A BiLSTM in a checkpoint of any framework. None has a network of this kind: its tensors have this project's names
everywhere, and what loads them elsewhere is the `network.py` of `convert --with-code`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.config_file import CONFIG, class_names, model_config, problem_type
from ..core.errors import CheckpointError, did_you_mean
from ..core.models.architectures import head_names, tensor_shapes
from ..core.models.families.bilstm import BiLstmConfig
from .reading import ReadOptions
from .tensors import Checkpoint, Tensor

BILSTM = "bilstm"


def read_bilstm(
    path: Path, options: ReadOptions, checkpoint: Checkpoint, raw: Mapping[str, Any], where: str
) -> tuple[BiLstmConfig, int, dict[str, Tensor]]:
    """(configuration, number of logits, tensors in the architecture's order). Raises CheckpointError unless the checkpoint holds
    exactly these; `where` is the file of the configuration."""
    for name in ("allow_missing", "allow_extra", "fix_config", "prefix", "rename", "ema", "successor"):
        if getattr(options, name):
            raise CheckpointError(f"{path}: --{name.replace('_', '-')}: a BiLSTM is read as it is, or not at all")
    config = model_config(dict(raw), where)
    head = checkpoint.tensors.get(head_names(config)[0])
    outputs = head.info.shape[0] if head is not None and len(head.info.shape) == 2 else 1
    expected, problems = tensor_shapes(config, outputs), []
    for name, shape in expected.items():
        if name not in checkpoint.tensors:
            problems.append(f"{path}: missing tensor {name} {shape}")
        elif (found := tuple(checkpoint.tensors[name].info.shape)) != shape:
            problems.append(f"{path}: {name} has shape {found}, {CONFIG} says {shape}")
    unknown = [name for name in checkpoint.tensors if name not in expected]
    problems += [f"{path}: unknown tensor {name}{did_you_mean(name, expected)}" for name in unknown]
    if problems:
        raise CheckpointError("\n".join(problems))
    labels = class_names(dict(raw), where)
    if labels is not None and len(labels) != outputs:
        raise CheckpointError(f"{where}: id2label names {len(labels)} classes, the classifier has {outputs} outputs")
    problem_type(dict(raw), outputs, head_names(config)[0], where)
    return config, outputs, {name: checkpoint.tensors[name] for name in expected}
