"""What a tokenizer makes of texts: token ids in one flat array, as the cache stores it and batches are cut from it."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np

_AT_ONCE = 1 << 22  # tokens that are counted
_LARGE = 1 << 24  # tokens that are not all looked at only to see whether they are the same
_PARTS = 1024, 1 << 12  # how many parts of a large table are looked at, and tokens of each


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
    types: bool = True
    """Whether a pair's tokens have token type 1, as BERT's; else all types are 0, as RoBERTa's."""
    word_bits: np.ndarray | None = None
    """Of a token store, where the tokens themselves do not tell it: bit 7 - t % 8 of byte t // 8 is 1 where `ids[t]` begins a
    word."""

    words: np.ndarray | None = None
    """Of words with labels: (tokens,) int32, the word that begins at each token, counted through all texts; -1: none."""
    targets: np.ndarray | None = None
    """(tokens,) int32: the label that is learned at each token; -1: none."""
    counted: np.ndarray | None = None
    """(tokens,) float32: what the word at each token counts in losses over logits, 0 where none is learned; None: 1 where a label
    is learned."""
    learned_words: np.ndarray | None = None
    """Where `counted` is given: (tokens,) int32, the word that is learned at each token, as `words` counts them; -1: none."""
    examples: np.ndarray | None = None
    """Of questions, and of texts whose words have labels, which may take several rows: (rows,) int32, the question or text that
    each row is of, in order."""
    spans: np.ndarray | None = None
    """(rows, 2) int32: the places in the row of the first and the last token of the answer."""
    places: np.ndarray | None = None
    """(tokens, 2) int32: from where to where each token of a context is, in its characters; -1 of other tokens."""
    begins: np.ndarray | None = None
    """(rows,) int32: which token of its context the first one in each row is."""
    owned: np.ndarray | None = None
    """(tokens,) booleans: whether an answer may begin at the token in this row, and not in another one of the question."""

    taught: np.ndarray | None = None
    """(rows,) float32: what a teacher scored each row with, where the file says it."""

    members: int = 1
    """How many rows an example of training has: the first rows of all examples come first, then the second ones. All that takes
    the rows one by one need not know of it."""

    @property
    def lengths(self) -> np.ndarray:
        """Places that each row needs in a batch, special tokens included: (rows,) integers."""
        if self.ends is not None:
            return self.first_lengths
        tokens = np.diff(self.offsets)
        return np.maximum(self.first_lengths, tokens - self.first_lengths) if self.apart else tokens

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the rows, computed once: a run asks for it several times."""
        types = "" if self.types else " without types"
        digest = hashlib.sha256(f"{self.pad_id} {self.apart}{types}".encode())
        for array in (self.ids, self.offsets, self.first_lengths):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @functools.cached_property
    def glance(self) -> str:
        """`digest`, or of a large table (a corpus) SHA-256 of its sizes and of parts that are spread over it, which takes a
        moment: texts that have changed are found by it wherever they do not have as many tokens as before."""
        if len(self.ids) <= _LARGE:
            return self.digest
        digest, (parts, size) = hashlib.sha256(f"{len(self.ids)} {len(self.offsets)}".encode()), _PARTS
        for array in (self.ids, self.offsets, self.first_lengths):
            for start in np.linspace(0, max(0, len(array) - size), parts).astype(np.int64):
                digest.update(np.ascontiguousarray(array[start : start + size]).data)
        return digest.hexdigest()

    @property
    def example_lengths(self) -> np.ndarray:
        """Places that the longest row of each example needs: (examples,) integers."""
        return self.lengths if self.members == 1 else np.asarray(self.lengths).reshape(self.members, -1).max(axis=0)


def unknown_share(table: TokenTable, tokenizer) -> float:
    """The share of [UNK] among the tokens of a table, [CLS] and [SEP] (or what stands in their place) left out; 0 for a
    tokenizer that has none, as byte-level ones."""
    unknown, total = 0, len(table.ids)
    if tokenizer.unknown_id is None:
        return 0.0
    inside = not tokenizer.is_words and table.ends is None
    ends = {index for part in tokenizer.places.pair for index in part} if inside else ()
    for first in range(0, len(table.ids), _AT_ONCE):
        ids = np.asarray(table.ids[first : first + _AT_ONCE])
        unknown += int(np.count_nonzero(ids == tokenizer.unknown_id))
        total -= sum(int(np.count_nonzero(ids == end)) for end in ends)
    return unknown / max(1, total)
