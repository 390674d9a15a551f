"""The models whose conversions are measured, as canonical folders: random weights at true sizes, and real ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from crossdistil.core.config_file import model_config
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.heads import head_shapes
from crossdistil.core.projections import PROJECTIONS

_TINYBERT = {"hidden_size": 312, "intermediate_size": 1200, "num_hidden_layers": 4, "num_attention_heads": 12}

# Name -> (configuration, outputs of the classifier, pre-training heads, width of fit_dense).
MODELS: dict[str, tuple[dict[str, Any], int | None, tuple[str, ...], int | None]] = {
    "BERT-base, MLM + NSP": ({"model_type": "bert"}, None, ("mlm", "nsp"), None),
    "classifier, 2 layers": ({"model_type": "bert", "num_hidden_layers": 2}, 3, (), None),
    "ALBERT-base, MLM + SOP": (
        {
            "model_type": "albert",
            "vocab_size": 30000,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
        },
        None,
        ("mlm", "sop"),
        None,
    ),
    "ELECTRA-small, discriminator": ({"model_type": "electra"}, None, ("discriminator",), None),
    "DistilBERT, MLM": ({"model_type": "distilbert"}, None, ("mlm",), None),
    "TinyBERT 4 x 312, fit_dense": ({"model_type": "bert", **_TINYBERT}, 2, (), 768),
}


def make_model(name: str, folder: Path, seed: int = 0) -> None:
    """Write the model of that name with random weights, those of the normalisations too."""
    raw, outputs, heads, projected = MODELS[name]
    config = model_config(raw, name)
    shapes = dict(tensor_shapes(config, outputs))
    for head in heads:
        shapes |= head_shapes(config)[head]
    generator = np.random.default_rng(seed)

    def drawn(tensor: str, shape: tuple[int, ...]) -> np.ndarray:
        values = generator.standard_normal(shape, np.float32) * np.float32(0.02)
        return values + 1 if "norm" in tensor.lower() and tensor.endswith("weight") else values

    folder.mkdir(parents=True)
    tensors = {tensor: drawn(tensor, shape) for tensor, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if projected is not None:
        size = raw["hidden_size"]
        fit = {"fit_dense.weight": drawn("fit_dense.weight", (projected, size)), "fit_dense.bias": drawn("", (projected,))}
        save_file(fit, folder / PROJECTIONS)
    full = {**config.model_dump(), "model_type": raw["model_type"]}
    (folder / "config.json").write_text(json.dumps(full, indent=2), encoding="utf-8")


def copy_model(source: Path, folder: Path) -> None:
    """A copy of a model folder, to measure beside the others."""
    shutil.copytree(source, folder)
