"""A column of texts in one buffer: a million Python strings take three times the memory of what they say."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np


class Texts(Sequence):
    """Texts, kept as UTF-8 one behind the other. A slice is a list of strings."""

    def __init__(self, texts: Iterable[str] = ()):
        self._bytes, self._ends, self._lengths = bytearray(), array("q", [0]), array("i")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add a text. Raises UnicodeEncodeError for half a surrogate pair, which no tokenizer can take."""
        self._bytes += text.encode("utf-8")
        self._ends.append(len(self._bytes))
        self._lengths.append(len(text))

    @property
    def characters(self) -> np.ndarray:
        """Of each text: (texts,) int32."""
        return np.array(self._lengths, np.int32)

    @property
    def utf8(self) -> bytearray:
        """All of them, one behind the other."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row = range(len(self))[index]
        return self._bytes[self._ends[row] : self._ends[row + 1]].decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    def __add__(self, other: Iterable[str]) -> Texts:
        return Texts(text for texts in (self, other) for text in texts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other))

    __hash__ = None  # type: ignore[assignment]
