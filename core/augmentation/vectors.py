"""Words near a word in a vector space, from a file in GloVe's text format (`word number number ...` a line).

TinyBERT's augmentation takes replacements from there for words that BERT's vocabulary cuts into several pieces. Such a
file is the user's: the published ones have gigabytes, and their first lines are the most frequent words.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError

LARGEST = 100_000
"""Words read of a file, as in the code published with TinyBERT."""
_CHUNK = 256  # words whose similarities to all others are in memory at once: 100 MB


class WordVectors:
    """Unit vectors (words, size) float32 and what they are the vectors of."""

    def __init__(self, words: Sequence[str], vectors: np.ndarray):
        self.words = list(words)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        self._vectors = np.asarray(vectors / np.where(lengths == 0, 1, lengths), np.float32)
        self._places = {word: place for place, word in reversed(list(enumerate(self.words)))}

    def nearest(self, words: Sequence[str], count: int) -> dict[str, list[str]]:
        """For each of the `words` that has a vector, the `count` others of the highest cosine, nearest first."""
        known = [word for word in dict.fromkeys(words) if word in self._places]
        found = {}
        for start in range(0, len(known), _CHUNK):
            chunk = known[start : start + _CHUNK]
            places = np.array([self._places[word] for word in chunk])
            cosines = self._vectors[places] @ self._vectors.T  # (chunk, words)
            cosines[np.arange(len(chunk)), places] = -np.inf
            size = min(count, len(self.words) - 1)
            best = np.argpartition(-cosines, size - 1, axis=1)[:, :size] if size else np.zeros((len(chunk), 0), int)
            for row, word in enumerate(chunk):
                order = best[row][np.argsort(-cosines[row, best[row]], kind="stable")]
                found[word] = [self.words[place] for place in order]
        return found


def load_vectors(path: Path, largest: int = LARGEST) -> WordVectors:
    """The first `largest` words of a file in GloVe's text format; word2vec's text format, with its header, as well."""
    words: list[str] = []
    rows: list[np.ndarray] = []
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                parts = line.rstrip("\r\n").rstrip(" ").split(" ")
                if number == 1 and len(parts) == 2 and all(part.isdecimal() for part in parts):
                    continue  # word2vec's header: words and size
                size = len(rows[0]) if rows else len(parts) - 1
                # Some published files have words with white space in them, which no text has as a word.
                if len(parts) > size + 1 > 1 or (parts[0] and parts[0].split() != [parts[0]]):
                    continue
                rows.append(_vector(path, number, parts, size))
                words.append(parts[0])
                if len(words) == largest:
                    break
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    if not words:
        raise DataError(f"{path}: holds no words")
    return WordVectors(words, np.stack(rows))


def _vector(path: Path, number: int, parts: list[str], size: int) -> np.ndarray:
    try:
        vector = np.array(parts[1:], np.float32)
    except ValueError:
        vector = np.array([np.nan], np.float32)
    if not parts[0] or size < 1 or len(vector) != size or not np.isfinite(vector).all():
        shape = f"a word and {size} numbers" if size > 0 else "a word and its numbers"
        raise DataError(f"{path}:{number}: expected {shape} with spaces between them")
    return vector
