"""Writing the canonical model folder, which `core.checkpoint` opens: whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from .checkpoint import CARD, WEIGHTS, Model, config_digest, config_embeds, trained_tokens
from .checksums import write_checksums
from .config_file import CONFIG
from .cross_encoder_folder import cross_encoder_entry, write_longest_input
from .files import replace_folder
from .kinds.own_kinds import kind_entry
from .models.architectures import Config, first_keys, takes_types, tensor_shapes
from .models.known_families import plugin_entry
from .projections import PROJECTIONS
from .sentence_folder import write_sentence_files


def save_model(
    model: Model,
    folder: Path,
    tokenizer,
    projections: dict[str, np.ndarray] | None = None,
    checksums: bool = False,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Write a model folder whole or not at all. `tokenizer` has `save(folder, types)`; `projections` are what was trained beside
    the model and is no part of it: they go into a file of their own, for a later distillation to go on from. With `checksums`,
    `load_model` refuses weights that are not as they are written here. `finish(folder)` may add files for people."""
    with replace_folder(folder) as temporary:
        write_config(model, temporary)
        names = tensor_shapes(model.config, model.outputs, model.words)
        ordered = {name: np.ascontiguousarray(model.parameters[name]) for name in names}
        # transformers asks for the metadata entry: it tells the layout of the tensors.
        save_file(ordered, temporary / WEIGHTS, metadata={"format": "pt"})
        if projections:
            save_file(projections, temporary / PROJECTIONS)
        tokenizer.save(temporary, takes_types(model.config))
        if model.kind.ranks:
            write_longest_input(temporary, trained_tokens(model))
        if finish is not None:
            finish(temporary)
        if checksums:
            write_checksums(temporary)


def save_card(model: Model, folder: Path, tokenizer, digest: str) -> None:
    """Write what `load_model` needs of a model without its weights: for a teacher whose outputs, by `digest`, are in a cache."""
    with replace_folder(folder) as temporary:
        write_card(model, temporary, tokenizer, digest)


def write_card(model: Model, folder: Path, tokenizer, digest: str) -> None:
    """The same into a folder that is not yet in its place, for a model that has its weights in another form."""
    card = {"digest": digest, "config": config_digest(model.config), "outputs": model.outputs, "new": list(model.new)}
    write_config(model, folder)
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder, takes_types(model.config))


def write_config(model: Model, folder: Path) -> None:
    """Write config.json: architecture, labels, and what is known about the model."""
    config = first_keys(model.config, model.outputs, model.words) | _config_entries(model.config)
    if model.outputs is not None and not model.kind.of_spans:
        labels = model.labels or ("LABEL_0",)
        if len(labels) != model.outputs:  # of a kind of a plugin, whose classes stand below
            labels = tuple(f"LABEL_{index}" for index in range(model.outputs))
        config["id2label"] = {str(index): label for index, label in enumerate(labels)}
        config["label2id"] = {label: index for index, label in enumerate(labels)}
        if model.kind.problem_type is not None:
            config["problem_type"] = model.kind.problem_type
        if model.kind.ranks:
            config |= cross_encoder_entry()
    config["crossdistil"] = model.about | plugin_entry(model.config) | kind_entry(model.kind, model.labels)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if config_embeds(model.config):
        length = model.about.get("max_length") or getattr(model.config, "positions", None)
        write_sentence_files(folder, model.config.pooling, model.config.hidden_size, length)


def _config_entries(config: Config) -> dict[str, Any]:
    """The configuration as Hugging Face has it: our own keys only where they are set."""
    entries = config.model_dump()
    if not entries.get("classifier_relu", True):
        del entries["classifier_relu"]
    return entries
