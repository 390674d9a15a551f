"""What a tokenizer makes of texts: token ids in one flat array, as the cache stores it and batches are cut from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenTable:
    """The tokens of row i are `ids[offsets[i]:offsets[i + 1]]`; the first `first_lengths[i]` of them are the text's, and
    the others the pair's."""

    ids: np.ndarray  # (tokens,) int32
    offsets: np.ndarray  # (rows + 1,) int64
    first_lengths: np.ndarray  # (rows,) int32
    pad_id: int = 0
    apart: bool = False
    """Whether text and pair are two inputs of a model, instead of one after the other."""
    ends: tuple[int, int] | None = None
    """[CLS] and [SEP] where `ids` holds single texts without them, and a batch puts them around each row. `first_lengths`
    counts them: row i is `ids[offsets[i]:][:first_lengths[i] - 2]`, and tokens behind it may belong to no row."""

    @property
    def lengths(self) -> np.ndarray:
        """Places that each row needs in a batch, special tokens included: (rows,) integers."""
        if self.ends is not None:
            return self.first_lengths
        tokens = np.diff(self.offsets)
        return np.maximum(self.first_lengths, tokens - self.first_lengths) if self.apart else tokens
