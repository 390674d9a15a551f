"""What a checkpoint of any format holds, as plain data: for `crossdistil inspect`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ...converters.canonical import CanonicalCheckpoint, ReadOptions, read_canonical
from ...converters.configuration import find_config
from ...converters.formats import open_checkpoint
from ..cross_encoder_folder import is_cross_encoder
from ..errors import CheckpointError
from ..models.architectures import is_encoder, part_of, tensor_shapes
from ..models.head_classes import other_head
from ..models.heads import head_shapes
from ..sentence_folder import embeds, read_pooling
from .run_student import student_of


def inspect(path: Path, options: ReadOptions = ReadOptions()) -> dict[str, Any]:
    """Format, tensors and, where it is a model that is known here, architecture, heads, labels and what a conversion would
    drop or repair; `problems` says what stands in the way. Raises CheckpointError for what is no checkpoint, or damaged."""
    path = student_of(path)
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
    if options.config is not None:
        find_config(path, options.config)  # what a person names is there and can be read, or it is an error, not an answer
    try:
        config, _ = find_config(path, options.config)
        if config is not None and (other := other_head(config)) is not None:
            described["classifier"] = other.reason
        found = _model(read_canonical(path, options))
        return described | found | _embedding(path, found["notes"])
    except CheckpointError as error:
        return described | {"problems": str(error).splitlines()}


def _embedding(path: Path, notes: list[str]) -> dict[str, Any]:
    """Of a folder of sentence-transformers, how its model embeds texts; with the `notes` that there are."""
    if is_cross_encoder(path, {}) or not embeds(path):
        return {}
    try:
        pooling, of_texts = read_pooling(path)
    except CheckpointError as error:
        return {"classifier": "embeds texts, in a way that is not computed here", "problems": [str(error)]}
    length = "scaled to length 1" if pooling.normalised else "not scaled"
    what = f"embeds texts: {pooling.mode} of the tokens' states, {length}"
    return {"classifier": what, "missing": [], "notes": [*notes, *of_texts]}


def _model(model: CanonicalCheckpoint) -> dict[str, Any]:
    shapes_of = head_shapes(model.config) if is_encoder(model.config) else {}
    heads = {name: head for head, shapes in shapes_of.items() for name in shapes}
    heads |= dict.fromkeys(model.projections, "projection")
    groups: Counter[str] = Counter()
    config = model.config if model.task is None or not is_encoder(model.config) else model.config.answering(model.task)
    for name, tensor in model.tensors.items():
        groups[heads.get(name) or part_of(config, name)] += tensor.info.elements
    labels = model.raw.get("id2label")
    expected = tensor_shapes(config, model.outputs or 1)
    return {
        "names": model.dialect,
        "family": model.family,
        "architecture": model.config.model_dump(),
        "classifier": _classifier(model),
        "heads": list(model.heads),
        "outputs": model.outputs,
        "labels": None if labels is None else [label for _, label in sorted(labels.items(), key=_number)],
        "parameters": sum(groups.values()),
        "parameters_by_part": dict(groups),
        "missing": [name for name in expected if name not in model.tensors],
        "dropped": dict(model.dropped_by_reason),
        "repairs": model.repairs,
        "notes": model.notes,
        "tokenizer": sorted(model.tokenizer),
        "about": model.raw.get("crossdistil", {}),
    }


def _classifier(model: CanonicalCheckpoint) -> str | None:
    """What it answers with, for people; None without one."""
    other = other_head(model.raw)
    if other is not None:
        return other.reason
    several = model.raw.get("problem_type") == "multi_label_classification"
    return None if model.outputs is None else _answer(model.outputs, several)


def _answer(outputs: int, several: bool) -> str:
    if outputs == 1:
        return "regression: one number"
    return f"classification of texts: {'any' if several else 'one'} of {outputs} labels"


def _number(item: tuple[str, Any]) -> tuple[int, str]:
    """The place of a label, whose number JSON has as text."""
    key = str(item[0])
    return (int(key) if key.isdecimal() else 0, key)
