"""Random checkpoints in the canonical form, of every family with its heads, and how the tests of conversions compare outputs.

No framework is imported here: in the environment of OneFlow there is neither PyTorch nor transformers. Every tensor is random,
those of normalisations too, so that no two may change places unseen.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from crossdistil.converters.canonical import read_canonical
from crossdistil.converters.verify import reference_outputs, sample_batch
from crossdistil.core.models.architectures import first_keys, tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.heads import head_shapes
from crossdistil.core.models.known_families import is_norm
from crossdistil.core.models.spec import EncoderConfig
from crossdistil.tests import tiny_families

BERT = BertConfig(
    vocab_size=61,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=20,
    layer_norm_eps=1e-12,
)
FAMILIES: dict[str, EncoderConfig] = {"bert": BERT, **tiny_families.FAMILIES}
TANH = BERT.model_copy(update={"hidden_act": "gelu_new"})
SQUARE = BertConfig(
    vocab_size=512,
    hidden_size=512,
    num_hidden_layers=1,
    num_attention_heads=8,
    intermediate_size=512,
    max_position_embeddings=512,
    type_vocab_size=512,
)
"""Shapes do not tell whether a matrix is transposed here, embeddings included."""
OUTPUTS = 3
LIMIT = 1e-5
"""How far a float32 forward pass may be from the float64 reference, relative to the largest value if that is above 1."""


def random_tensors(config: EncoderConfig, outputs: int | None = OUTPUTS, heads: bool = True, seed: int = 0):
    """Canonical name -> random float32 array: encoder, classifier and every head of pre-training."""
    generator = np.random.default_rng(seed)
    shapes = dict(tensor_shapes(config, outputs))
    if heads:
        for own in head_shapes(config).values():
            shapes |= own
    tensors = {}
    for name, shape in shapes.items():
        # Sums over many columns stay small, as those of a trained model do.
        scale = 0.2 if len(shape) == 1 else min(0.2, 1.5 / np.sqrt(shape[1]))
        centre = 1.0 if is_norm(name) and name.endswith("weight") else 0.0
        tensors[name] = generator.normal(centre, scale, shape).astype(np.float32)
    return tensors


def config_keys(config: EncoderConfig, outputs: int | None = OUTPUTS) -> dict[str, Any]:
    """What is in the config.json of a model."""
    keys = first_keys(config, outputs) | config.model_dump(exclude={"classifier_relu"}, exclude_none=True)
    if outputs is not None:
        keys["id2label"] = {str(index): f"class {index}" for index in range(outputs)}
    return keys


def write_config(folder: Path, config: EncoderConfig, outputs: int | None = OUTPUTS) -> None:
    """The config.json alone, beside a checkpoint that a framework wrote."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_keys(config, outputs)), encoding="utf-8")


def write_source(folder: Path, config: EncoderConfig, outputs: int | None = OUTPUTS, heads: bool = True, seed: int = 0):
    """A folder of config.json and model.safetensors; returns its tensors."""
    write_config(folder, config, outputs)
    tensors = random_tensors(config, outputs, heads, seed)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return tensors


def expected(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(batch, what NumPy computes of it in float64 from the checkpoint at `path`, with every layer and head)."""
    checkpoint = read_canonical(path)
    return sample_batch(checkpoint), reference_outputs(checkpoint)


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    """The canonical tensors of a checkpoint of any format."""
    return {name: tensor.load() for name, tensor in read_canonical(path).tensors.items()}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Equal names, types, shapes and bits."""
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        other = found[name]
        assert (other.dtype, other.shape) == (array.dtype, array.shape), name
        assert other.tobytes() == np.ascontiguousarray(array).tobytes(), f"{name} has other bits"


def assert_agree(found: dict[str, np.ndarray], reference: dict[str, np.ndarray], batch: dict[str, np.ndarray]) -> float:
    """Equal outputs but for rounding, on real tokens; returns the largest difference."""
    assert set(found) == set(reference)
    real = batch["attention_mask"] > 0
    worst = 0.0
    for name, values in reference.items():
        other = np.asarray(found[name], np.float64)
        assert other.shape == values.shape, name
        if values.shape[:2] == real.shape:
            values, other = values[real], other[real]
        difference = np.abs(values - other).max() / max(1.0, np.abs(values).max())
        assert difference < LIMIT, f"{name} differs by {difference:.1e}"
        worst = max(worst, float(difference))
    return worst
