"""Another number of rows in the vocabulary of a checkpoint, on demand only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..core.checkpoint import model_config
from ..core.errors import CheckpointError
from .canonical import CanonicalCheckpoint
from .tensors import DTYPES, Tensor

NEVER = -10000.0
"""Output bias of a new row: float16 holds it, and after a softmax nothing is left of it."""


def resize_vocabulary(checkpoint: CanonicalCheckpoint, rows: int) -> CanonicalCheckpoint:
    """The checkpoint with `rows` words: the first of them, or all and new rows, which are zero and never predicted.

    Raises CheckpointError where words of the vocabulary file would be cut off.
    """
    old = checkpoint.config.vocab_size
    words = _vocabulary_size(checkpoint)
    if rows < 1 or (words is not None and rows < words):
        raise CheckpointError(f"--resize-vocabulary {rows}: {checkpoint.tokenizer['vocab.txt']} has {words} words")
    raw = {**checkpoint.raw, "vocab_size": rows}
    tensors = dict(checkpoint.tensors)
    for name, tensor in tensors.items():
        if tensor.info.shape[:1] == (old,) and _is_by_word(name):
            tensors[name] = _resized(tensor, rows)
    note = f"vocabulary of {old} rows made {rows}"
    return replace(
        checkpoint,
        raw=raw,
        config=model_config(raw, "--resize-vocabulary"),
        tensors=tensors,
        notes=[*checkpoint.notes, note],
    )


def _is_by_word(name: str) -> bool:
    """Whether the rows of a tensor are words: the embeddings, and what maps back to them."""
    biases = ("predictions.bias", "decoder.bias", "vocab_projector.bias", "generator_lm_head.bias")
    return name.endswith(("word_embeddings.weight", "decoder.weight", "vocab_projector.weight", *biases))


def _resized(tensor: Tensor, rows: int) -> Tensor:
    info = replace(tensor.info, shape=(rows, *tensor.info.shape[1:]))
    fill = NEVER if info.name.endswith("bias") else 0.0

    def load() -> np.ndarray:
        kept = tensor.load()[:rows]
        resized = np.full(info.shape, fill, DTYPES[info.dtype])
        resized[: len(kept)] = kept
        return resized

    return Tensor(info, load)


def _vocabulary_size(checkpoint: CanonicalCheckpoint) -> int | None:
    path = checkpoint.tokenizer.get("vocab.txt")
    if path is None:
        return None
    with path.open("rb") as file:
        return sum(1 for _ in file)
