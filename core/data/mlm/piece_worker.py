"""Word pieces of many texts by two processes: every second batch goes to a process of its own, the others stay here.

The other process is started as a program, not by `multiprocessing`, which would run the caller's script once more.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np
import tokenizers

from ...errors import DataError
from ...processes import child_environment, end_with_parent
from .pieces import PieceTable

Encoded = tuple[np.ndarray, np.ndarray]
"""Ids (pieces,) int32, and the pieces of each text (texts,)."""

_ALONE = 1  # batch that this process encodes before another one is worth its start


def encode_batches(batches: Iterable[Sequence[str]], library: tokenizers.Tokenizer) -> Iterator[Encoded]:
    """The pieces of each batch of texts by the tokenizer `library`, without special tokens around them, in order. Raises
    DataError where the other process is ended."""
    table, batches = PieceTable(library), iter(batches)
    for texts in islice(batches, _ALONE):
        yield _encoded(table, texts)
    first = next(batches, None)
    if first is None:
        return
    with _worker(library) as worker:
        while first is not None:
            _send(worker, first)
            second = next(batches, None)
            here = None if second is None else _encoded(table, second)
            yield _receive(worker)
            if here is not None:
                yield here
            first = next(batches, None)


def _encoded(table: PieceTable, texts: Sequence[str]) -> Encoded:
    pieces = table.encode(texts)
    return pieces.ids, pieces.lengths


@contextmanager
def _worker(library: tokenizers.Tokenizer) -> Iterator[subprocess.Popen]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, env=child_environment(), stdin=pipe, stdout=pipe) as process:
        try:
            _send(process, (library.to_str(), library.encode_special_tokens))
            yield process
        finally:
            process.kill()


def _send(worker: subprocess.Popen, content: object) -> None:
    try:
        pickle.dump(content, worker.stdin, pickle.HIGHEST_PROTOCOL)
        worker.stdin.flush()
    except BrokenPipeError:
        raise _ended(worker) from None


def _receive(worker: subprocess.Popen) -> Encoded:
    try:
        return pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError):
        raise _ended(worker) from None


def _ended(worker: subprocess.Popen) -> DataError:
    code = worker.wait()
    how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}, as happens when memory is short"
    return DataError(f"the process that finds word pieces was ended with {how}; the same command starts it again")


def main() -> None:
    """The other process: batches from standard input, their pieces to standard output, until the input ends."""
    end_with_parent()
    definition, special_as_text = pickle.load(sys.stdin.buffer)
    library = tokenizers.Tokenizer.from_str(definition)
    library.encode_special_tokens = special_as_text
    table = PieceTable(library)
    while True:
        try:
            texts = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_encoded(table, texts), sys.stdout.buffer, pickle.HIGHEST_PROTOCOL)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
