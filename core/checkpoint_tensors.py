"""The tensors of a canonical model folder: their names and shapes against the configuration, before any value is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from .config_file import CONFIG
from .errors import CheckpointError, checkpoint_named, did_you_mean
from .models.architectures import (
    Config,
    canonical_names,
    decoder_names,
    head_names,
    pooler_names,
    tensor_shapes,
    word_embeddings,
    words_bias,
    words_tensors,
)
from .models.head_classes import is_of_head
from .models.sizes import difference_lines, differences, without_sizes
from .models.spec import EncoderConfig
from .remedies import convert_command
from .stored_tensors import StoredTensor, TensorFile


def read_tensors(
    path: Path, prefix: str, config: Config, words: bool, without_head: bool
) -> tuple[dict[str, StoredTensor], list[str]]:
    """(tensors, names of those of a head that is left out)."""
    if not path.is_file():
        raise CheckpointError(f"{prefix}{path}: no such file; a model folder holds its weights in {path.name}")
    tensors, left_out = {}, []
    try:
        with checkpoint_named(prefix.removesuffix(": ")):
            file = TensorFile(path)
            for name, canonical in canonical_names(config, file, words).items():
                if without_head and is_of_head(canonical):
                    left_out.append(canonical)
                else:
                    tensors[canonical] = file.tensor(name)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{prefix}{path}: damaged or not a safetensors file: {error}") from error
    return tensors, left_out


def separate_decoder(tensors: dict[str, StoredTensor], config: Config, where: str) -> StoredTensor | None:
    """Take what files hold twice out of the head that predicts words; the decoder's weight, which may not be the words' table."""
    weight, bias = decoder_names(config)
    if bias in tensors and bias != words_bias(config):
        tensors[words_bias(config)] = tensors.pop(bias)  # Hugging Face computes with this one, should they differ
    stored, table = tensors.pop(weight, None), tensors.get(word_embeddings(config))
    if stored is None or table is None:
        return None
    if stored.shape != table.shape:
        raise CheckpointError(f"{where}: {weight} has shape {stored.shape}; expected {table.shape}, as {word_embeddings(config)}")
    return stored


def check_sizes(
    tensors: Mapping[str, np.ndarray], raw: dict[str, Any], config: EncoderConfig, folder: Path, prefix: str
) -> None:
    """Raise CheckpointError where the tensors are of other sizes than the configuration says, or where it says none."""
    family, where = config.family.model_type, f"{prefix}{folder / CONFIG}"
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if problem := without_sizes(config.current_keys(raw), family, shapes):
        raise CheckpointError(f"{where}: {problem}")
    if wrong := differences(config.model_dump(), family, shapes):
        remedy = f"{prefix}({convert_command(folder, '--fix-config')} takes the tensors' sizes)"
        raise CheckpointError("\n".join([*difference_lines(wrong, where), remedy]))


def check_tensors(
    tensors: dict[str, StoredTensor], config: Config, outputs: int | None, where: str, words: bool
) -> tuple[str, ...]:
    expected = tensor_shapes(config, outputs or 1, words)
    unknown = [name for name in tensors if name not in expected]
    if unknown:
        raise CheckpointError(f"{where}: unexpected tensor {unknown[0]}{did_you_mean(unknown[0], expected)}")
    missing = [name for name in expected if name not in tensors]
    own_words = tuple(name for name in words_tensors(config) if name not in pooler_names(config)) if words else ()
    groups = (head_names(config), pooler_names(config), own_words)
    absent = {name for group in groups if not any(name in tensors for name in group) for name in group}
    needed = [name for name in missing if name not in absent]
    if needed:
        more = f" and {len(needed) - 1} more" if len(needed) > 1 else ""
        raise CheckpointError(f"{where}: missing tensor {needed[0]}{more}")
    for name, tensor in tensors.items():
        if tuple(tensor.shape) != expected[name]:
            raise CheckpointError(f"{where}: {name} has shape {tuple(tensor.shape)}, {CONFIG} says {expected[name]}")
    return tuple(missing)
