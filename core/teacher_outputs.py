"""A teacher's outputs for all training rows, in flat arrays, and batches of them.

Rows keep the order of the token table. An output that has an entry per token takes as many entries as the row has tokens,
with no padding: attention scores of a row of n tokens take heads * n * n numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .kept_logits import packed, packed_size, unpacked
from .models.answer_heads import SENTENCES
from .models.architectures import Config
from .models.outputs import split_name


@dataclass(frozen=True)
class Layout:
    """How one output of one teacher lies in a flat array."""

    name: str
    """As in `core.models.outputs`."""
    kind: str
    """`row`: a vector a row; `token`: a vector a token; `heads`: a vector a token and head; `pair`: heads * n * n."""
    width: int
    """Numbers per row, per token (all heads together), or heads."""
    heads: int
    starts: np.ndarray
    """(rows + 1,) int64: where each row's numbers start."""
    kept: tuple[int, int] | None = None
    """(classes, how many of their logits are kept) where that is not all of them."""

    @property
    def size(self) -> int:
        """Numbers in all."""
        return int(self.starts[-1])


def make_layout(name: str, config: Config, outputs: int | None, lengths: np.ndarray, top_k: int | None = None) -> Layout:
    """The layout of an output of a model with that configuration and number of logits, of which the `top_k` largest are kept,
    over rows of `lengths` tokens."""
    kind, _ = split_name(name)
    heads = getattr(config, "num_attention_heads", 1)
    kept = None if kind != "logits" or top_k is None or top_k >= outputs else (outputs, top_k)
    if kept is not None:
        outputs = packed_size(*kept)
    if kind == "logits" and getattr(config, "classifier", SENTENCES).token_map:
        starts = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths.astype(np.int64) * outputs, out=starts[1:])
        return Layout(name, "token", outputs, 1, starts, kept)
    if kind in ("logits", "pooled", "embedding", "first"):
        width = outputs if kind == "logits" else config.hidden_size
        return Layout(name, "row", width, 1, np.arange(len(lengths) + 1, dtype=np.int64) * width, kept)
    counts = lengths.astype(np.int64)
    if kind == "scores":
        form, width, counts = "pair", heads, heads * counts**2
    else:
        form, width = "token" if kind == "hidden" else "heads", config.hidden_size
        counts = counts * width
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return Layout(name, form, width, heads, starts)


def pieces(layout: Layout, rows: np.ndarray, lengths: np.ndarray, values: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(where it starts in the flat array, its numbers) of each row of a batch of outputs, padded as the model gave them."""
    values = values if layout.kept is None else packed(values, layout.kept[1])
    for place, (row, length) in enumerate(zip(rows, lengths)):
        if layout.kind == "row":
            piece = values[place]
        elif layout.kind == "token":
            piece = values[place, :length]  # (n, D)
        elif layout.kind == "heads":
            piece = values[place, :, :length].swapaxes(0, 1)  # (A, n, D) -> (n, A, D)
        else:
            piece = values[place, :, :length, :length]  # (A, n, n)
        yield int(layout.starts[row]), piece.reshape(-1)


def load(layout: Layout, flat: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """The outputs of a batch of rows as the model would give them for texts padded to `length`, 0 where there is padding;
    the row -1 only fills the batch.

    Training waits for this. So nothing is written twice (only padding is set to 0), and `flat` should be a plain array:
    slicing a np.memmap costs several times as much.
    """
    heads, width = layout.heads, layout.width
    shapes = {
        "row": (width,),
        "token": (length, width),
        "heads": (heads, length, width // heads),
        "pair": (heads, length, length),
    }
    values = np.empty((len(rows), *shapes[layout.kind]), np.float32)
    starts, ends = layout.starts[:-1][rows], layout.starts[1:][rows]
    for row, start, end, out in zip(rows, starts, ends, values):
        if row < 0:
            out[:] = 0
        elif layout.kind in ("row", "token"):
            out = out.reshape(-1)
            out[: end - start] = flat[start:end]
            out[end - start :] = 0
        elif layout.kind == "heads":
            piece = flat[start:end].reshape(-1, heads, width // heads).swapaxes(0, 1)  # (A, n, D)
            out[:, : piece.shape[1]] = piece
            out[:, piece.shape[1] :] = 0
        else:
            tokens = math.isqrt((end - start) // heads)
            out[:, :tokens, :tokens] = flat[start:end].reshape(heads, tokens, tokens)
            out[:, tokens:] = 0
            out[:, :tokens, tokens:] = 0
    return values if layout.kept is None else unpacked(values, *layout.kept)
