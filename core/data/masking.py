"""Masks that are drawn anew in every epoch, as masked language models are trained on: which tokens, and what stands there.

Published: Devlin et al. 2019, section 3.1 (15% of each text; of these 80% [MASK], 10% another token, 10% as they are), Liu et
al. 2019, section 4.1 (anew in every epoch), and DistilBERT's code (transformers' examples/research_projects/distillation,
distiller.py, prepare_batch_mlm: rare tokens more often, and 15% of a whole batch).

Each draw is a hash of the seed, the epoch, the row of the table and the position (the generator SplitMix64 of Steele, Lea and
Flood 2014, started anew for each row), so that a text's masks do not depend on which texts are in its batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import DataError
from ..plain_names import expanded
from .row_batches import Batch
from .token_table import TokenTable

if TYPE_CHECKING:  # a recipe's sections have the settings, and a tokenizer's module has sections
    from .tokenize import Tokenizer

_STEP = np.uint64(0x9E3779B97F4A7C15)  # of SplitMix64: 2^64 / golden ratio
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MULTIPLE = 8  # of the masked tokens of a batch


class MaskingSettings(BaseModel):
    """How tokens are masked in training. `mask` and `random` are shares of the chosen tokens; the rest stays as it is. The
    chance of a token to be chosen is proportional to max(count, 1)^-smoothing, its count that in the whole corpus (DistilBERT:
    0.7)."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    probability: float = Field(0.15, gt=0, lt=1)
    """Share of a text's tokens that are chosen."""
    mask: float = Field(0.8, ge=0, le=1)
    """Share of the chosen tokens that become [MASK]."""
    random: float = Field(0.1, ge=0, le=1)
    """Share of the chosen tokens that become another word."""
    smoothing: float = Field(0.0, ge=0, le=10)
    """The exponent by which rare words are chosen more often; 0: all alike."""
    whole_words: bool = False
    """Whether all pieces of a word are chosen together. WordPiece tells them by ##; of other tokenizers they are what the text
    was cut into before its pieces were found, and in scripts without spaces each piece is a word."""
    budget: Literal["text", "batch"] = "text"
    """`text`: round(probability * tokens) of each text, [CLS] and [SEP] counted, and at least 1, as BERT. `batch`:
    ceil(probability * tokens) of all texts of a batch together, of which some may get none, as DistilBERT's code."""
    counts: Path | None = None
    """A `token_counts` file of DistilBERT's scripts: the texts must have these counts."""

    @field_validator("counts")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return None if value is None else expanded(value).absolute()

    @model_validator(mode="after")
    def _consistent(self) -> MaskingSettings:
        if self.mask + self.random > 1 + 1e-9:
            raise ValueError(f"mask {self.mask:g} and random {self.random:g} are more than 1 together")
        if self.counts is not None and not self.smoothing:
            raise ValueError("counts are only used with a smoothing above 0")
        return self


class DynamicMasks:
    """Masks batches of one table. With the budget `text` the masks of a row depend on seed, epoch and row alone, not on its
    batch; with `batch` also on the other rows of its micro-batch.

    Weighted sampling without replacement: the smallest E / weight, E exponential (Efraimidis and Spirakis 2006). The weight of
    a whole word is the mean of its pieces'; words come in that order, each taken unless it would go over the budget. A random
    token is uniform over the vocabulary without the special tokens; Google's and DistilBERT's code draw from all of it.
    """

    def __init__(
        self,
        settings: MaskingSettings,
        tokenizer: Tokenizer,
        seed: int | Sequence[int],
        counts: np.ndarray | None = None,
        table: TokenTable | None = None,
    ):
        """`counts` (vocabulary,) is how often each token is in the corpus, needed for a smoothing. The `table` whose rows are
        masked is needed for whole words of a tokenizer that is not WordPiece. Raises DataError for a tokenizer without [MASK]."""
        self._settings = settings
        self._seed = [seed] if isinstance(seed, int) else list(seed)
        if tokenizer.mask_id is None:
            raise DataError("masked language modelling: the tokenizer's vocabulary has no [MASK]")
        self._mask_id = tokenizer.mask_id
        self._weights = np.ones(tokenizer.vocab_size)
        if settings.smoothing:
            if counts is None:
                raise ValueError("a smoothing needs counts")
            self._weights = np.maximum(np.asarray(counts, np.float64), 1) ** -settings.smoothing
        self._weights[sorted(tokenizer.special_ids)] = 0
        self._others = np.flatnonzero(self._weights > 0).astype(np.int32)
        if not len(self._others):
            raise DataError("masked language modelling: the tokenizer's vocabulary has special tokens alone")
        self._continues, self._table = np.zeros(tokenizer.vocab_size, bool), None
        if settings.whole_words and not tokenizer.is_word_piece:
            if table is None or table.word_bits is None:
                raise ValueError("whole words of such a tokenizer need a table that tells where they begin")
            self._table = table
        elif settings.whole_words:
            vocabulary = tokenizer.library.get_vocab(with_added_tokens=True)
            prefix = tokenizer.library.model.continuing_subword_prefix
            self._continues[[index for token, index in vocabulary.items() if token.startswith(prefix)]] = True

    def size(self, rows: int, length: int) -> int:
        """P, the masked tokens that a batch of `rows` of `length` tokens has room for."""
        if self._settings.budget == "text":
            return padded_size(rows * int(self._text_budgets(np.array(length))))
        return padded_size(self._batch_budget(rows * length))

    def _text_budgets(self, lengths: np.ndarray) -> np.ndarray:
        # Halves are rounded to even, as Python does in Google's code.
        return np.maximum(1, np.rint(lengths * self._settings.probability)).astype(np.int64)

    def _batch_budget(self, tokens: int) -> int:
        return math.ceil(self._settings.probability * tokens)

    def __call__(self, batch: Batch, rows: np.ndarray, epoch: int | None) -> Batch:
        """The masked batch of the table's `rows` (batch,). Epoch None is that of an evaluation."""
        ids = batch["input_ids"]
        shape, lengths = ids.shape, batch["attention_mask"].sum(1).astype(np.int64)
        key = np.random.SeedSequence([*self._seed, 0 if epoch is None else epoch + 1]).generate_state(1, np.uint64)
        streams = _mixed(key + rows.astype(np.uint64) * _STEP)  # (batch,)
        draws = _mixed(streams[:, None] + np.arange(1, shape[1] + 1, dtype=np.uint64) * _STEP)  # (batch, length)
        sizes, weights, word = self._words(ids, rows)
        with np.errstate(divide="ignore"):
            order = np.where(sizes > 0, -np.log(_uniform(draws)) / weights, np.inf)
        if self._settings.budget == "text":
            budget = self._text_budgets(lengths)
        else:
            total = int(lengths[batch["example_mask"] > 0].sum())
            order, sizes, budget = order.reshape(1, -1), sizes.reshape(1, -1), np.array([self._batch_budget(total)])
        chosen = _chosen(order, sizes, budget).ravel()
        places = np.flatnonzero(chosen if word is None else chosen[word])
        masked = ids.copy().reshape(-1)
        labels = masked[places]
        masked[places] = self._replaced(labels, draws.ravel()[places])
        return batch | {"input_ids": masked.reshape(shape)} | masked_arrays(places, labels, self.size(*shape))

    def _words(self, ids: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Of each token that begins a word that may be chosen the pieces of the word and its weight, else 0, (batch, length);
        and the flattened place where the word of each token begins (None where every token is a word)."""
        weights = self._weights[ids]
        if not self._settings.whole_words:
            return (weights > 0).astype(np.int64), weights, None
        begins = np.ones(ids.shape, bool)
        is_piece = weights > 0
        continues = self._continues[ids] if self._table is None else _continues(self._table, rows, ids.shape[1])
        begins[:, 1:] = ~(continues[:, 1:] & is_piece[:, 1:] & is_piece[:, :-1])
        first = np.flatnonzero(begins)
        sizes, sums = np.zeros(ids.size, np.int64), np.zeros(ids.size)
        sums[first] = np.add.reduceat(weights.ravel(), first)
        sizes[first] = np.diff(np.append(first, ids.size)) * (sums[first] > 0)
        word = np.repeat(first, np.diff(np.append(first, ids.size)))
        return sizes.reshape(ids.shape), (sums / np.maximum(sizes, 1)).reshape(ids.shape), word

    def _replaced(self, originals: np.ndarray, draws: np.ndarray) -> np.ndarray:
        """What stands in the place of chosen tokens (tokens,)."""
        settings = self._settings
        draws = _mixed(draws + _STEP)
        share = _uniform(draws)
        bits = _mixed(draws + _STEP) >> np.uint64(32)
        others = self._others[bits * np.uint64(len(self._others)) >> np.uint64(32)]
        kept = np.where(share < settings.mask + settings.random, others, originals)
        return np.where(share < settings.mask, np.int32(self._mask_id), kept)


def _continues(table: TokenTable, rows: np.ndarray, length: int) -> np.ndarray:
    """Which tokens of rows of a table of single texts, with what stands around them, go on with the word before: (rows, length)
    bool. The row -1 only fills."""
    places = np.asarray(table.offsets)[rows][:, None] + np.arange(length) - 1  # the first token stands before the text
    is_text = (np.arange(length) > 0) & (np.arange(length) < np.asarray(table.first_lengths)[rows][:, None] - 1)
    is_text &= rows[:, None] >= 0
    places = np.where(is_text, places, 0)
    begins = table.word_bits[places // 8] >> (7 - places % 8) & 1
    return is_text & (begins == 0)


def padded_size(most: int) -> int:
    """The masked tokens that a batch has room for, where it has `most` of them."""
    return max(1, -(-most // _MULTIPLE)) * _MULTIPLE


def masked_arrays(places: np.ndarray, labels: np.ndarray, size: int) -> Batch:
    """What tells the masked tokens of a batch: arrays of `size`, of the flattened `places` (tokens,) and the tokens there."""
    made = {"masked_rows": np.zeros(size, np.int32), "masked_labels": np.zeros(size, np.int32)}
    made["masked_weights"] = np.zeros(size, np.float32)
    for name, values in (("masked_rows", places), ("masked_labels", labels), ("masked_weights", 1)):
        made[name][: len(places)] = values
    return made


def _chosen(order: np.ndarray, sizes: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Which words (batch, n) are taken: smallest `order` first, each unless the pieces, `sizes` (batch, n), would be more than
    `budget` (batch,). Words of order infinity are none."""
    ranks = np.argsort(order, axis=1)
    left = budget.copy()
    sizes = np.take_along_axis(sizes, ranks, 1)
    taken = np.zeros(sizes.shape, bool)
    is_open = sizes > 0
    while True:
        # All up to the first that does not fit; that one never will, and one behind it may.
        is_open &= sizes <= left[:, None]
        pieces = np.cumsum(sizes * is_open, axis=1)
        now = is_open & (pieces <= left[:, None])
        if not now.any():
            break
        taken |= now
        is_open &= ~now
        left -= (sizes * now).sum(1)
    chosen = np.zeros(sizes.shape, bool)
    np.put_along_axis(chosen, ranks, taken, 1)
    return chosen


def _mixed(bits: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64, of any number of uint64."""
    bits = (bits ^ (bits >> np.uint64(30))) * _FACTORS[0]
    bits = (bits ^ (bits >> np.uint64(27))) * _FACTORS[1]
    return bits ^ (bits >> np.uint64(31))


def _uniform(bits: np.ndarray) -> np.ndarray:
    """Numbers between 0 and 1, never either, of uint64."""
    return ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
