"""The proof of a conversion: the same weights, and the same outputs layer by layer, in NumPy float64.

No framework is needed. `core.app.verify` adds the forward passes of the frameworks that are installed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import CheckpointError
from ..core.models.architectures import make_forward
from ..core.models.outputs import LOGITS, POOLED, output_name
from ..core.models.pretraining import make_pretraining
from ..core.reference import ReferenceOps
from .canonical import CanonicalCheckpoint

LIMITS = {"F64": 1e-5, "F32": 1e-5, "F16": 1e-2, "BF16": 1e-1}
"""Type of the result's weights -> how far its outputs may be from the source's, relative to the largest of them.

Float32 forward passes of correct ports differ by some 1e-6; half precision keeps 11 bits of each weight, bfloat16 8, and a
dozen layers add these errors up.
"""
_FLOATS = frozenset(LIMITS)
_BATCH, _LENGTH = 2, 12


@dataclass(frozen=True)
class Difference:
    """How far an output of two models is apart."""

    output: str
    absolute: float
    relative: float
    """Of the largest value of that output."""


def sample_batch(checkpoint: CanonicalCheckpoint) -> dict[str, np.ndarray]:
    """Two rows of tokens, the second with padding: input_ids, token_type_ids (batch, length) int32, attention_mask float32."""
    config = checkpoint.config
    length = min(_LENGTH, config.max_position_embeddings)
    generator = np.random.default_rng(0)
    ids = generator.integers(0, config.vocab_size, (_BATCH, length)).astype(np.int32)
    types = np.zeros((_BATCH, length), np.int32)
    if config.type_vocab_size > 1:
        types[:, length // 2 :] = 1
    mask = np.ones((_BATCH, length), np.float32)
    mask[1, length - length // 3 :] = 0
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def wanted_outputs(checkpoint: CanonicalCheckpoint) -> list[str]:
    """Names of all that the model computes, from the embeddings on."""
    wanted = [output_name("hidden", layer) for layer in range(checkpoint.config.num_hidden_layers + 1)]
    if any(".pooler." in name for name in checkpoint.tensors):
        wanted.append(POOLED)
    if checkpoint.outputs is not None:
        wanted.append(LOGITS)
    return [*wanted, *checkpoint.heads]


def make_outputs(checkpoint: CanonicalCheckpoint):
    """`f(ops, parameters, batch) -> [tensor]`: all of `wanted_outputs`, in their order. Any backend can compile it."""
    config = checkpoint.config.without_dropout()
    heads = list(checkpoint.heads)
    names = [name for name in wanted_outputs(checkpoint) if name not in heads]
    encode = make_forward(config, frozenset(names))
    pretraining = make_pretraining(config, frozenset(heads), frozenset()) if heads else None

    def outputs(ops, parameters, batch):
        encoded = encode(ops, parameters, batch)
        found = [encoded[name] for name in names]
        if pretraining is None:
            return found
        predicted = pretraining(ops, parameters, batch)
        return found + [predicted[name] for name in heads]

    return outputs


def reference_outputs(checkpoint: CanonicalCheckpoint) -> dict[str, np.ndarray]:
    """All outputs of the sample batch, in float64."""
    parameters = {
        name: tensor.load().astype(np.float64)
        for name, tensor in checkpoint.tensors.items()
        if tensor.info.dtype in _FLOATS
    }
    outputs = make_outputs(checkpoint)(ReferenceOps(), parameters, sample_batch(checkpoint))
    return {name: np.asarray(value) for name, value in zip(wanted_outputs(checkpoint), outputs)}


def differences(expected: dict[str, np.ndarray], got: dict[str, np.ndarray], batch) -> list[Difference]:
    """Each output's largest difference, over real tokens only."""
    real = batch["attention_mask"] > 0
    rows = []
    for name, reference in expected.items():
        other = np.asarray(got[name], np.float64)
        if reference.shape[:2] == real.shape and name not in (LOGITS, POOLED):
            reference, other = reference[real], other[real]
        difference = float(np.abs(reference - other).max())
        rows.append(Difference(name, difference, difference / max(1.0, float(np.abs(reference).max()))))
    return rows


def compare_tensors(source: CanonicalCheckpoint, result: CanonicalCheckpoint) -> str:
    """Raises CheckpointError unless every tensor of `source` is in `result` with the same bits, or, in another type, rounded
    to the nearest; says what was found."""
    lost = [name for name in source.tensors if name not in result.tensors]
    if lost:
        raise CheckpointError(f"verification failed: {lost[0]} is not in the result")
    rounded = 0
    for name, tensor in source.tensors.items():
        expected, got = tensor.load(), result.tensors[name].load()
        if expected.dtype != got.dtype:
            expected, rounded = expected.astype(got.dtype), rounded + 1
        if expected.shape != got.shape or not np.array_equal(_bits(expected), _bits(got)):
            raise CheckpointError(f"verification failed: {name} is not the same in the result")
    equal = len(source.tensors) - rounded
    return f"{equal} tensors bit for bit the same" + (f", {rounded} rounded to the nearest" if rounded else "")


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def limit(result: CanonicalCheckpoint) -> float:
    """The limit that the coarsest type of the result's weights sets."""
    return max(LIMITS[tensor.info.dtype] for tensor in result.tensors.values() if tensor.info.dtype in _FLOATS)
