"""What a checkpoint of any format holds, as plain data: for `crossdistil inspect`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ...converters.canonical import CanonicalCheckpoint, ReadOptions, read_canonical
from ...converters.configuration import find_config
from ...converters.formats import open_checkpoint
from ..checkpoint import load_model
from ..errors import CheckpointError
from ..models.architectures import part_of, tensor_shapes
from ..models.heads import head_shapes


def inspect(path: Path, options: ReadOptions = ReadOptions()) -> dict[str, Any]:
    """Format, tensors and, where it is a model that is known here, architecture, heads, labels and what a conversion would
    drop or repair; `problems` says what stands in the way. Raises CheckpointError for what is no checkpoint, or damaged."""
    checkpoint = open_checkpoint(path)
    infos = [tensor.info for tensor in checkpoint.tensors.values()]
    described: dict[str, Any] = {
        "path": str(path),
        "format": checkpoint.format,
        "tensors": {info.name: {"shape": list(info.shape), "dtype": info.dtype} for info in infos},
        "size_mb": round(sum(info.size for info in infos) / 2**20, 2),
        "dtypes": dict(Counter(info.dtype for info in infos)),
        "skipped": checkpoint.skipped,
        "notes": checkpoint.notes,
        "problems": [],
    }
    try:
        config, file = find_config(path, options.config)
        if config is not None and config.get("model_type") == "bilstm":
            return described | _bilstm(file.parent)
        return described | _model(read_canonical(path, options))
    except CheckpointError as error:
        return described | {"problems": str(error).splitlines()}


def _model(model: CanonicalCheckpoint) -> dict[str, Any]:
    heads = {name: head for head, shapes in head_shapes(model.config).items() for name in shapes}
    heads |= dict.fromkeys(model.projections, "projection")
    groups: Counter[str] = Counter()
    for name, tensor in model.tensors.items():
        groups[heads.get(name) or part_of(model.config, name)] += tensor.info.elements
    labels = model.raw.get("id2label")
    expected = tensor_shapes(model.config, model.outputs or 1)
    return {
        "names": model.dialect,
        "family": model.family,
        "architecture": model.config.model_dump(),
        "heads": list(model.heads),
        "outputs": model.outputs,
        "labels": None if labels is None else list(labels.values()),
        "parameters": sum(groups.values()),
        "parameters_by_part": dict(groups),
        "missing": [name for name in expected if name not in model.tensors],
        "dropped": dict(model.dropped_by_reason),
        "repairs": model.repairs,
        "notes": model.notes,
        "tokenizer": sorted(model.tokenizer),
        "about": model.raw.get("crossdistil", {}),
    }


def _bilstm(folder: Path) -> dict[str, Any]:
    model = load_model(folder)
    groups: Counter[str] = Counter()
    for name, array in model.parameters.items():
        groups[name.split(".")[0]] += array.size
    return {
        "names": "canonical",
        "family": "bilstm",
        "architecture": model.config.model_dump(),
        "outputs": model.outputs,
        "labels": None if model.labels is None else list(model.labels),
        "parameters": model.parameter_count,
        "parameters_by_part": dict(groups),
        "missing": list(model.new),
        "about": model.about,
    }
