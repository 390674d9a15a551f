"""Word pieces of many texts by two processes: every second batch goes to a process of its own, the others stay here."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import tokenizers
from tokenizers import models

from ..piece_words import encoded_words
from .pieces import PieceTable
from .worker_process import WorkerProcess, serve

Encoded = tuple[np.ndarray, ...]
"""Ids (pieces,) int32 and the pieces of each text (texts,); of a tokenizer whose pieces do not tell it also which of them begin a
word (pieces,) bool."""

_ALONE = 1  # batch that this process encodes before another one is worth its start


def encode_batches(batches: Iterable[Sequence[str]], library: tokenizers.Tokenizer) -> Iterator[Encoded]:
    """The pieces of each batch of texts by the tokenizer `library`, without special tokens around them, in order. Raises
    DataError where the other process is ended."""
    table, batches = _table(library), iter(batches)
    for texts in islice(batches, _ALONE):
        yield table(texts)
    first = next(batches, None)
    if first is None:
        return
    with WorkerProcess(__name__, "finds word pieces", "the same command starts it again") as worker:
        worker.send((library.to_str(), library.encode_special_tokens))
        while first is not None:
            worker.send(first)
            second = next(batches, None)
            here = None if second is None else table(second)
            yield worker.receive()
            if here is not None:
                yield here
            first = next(batches, None)


def _table(library: tokenizers.Tokenizer) -> Callable[[Sequence[str]], Encoded]:
    if isinstance(library.model, models.BPE | models.Unigram):
        return functools.partial(encoded_words, library)
    table = PieceTable(library)

    def encoded(texts: Sequence[str]) -> Encoded:
        pieces = table.encode(texts)
        return pieces.ids, pieces.lengths

    return encoded


def _prepare(given: tuple[str, bool]) -> Callable[[Sequence[str]], Encoded]:
    definition, special_as_text = given
    library = tokenizers.Tokenizer.from_str(definition)
    library.encode_special_tokens = special_as_text
    return _table(library)


if __name__ == "__main__":
    serve(_prepare)
