"""What is masked: words drawn at random until the budget is full, for many examples at a time.

As published (Devlin et al. 2019, section 3.1, and Google's create_pretraining_data.py): the words of an example come in random
order, each is taken unless it would go over the budget, min(P, max(1, round(tokens * masked_lm_prob))) pieces. Of the pieces
taken, each by itself, one in ten becomes a random one, one in ten stays, the others become [MASK]. Unlike there, a word that the
vocabulary does not know is never taken: to guess [UNK] teaches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .records import Examples
from .segments import Stretches
from .settings import Settings
from .vocabulary import Vocabulary

KEPT, RANDOM = 0.8, 0.9
"""A draw below the first masks a piece, below the second leaves it, else replaces it."""
_NO_BUDGET = 1 << 40  # pieces, more than any budget has


@dataclass(frozen=True)
class Budget:
    """How many pieces of an example may be masked."""

    most: int
    share: float

    def of(self, lengths: np.ndarray) -> np.ndarray:
        """For examples of `lengths` tokens, [CLS] and [SEP] among them (both round halves to even, as Python 3 does)."""
        return np.minimum(self.most, np.maximum(1, np.rint(lengths * self.share))).astype(np.int64)


class Masker:
    """Makes examples of a block's stretches."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings):
        self._vocabulary, self._settings = vocabulary, settings
        self._budget = Budget(settings.max_predictions_per_seq, settings.masked_lm_prob)
        self._random = vocabulary.random_pieces(settings.whole_words == "chinese")
        # A block has all its examples in memory at once.
        self._dtype = np.uint16 if max(len(vocabulary.tokens), settings.max_seq_length) <= 1 << 16 else np.int32

    def examples(self, ids: np.ndarray, begins: np.ndarray, found: Stretches, generator: np.random.Generator) -> Examples:
        """The examples of `found`, which has one at least; `ids` and `begins` (pieces,) are the block's pieces and where words
        begin. A stretch that begins within a word begins with a word of its own."""
        stretches = found.a[:, None] if found.b is None else np.stack([found.a, found.b], 1)  # (examples, 1 or 2, 2)
        count, segments = stretches.shape[:2]
        sizes = np.diff(stretches)[..., 0]
        lengths, firsts = sizes.sum(1) + 1 + segments, sizes[:, 0] + 2
        # Of each piece of the body: its example, its column, its place in the block.
        flat = sizes.ravel()
        within = np.arange(flat.sum()) - np.repeat(np.cumsum(flat) - flat, flat)
        sources = within + np.repeat(stretches[..., 0].ravel(), flat)
        shift = np.concatenate([np.ones((count, 1), np.int64), firsts[:, None]], 1)[:, :segments].ravel()
        columns, rows = within + np.repeat(shift, flat), np.repeat(np.arange(count), sizes.sum(1))
        input_ids = np.full((count, self._settings.max_seq_length), self._vocabulary.tokenizer.pad_id, self._dtype)
        every = np.arange(count)
        input_ids[every, 0] = self._vocabulary.cls_id
        input_ids[every, firsts - 1] = input_ids[every, lengths - 1] = self._vocabulary.sep_id
        body = ids[sources]
        input_ids[rows, columns] = body
        word = np.cumsum(begins[sources] | (within == 0)) - 1
        unknown = body == self._vocabulary.unknown_id
        taken = np.flatnonzero(choose_words(word, rows, self._budget.of(lengths), generator, unknown)[word])
        rows, columns, originals = rows[taken], columns[taken], body[taken]
        draw = generator.random(len(taken))
        others = self._random[generator.integers(len(self._random), size=len(taken))]
        kept = np.where(draw < RANDOM, originals, others)
        input_ids[rows, columns] = np.where(draw < KEPT, self._vocabulary.mask_id, kept)
        masked = np.bincount(rows, minlength=count)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(masked) - masked, masked)
        positions, labels = np.zeros((2, count, self._settings.max_predictions_per_seq), self._dtype)
        positions[rows, place], labels[rows, place] = columns, originals
        return Examples(input_ids, lengths, firsts, positions, labels, masked, found.random_next)


def choose_words(
    word: np.ndarray, rows: np.ndarray, budget: np.ndarray, generator: np.random.Generator, barred: np.ndarray
) -> np.ndarray:
    """Which words (words,) are masked, of pieces of the words `word` (pieces,) in the examples `rows` (pieces,), both rising, and
    with at most `budget` (examples,) pieces in each. Every example has a word; one with a `barred` piece (pieces,) is never
    taken.

    The random order is drawn as far as it is needed, a place for all examples at once (Fisher and Yates).
    """
    sizes = np.bincount(word)
    row_of = rows[np.concatenate([[0], np.cumsum(sizes)[:-1]])]
    counts = np.bincount(row_of, minlength=len(budget))
    firsts = np.cumsum(counts) - counts
    sizes[word[barred]] = _NO_BUDGET
    order = np.arange(len(sizes))
    chosen = np.zeros(len(sizes), bool)
    left = budget.copy()
    active, step = np.arange(len(budget)), 0
    while len(active):
        here = firsts[active] + step
        there = here + (generator.random(len(active)) * (counts[active] - step)).astype(np.int64)
        drawn = order[there]
        order[there] = order[here]
        size = sizes[drawn]
        fits = size <= left[active]
        chosen[drawn[fits]] = True
        left[active[fits]] -= size[fits]
        step += 1
        active = active[(left[active] > 0) & (counts[active] > step)]
    return chosen
