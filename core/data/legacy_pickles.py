"""The files of DistilBERT's scripts (transformers' examples/research_projects/distillation), read without running what they hold.

  binarized_text.*.pickle   a list of NumPy arrays, a text each, `[CLS] ... [SEP]`: uint16, or int32 where the vocabulary has
                            more than 65,536 tokens
  token_counts.*.pickle     how often each token is in them: a list of integers, or the Counter that it was made from

As any Python 3 and NumPy wrote them, protocols 2 to 5: the module of arrays is `numpy.core` or, since NumPy 2, `numpy._core`; in
protocol 5 an array is a call of `_frombuffer`; in protocol 2 bytes are text that is to be encoded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CheckpointError, DataError
from ..safe_pickle import load_next

_DTYPES = {code: np.dtype(f"<{code}") for code in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}


class _Dtype:
    """An integer type; its state brings the order of bytes."""

    def __init__(self, code: Any, *_: Any):
        self.numpy = _DTYPES[code]

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError("an order of bytes that is none")
        self.numpy = self.numpy.newbyteorder(state[1])


class _Latin1:
    """Bytes as protocol 2 has them. Kept as they came: a pickle may ask for the same ones any number of times."""

    def __init__(self, text: Any, encoding: Any):
        if not isinstance(text, str) or encoding != "latin1":
            raise ValueError("bytes that are none")
        self.text = text

    def __len__(self) -> int:
        return len(self.text)


class Integers:
    """An array of one axis, as bytes that are not looked at before they are asked for."""

    def __init__(self, *_: Any):
        self._data: Any = b""
        self.dtype = _DTYPES["i8"]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, _, data = state
        self._set(shape, dtype, data)

    def _set(self, shape: Any, dtype: Any, data: Any) -> None:
        if not isinstance(data, (bytes, _Latin1)) or not isinstance(dtype, _Dtype):
            raise ValueError("an array that is none")
        if type(shape) is not tuple or len(shape) != 1 or shape[0] * dtype.numpy.itemsize != len(data):
            raise ValueError("an array whose shape does not fit its bytes")
        self._data, self.dtype = data, dtype.numpy

    @classmethod
    def from_buffer(cls, data: Any, dtype: Any, shape: Any, *_order: Any) -> Integers:
        """As protocol 5 makes arrays."""
        made = cls()
        made._set(shape, dtype, data)
        return made

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._data)

    def values(self) -> np.ndarray:
        """(numbers,) int64."""
        data = self._data.text.encode("latin-1") if isinstance(self._data, _Latin1) else self._data
        return np.frombuffer(data, self.dtype).astype(np.int64)


def _scalar(dtype: Any, data: Any) -> int:
    made = Integers()
    made._set((1,), dtype, data)
    return int(made.values()[0])


def _counter(*entries: Any) -> dict:
    (found,) = entries or ({},)
    if type(found) is not dict:
        raise ValueError("a Counter that is none")
    return found


def _allowed() -> dict[tuple[str, str], Callable | Any]:
    allowed: dict[tuple[str, str], Callable | Any] = {
        ("numpy", "ndarray"): object(),  # only named, as what _reconstruct makes
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Latin1,
        ("collections", "Counter"): _counter,
    }
    for core in ("core", "_core"):
        allowed[f"numpy.{core}.multiarray", "_reconstruct"] = Integers
        allowed[f"numpy.{core}.multiarray", "scalar"] = _scalar
        allowed[f"numpy.{core}.numeric", "_frombuffer"] = Integers.from_buffer
    return allowed


_ALLOWED = _allowed()


def read_binarized(path: Path) -> list[Integers]:
    """The arrays of a `binarized_text` file. Raises DataError for anything else."""
    found = _load(path)
    if type(found) is not list or not all(isinstance(row, Integers) for row in found):
        raise DataError(f"{path}: holds a {type(found).__name__}, expected a list of arrays of integers, one for each text")
    if sum(row.size for row in found) > path.stat().st_size:
        raise DataError(f"{path}: damaged: its arrays are larger than the file")
    return found


def read_token_counts(path: Path, vocabulary: int) -> np.ndarray:
    """How often each token of a vocabulary of that size is there, of a `token_counts` file: (vocabulary,) int64."""
    found = _load(path)
    if type(found) is list and len(found) != vocabulary:
        raise DataError(f"{path}: counts {len(found):,} tokens, but the tokenizer has {vocabulary:,}")
    entries = list(enumerate(found) if type(found) is list else found.items() if type(found) is dict else [(None, None)])
    counts = np.zeros(vocabulary, np.int64)
    for token, count in entries:
        if type(token) is not int or type(count) is not int or not 0 <= count < 1 << 62:
            raise DataError(f"{path}: expected a list of counts, or a Counter of tokens")
        if not 0 <= token < vocabulary:
            raise DataError(f"{path}: counts the token {token}, but the tokenizer's are 0 to {vocabulary - 1}")
        counts[token] = count
    return counts


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            # Some twenty instructions belong to an array, and two bytes or more to an instruction.
            found = load_next(file, size, str(path), _ALLOWED, instructions=size // 2, byte_arrays=True)
            if file.tell() != size:
                raise DataError(f"{path}: {size - file.tell():,} bytes follow the end of the pickle at byte {file.tell()}")
            return found
    except CheckpointError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
