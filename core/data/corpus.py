"""Raw text to token rows, for distillation without a task: one row a piece of text, `[CLS] ... [SEP]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..errors import DataError
from .tables import folder_contents
from .token_table import TokenTable

SHORTEST = 4
"""Tokens, [CLS] and [SEP] among them, below which the rest of a line is dropped."""
_LINES = 2000  # encoded at once


def read_corpus(path: Path, tokenizer, max_length: int) -> TokenTable:
    """The rows of a .txt file, or of all that a folder holds. Lines longer than `max_length` tokens are cut into several
    rows. Raises DataError for what is missing, empty or not UTF-8."""
    ids, lengths = [], []
    for file in _files(path):
        for chunk in _chunks(file):
            table = tokenizer.encode_pairs(chunk, None, 1 << 20)
            for start, end in zip(table.offsets[:-1], table.offsets[1:]):
                row = table.ids[start:end]
                body, room = row[1:-1], max_length - 2
                for cut in range(0, len(body), room):
                    piece = body[cut : cut + room]
                    if len(piece) + 2 >= SHORTEST:
                        ids.append(np.concatenate([row[:1], piece, row[-1:]]))
                        lengths.append(len(piece) + 2)
    if not ids:
        raise DataError(f"{path}: holds no text")
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return TokenTable(np.concatenate(ids).astype(np.int32), offsets, np.array(lengths, np.int32), tokenizer.pad_id)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"task.data: {path}: no such file or folder")
    files = sorted(file for file in path.iterdir() if file.suffix == ".txt")
    if not files:
        raise DataError(f"task.data: {path}: holds no .txt file; {folder_contents(path)}")
    return files


def _chunks(path: Path) -> Iterator[list[str]]:
    chunk: list[str] = []
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for line in file:
                if line.strip():
                    chunk.append(line.strip())
                if len(chunk) == _LINES:
                    yield chunk
                    chunk = []
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8: {error}") from None
    if chunk:
        yield chunk
