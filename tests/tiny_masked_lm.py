"""The folder of a tiny masked language model with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from crossdistil.core.checkpoint import WEIGHTS
from crossdistil.core.config_file import CONFIG
from crossdistil.core.models.heads import words_shapes
from crossdistil.tests import tiny

HEAD_CONFIG = tiny.STILL


def write_masked_lm(folder: Path, seed: int = 0) -> Path:
    """As transformers writes a BertForMaskedLM: without a pooler, and without the decoder that is tied."""
    tiny.write_vocabulary(folder)
    generator = np.random.default_rng(seed)
    body = tiny.random_parameters(HEAD_CONFIG, seed=seed)
    tensors = {name: tensor for name, tensor in body.items() if not name.startswith(("classifier.", "bert.pooler."))}
    for name, shape in words_shapes(HEAD_CONFIG).items():
        tensors[name] = generator.normal(1.0 if "LayerNorm.weight" in name else 0.0, 0.3, shape).astype(np.float32)
    (folder / CONFIG).write_text(json.dumps({"model_type": "bert", **HEAD_CONFIG.model_dump()}))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    return folder
