"""Another number of rows in the vocabulary of a checkpoint, on demand only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.config_file import model_config
from ..core.data.slow_tokenizers import BPE_FILES, MODELS
from ..core.data.tokenize import load_tokenizer
from ..core.errors import CheckpointError
from ..core.json_files import read_object
from ..core.models.tree import by_word
from ..core.shown import plain
from .canonical import CanonicalCheckpoint
from .tensors import DTYPES, Tensor

NEVER = -10000.0
"""Output bias of a new row: float16 holds it, and after a softmax nothing is left of it."""


def resize_vocabulary(checkpoint: CanonicalCheckpoint, rows: int) -> CanonicalCheckpoint:
    """The checkpoint with `rows` words: the first of them, or all and new rows, which are zero and never predicted.

    Raises CheckpointError where words of the vocabulary file would be cut off.
    """
    old = checkpoint.config.vocab_size
    path, words = _vocabulary(checkpoint)
    if rows < 1:
        raise CheckpointError(f"--resize-vocabulary {rows}: expected at least 1")
    if rows < words:
        raise CheckpointError(f"--resize-vocabulary {rows}: {path} has {words} words")
    raw = {**checkpoint.raw, "vocab_size": rows}
    tensors, own = dict(checkpoint.tensors), by_word(checkpoint.config)
    for name, tensor in tensors.items():
        if tensor.info.shape[:1] == (old,) and name in own:
            tensors[name] = _resized(tensor, rows)
    note = f"vocabulary of {old} rows made {rows}"
    return replace(
        checkpoint,
        raw=raw,
        config=model_config(raw, "--resize-vocabulary"),
        tensors=tensors,
        resized=True,
        notes=[*checkpoint.notes, note],
    )


@dataclass(frozen=True)
class KeptWords:
    """The words that a checkpoint keeps, by their rows (kept,) in order, and the files of the tokenizer that has them alone."""

    rows: np.ndarray
    tokenizer: Mapping[str, Path]


def keep_words(checkpoint: CanonicalCheckpoint, words: KeptWords) -> CanonicalCheckpoint:
    """The checkpoint with some of its words: their rows of the embeddings and of the heads over words, and their numbers in its
    configuration."""
    old = checkpoint.config.vocab_size
    new = {int(row): index for index, row in enumerate(words.rows)}
    numbers = {key: new[value] for key, value in checkpoint.raw.items() if key.endswith("_token_id") and value in new}
    raw = {**checkpoint.raw, **numbers, "vocab_size": len(new)}
    tensors, own = dict(checkpoint.tensors), by_word(checkpoint.config)
    for name, tensor in tensors.items():
        if tensor.info.shape[:1] == (old,) and name in own:
            info = replace(tensor.info, shape=(len(new), *tensor.info.shape[1:]))
            tensors[name] = Tensor(info, lambda tensor=tensor: np.ascontiguousarray(tensor.load()[words.rows]))
    config = model_config(raw, "the trimmed configuration")
    return replace(checkpoint, raw=raw, config=config, tensors=tensors, tokenizer=dict(words.tokenizer), resized=True)


def _resized(tensor: Tensor, rows: int) -> Tensor:
    info = replace(tensor.info, shape=(rows, *tensor.info.shape[1:]))
    fill = NEVER if info.name.endswith("bias") else 0.0

    def load() -> np.ndarray:
        kept = tensor.load()[:rows]
        resized = np.full(info.shape, fill, DTYPES[info.dtype])
        resized[: len(kept)] = kept
        return resized

    return Tensor(info, load)


def _vocabulary(checkpoint: CanonicalCheckpoint) -> tuple[Path | None, int]:
    """(the file of the words, how many rows they need)."""
    if (path := checkpoint.tokenizer.get("vocab.txt")) is not None:
        with path.open("rb") as file:
            return path, sum(1 for _ in file)
    if (path := checkpoint.tokenizer.get("tokenizer.json")) is None:
        if (path := next((checkpoint.tokenizer[name] for name in (*BPE_FILES, *MODELS) if name in checkpoint.tokenizer), None)):
            return path, load_tokenizer(path.parent).vocab_size
        return None, 0
    try:
        definition = read_object(path, CheckpointError)
        numbers = [entry["id"] + 1 for entry in definition.get("added_tokens") or ()]
        return path, max([len(definition["model"]["vocab"]), *numbers])
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: is no tokenizer: {plain(repr(error))}") from error
