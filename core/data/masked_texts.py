"""What a masked language model is trained on and evaluated on: rows of tokens, and what masks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import DataError
from .batches import Masks
from .corpus import SHORTEST, cut_lengths
from .masking import DynamicMasks, MaskingSettings
from .records.masked_records import holds_tokens, read_masked_records, read_original
from .token_folder import is_store, open_store
from .token_store import TokenStore, check_counts, store_of_pickle, token_store
from .token_table import TokenTable
from .tokenize import Tokenizer

_AT_ONCE = 1 << 20  # texts, or tokens that are counted


@dataclass(frozen=True)
class MaskedData:
    """Tables without masks or with those that records have, and what gives a batch of their rows its masks."""

    train: TokenTable
    train_masks: Masks
    dev: TokenTable | None = None
    dev_masks: Masks | None = None


def read_masked(
    data: Path,
    masking: MaskingSettings | None,
    tokenizer: Tokenizer,
    max_length: int,
    seed: int | Sequence[int],
    dev: Path | None = None,
    cache_folder: Path | None = None,
) -> MaskedData:
    """The rows of `data` and `dev`, of at most `max_length` tokens, and their masks.

    Both are texts (what `token_store` reads, a folder with such a store, or a `binarized_text` .pickle of DistilBERT's scripts)
    or records of tokens. Records keep the masks that they have, unless `masking` is given; all else is masked anew in every
    epoch. The masks of dev are always the same, and drawn as BERT draws them, whatever `masking` says: so its scores can be
    compared. Raises DataError for what does not fit together.
    """
    def read(path: Path) -> tuple[TokenTable, Masks | None, TokenStore | None]:
        if tokenizer.is_words or not _holds_records(path):
            table, store = open_texts(path, tokenizer, max_length, cache_folder)
            return table, None, store
        _check_room(max_length)
        if masking is not None:
            return read_original(path, tokenizer, max_length, cache_folder), None, None
        records = read_masked_records(path, tokenizer, max_length, cache_folder)
        return records.table, records.masks, None

    table, masks, store = read(data)
    if masking is not None and masking.whole_words and not tokenizer.is_word_piece:
        if store is None or data.suffix == ".pickle":
            raise DataError(
                f"task.masking.whole_words: {data} holds tokens, and those of a {tokenizer.kind} tokenizer do not tell where "
                "words begin; give the texts"
            )
        table = replace(table, word_bits=np.asarray(store.word_bits))
    counts = _counts(data, masking, table, store, tokenizer) if masking is not None and masking.smoothing else None
    drawn = DynamicMasks(masking or MaskingSettings(), tokenizer, seed, counts, table)
    found = MaskedData(table, masks or drawn)
    if dev is not None:
        table, masks, _ = read(dev)
        found = replace(found, dev=table, dev_masks=masks or DynamicMasks(MaskingSettings(), tokenizer, seed, None))
    return found


def open_texts(
    path: Path, tokenizer: Tokenizer, max_length: int, cache_folder: Path | None = None
) -> tuple[TokenTable, TokenStore]:
    """The rows of texts (what `token_store` reads, a folder with such a store, or a `binarized_text` .pickle of DistilBERT's
    scripts), and their store. Raises DataError."""
    if tokenizer.is_words:
        raise DataError(f"task.data: {path}: guessing words needs a tokenizer of word pieces, this model has one of whole words")
    _check_room(max_length)
    if is_store(path):
        store = open_store(path, tokenizer)
    elif path.suffix == ".pickle":
        store = store_of_pickle(path, tokenizer, cache_folder)
    elif _holds_records(path):
        raise DataError(f"task.data: {path}: holds records of tokens between BERT's special ones; expected texts")
    else:
        store = token_store(path, tokenizer, cache_folder)
    return _checked(path, store_rows(store, tokenizer, max_length)), store


def _holds_records(path: Path) -> bool:
    return not is_store(path) and path.suffix != ".pickle" and holds_tokens(path)


def _counts(
    data: Path, masking: MaskingSettings, table: TokenTable, store: TokenStore | None, tokenizer: Tokenizer
) -> np.ndarray:
    """How often each token is in the data: (vocabulary,) int64."""
    if masking.counts is None:
        return count_tokens(table, tokenizer.vocab_size) if store is None else store.counts
    if store is None:
        raise DataError(f"task.masking.counts: {masking.counts}: is for texts, but {data} holds records, which are counted")
    return check_counts(masking.counts, store, tokenizer)


def count_tokens(table: TokenTable, vocabulary: int) -> np.ndarray:
    """How often each token is in a table, special ones too: (vocabulary,) int64."""
    counts = np.zeros(vocabulary, np.int64)
    for first in range(0, len(table.ids), _AT_ONCE):
        counts += np.bincount(table.ids[first : first + _AT_ONCE], minlength=vocabulary)
    return counts


def read_store(path: Path, tokenizer: Tokenizer, max_length: int) -> TokenTable:
    """The rows of a folder with a token store, nothing of them masked. Raises DataError."""
    if tokenizer.is_words:
        raise DataError(f"task.data: {path}: a token store needs a tokenizer of word pieces, this model has one of whole words")
    _check_room(max_length)
    return _checked(path, store_rows(open_store(path, tokenizer), tokenizer, max_length))


def _checked(path: Path, table: TokenTable) -> TokenTable:
    if not len(table.lengths):
        raise DataError(f"task.data: {path}: no text has {SHORTEST - 2} tokens or more")
    return table


def _check_room(max_length: int) -> None:
    if max_length < SHORTEST:
        raise DataError(f"max_length {max_length} leaves no room for the text, expected {SHORTEST} or more")


def store_rows(store: TokenStore, tokenizer: Tokenizer, max_length: int) -> TokenTable:
    """The texts of a store as rows of at most `max_length` tokens, [CLS] and [SEP] among them; the end of a text that would be
    shorter than `SHORTEST` is left out, as in `read_corpus`. DistilBERT's scripts also leave out texts of 11 tokens or fewer
    and those that are half [UNK]; this does not. The ids stay where they are.
    """
    starts, sizes = [], []
    for first in range(0, len(store), _AT_ONCE):
        offsets = np.asarray(store.offsets[first : first + _AT_ONCE + 1])
        lengths, kept = cut_lengths(np.diff(offsets), max_length)
        starts.append((offsets[0] + np.cumsum(lengths) - lengths)[kept])
        sizes.append((lengths[kept] + 2).astype(np.int32))
    offsets = np.concatenate([*starts, store.offsets[-1:]])
    return TokenTable(store.ids, offsets, np.concatenate(sizes), tokenizer.pad_id, ends=tokenizer.ends)
