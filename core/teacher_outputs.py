"""A teacher's outputs for all training rows, in flat arrays, and batches of them.

Rows keep the order of the token table. An output that has an entry per token takes as many entries as the row has tokens,
with no padding: attention scores of a row of n tokens take heads * n * n numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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

    @property
    def size(self) -> int:
        """Numbers in all."""
        return int(self.starts[-1])


def make_layout(name: str, config: Config, outputs: int | None, lengths: np.ndarray) -> Layout:
    """The layout of an output of a model with that configuration and number of logits over rows of `lengths` tokens."""
    kind, _ = split_name(name)
    heads = getattr(config, "num_attention_heads", 1)
    if kind in ("logits", "pooled"):
        width = outputs if kind == "logits" else config.hidden_size
        return Layout(name, "row", width, 1, np.arange(len(lengths) + 1, dtype=np.int64) * width)
    counts = lengths.astype(np.int64)
    if kind == "scores":
        form, width, counts = "pair", heads, heads * counts**2
    else:
        form, width = "token" if kind == "hidden" else "heads", config.hidden_size
        counts = counts * width
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return Layout(name, form, width, heads, starts)


def store(layout: Layout, flat: np.ndarray, rows: np.ndarray, lengths: np.ndarray, values: np.ndarray) -> None:
    """Put a batch of outputs, padded as the model gave them, into the flat array."""
    for place, (row, length) in enumerate(zip(rows, lengths)):
        start, end = layout.starts[row], layout.starts[row + 1]
        if layout.kind == "row":
            piece = values[place]
        elif layout.kind == "token":
            piece = values[place, :length]  # (n, D)
        elif layout.kind == "heads":
            piece = values[place, :, :length].swapaxes(0, 1)  # (A, n, D) -> (n, A, D)
        else:
            piece = values[place, :, :length, :length]  # (A, n, n)
        flat[start:end] = piece.reshape(-1)


def load(layout: Layout, flat: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """The outputs of a batch of rows as the model would give them for texts padded to `length`, 0 where there is padding;
    the row -1 only fills the batch."""
    shapes = {
        "row": (layout.width,),
        "token": (length, layout.width),
        "heads": (layout.heads, length, layout.width // layout.heads),
        "pair": (layout.heads, length, length),
    }
    values = np.zeros((len(rows), *shapes[layout.kind]), np.float32)
    for place, row in enumerate(rows):
        if row < 0:
            continue
        piece = flat[layout.starts[row] : layout.starts[row + 1]]
        if layout.kind == "row":
            values[place] = piece
        elif layout.kind == "token":
            piece = piece.reshape(-1, layout.width)
            values[place, : len(piece)] = piece
        elif layout.kind == "heads":
            piece = piece.reshape(-1, layout.heads, layout.width // layout.heads).swapaxes(0, 1)
            values[place, :, : piece.shape[1]] = piece
        else:
            tokens = round((len(piece) / layout.heads) ** 0.5)
            values[place, :, :tokens, :tokens] = piece.reshape(layout.heads, tokens, tokens)
    return values
