"""A corpus as word pieces, for masks that are drawn anew in every epoch: no special tokens, nothing cut, nothing masked.

On disk, memory-mapped, an .npy file each (`token_cache` keeps and checks them, or `token_folder` in a folder of the user's):
  ids         (tokens,) uint16, or uint32 where the vocabulary has more than 65,536 tokens
  offsets     (texts + 1,) int64: text i is ids[offsets[i]:offsets[i + 1]]
  word_bits   (bytes,) uint8: bit 7 - t % 8 of byte t // 8 is 1 where token t is the first piece of a word
  counts      (vocabulary,) int64: how often each token is there
Made in one pass over texts, some megabytes at a time, or from the files of DistilBERT's scripts (`legacy_pickles`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers

from .. import threads
from ..errors import DataError
from .corpus import corpus_files, files_digest, read_texts
from .legacy_pickles import read_binarized, read_token_counts
from .mlm.piece_worker import encode_batches
from .token_cache import Arrays, cached_arrays, update_with_file
from .tokenize import Tokenizer

STORE_FORMAT = 1
"""One more whenever the same files give another store."""

_AT_ONCE = 4096  # rows of a pickle


@dataclass(frozen=True)
class TokenStore:
    """The word pieces of texts."""

    ids: np.ndarray
    offsets: np.ndarray
    word_bits: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, index: int) -> np.ndarray:
        """The pieces of a text."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


def token_store(path: Path, tokenizer: Tokenizer, cache_folder: Path | None = None) -> TokenStore:
    """The store of a text file, of a TFRecord file of texts, or of all such files of a folder but those whose names begin
    with `dev` or `test`. Raises DataError for what is missing, empty, not UTF-8 or damaged."""
    files = corpus_files(path)
    key = files_digest(files, f"store {STORE_FORMAT} {tokenizers.__version__} {tokenizer.fingerprint}")

    def pieces() -> Iterator[tuple[np.ndarray, ...]]:
        threads.set_up()
        texts = (some for file in files for some in read_texts(file, tokenizer.vocab_size))
        yield from encode_batches(texts, tokenizer.library)

    return _stored(path, key, tokenizer, cache_folder, pieces)


def store_of_pickle(path: Path, tokenizer: Tokenizer, cache_folder: Path | None = None) -> TokenStore:
    """The store of a `binarized_text` file; [CLS] and [SEP] of its texts are left out."""
    key = hashlib.sha256(f"pickle {STORE_FORMAT} {tokenizer.fingerprint}".encode())
    try:
        update_with_file(key, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows, ends = read_binarized(path), tokenizer.ends
        for first in range(0, len(rows), _AT_ONCE):
            texts = []
            for number, row in enumerate(rows[first : first + _AT_ONCE], first + 1):
                if row.dtype.itemsize <= 2 and tokenizer.vocab_size > 1 << 16:
                    raise DataError(
                        f"{path}: text {number} has tokens of {row.dtype.itemsize} bytes, which cannot tell the tokenizer's "
                        f"{tokenizer.vocab_size:,} apart; older scripts wrote this wrongly: make the file again"
                    )
                ids = row.values()
                if len(ids) < 2 or (ids[0], ids[-1]) != ends:
                    between = f"[CLS] ({ends[0]}) and [SEP] ({ends[1]})"
                    raise DataError(f"{path}: text {number} is not between {between}: it is of another tokenizer")
                texts.append(ids[1:-1])
            ids, lengths = np.concatenate(texts), np.array([len(text) for text in texts], np.int64)
            wrong = np.flatnonzero((ids < 0) | (ids >= tokenizer.vocab_size))
            if len(wrong):
                number = first + 1 + int(np.searchsorted(np.cumsum(lengths), wrong[0], side="right"))
                last = tokenizer.vocab_size - 1
                raise DataError(f"{path}: text {number} has the token {ids[wrong[0]]}, but the tokenizer's are 0 to {last}")
            yield ids, lengths

    return _stored(path, key.hexdigest(), tokenizer, cache_folder, pieces)


def check_counts(path: Path, store: TokenStore, tokenizer: Tokenizer) -> np.ndarray:
    """The counts of a `token_counts` file, which must be those of this store: (vocabulary,) int64. Those of [CLS] and [SEP],
    which a store leaves out, are not compared."""
    counts = read_token_counts(path, tokenizer.vocab_size)
    expected = np.array(store.counts)
    ends = list(tokenizer.ends)
    expected[ends] = counts[ends]
    wrong = np.flatnonzero(counts != expected)
    if len(wrong):
        token = wrong[0]
        raise DataError(
            f"{path}: counts {counts[token]:,} of the token {token}, but the texts have {expected[token]:,}; "
            "it is of other texts or another tokenizer"
        )
    return counts


def _stored(path: Path, key: str, tokenizer: Tokenizer, cache_folder: Path | None, pieces) -> TokenStore:
    """The store of what `pieces()` yields: ids and lengths of some texts at a time."""
    if tokenizer.is_words:
        raise DataError(f"{path}: a store of tokens needs a tokenizer of word pieces, this one has whole words")

    def parts() -> Iterator[Arrays]:
        for part in store_parts(pieces(), tokenizer):
            if "counts" in part and not part["counts"].any():
                raise DataError(f"{path}: holds no text")
            yield part

    return TokenStore(**cached_arrays("stores", key, cache_folder, store_dtypes(tokenizer.vocab_size), parts))


def store_dtypes(vocabulary: int) -> dict[str, np.dtype]:
    """The arrays of a store, for a vocabulary of that many tokens."""
    return {
        "ids": np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4"),
        "offsets": np.dtype("<i8"),
        "word_bits": np.dtype("u1"),
        "counts": np.dtype("<i8"),
    }


def store_parts(pieces: Iterator[tuple[np.ndarray, ...]], tokenizer: Tokenizer) -> Iterator[Arrays]:
    """The arrays of a store, piece by piece, of ids and lengths of some texts at a time and of which pieces begin a word, where
    the pieces do not tell it. `counts` comes once, at the end."""
    size = tokenizer.vocab_size
    by_token, counts = _begins_word(tokenizer), np.zeros(size, np.int64)
    total, bits = 0, PackedBits()
    yield {"offsets": np.zeros(1, np.int64)}
    for ids, lengths, *told in pieces:
        starts = told[0] if told else by_token[ids]
        counts += np.bincount(ids, minlength=size)
        yield {"ids": ids, "offsets": total + np.cumsum(lengths[lengths > 0]), "word_bits": bits.add(starts)}
        total += len(ids)
    yield {"word_bits": bits.rest(), "counts": counts}


class PackedBits:
    """Bits that come some at a time, eight to a byte."""

    def __init__(self):
        self._rest = np.zeros(0, bool)

    def add(self, bits: np.ndarray) -> np.ndarray:
        """The bytes that are full with `bits` (bits,) bool."""
        bits = np.concatenate([self._rest, bits])
        whole = len(bits) - len(bits) % 8
        self._rest = bits[whole:]
        return np.packbits(bits[:whole])

    def rest(self) -> np.ndarray:
        """The last byte, filled up with zeros; none where no bit is left."""
        return np.packbits(self._rest)


def _begins_word(tokenizer: Tokenizer) -> np.ndarray:
    """Which tokens of the vocabulary are no continuation of a word: (vocabulary,) bool. All, where they do not tell it."""
    starts = np.ones(tokenizer.vocab_size, bool)
    if not tokenizer.is_word_piece:
        return starts
    prefix = tokenizer.library.model.continuing_subword_prefix
    for token, index in tokenizer.library.get_vocab().items():
        starts[index] = not token.startswith(prefix)
    return starts
