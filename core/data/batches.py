"""Token tables to batches, in an order that depends on the seed and the epoch only.

A batch is padded to the smallest length bucket that holds its rows and always has the same number of rows, so that a graph mode,
which has few buckets, compiles once per bucket. Rows of similar length are batched together, so that little of it is padding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..errors import DataError
from ..world import ALL, Share
from .few_lengths import few_lengths
from .row_batches import FILL, Batch, RowBatches
from .token_table import TokenTable

MoreArrays = Callable[[np.ndarray, int], Batch]
"""`f(rows, length)`: arrays of the rows (batch,) of a table, padded to `length`; the row -1 only fills."""

Masks = Callable[[Batch, np.ndarray, int | None], Batch]
"""`f(batch, rows, epoch)`: the masked batch of the rows (batch,) of a table. Epoch None is an evaluation: always the same."""

DEFAULT_BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_POOL = 50  # batches sorted by length together: most of the saving of a full sort, and still a random order


def length_buckets(max_length: int, length_step: int | None, chosen: Sequence[int] | None = None) -> tuple[int, ...]:
    """The lengths that batches are padded to: those below `max_length`, and `max_length`.

    They are the multiples of `length_step`, or few where that is None: where every new shape costs a compilation. `chosen` are
    a recipe's own.
    """
    if chosen is None:
        chosen = DEFAULT_BUCKETS if length_step is None else range(length_step, max_length, length_step)
    return (*sorted({length for length in chosen if length < max_length}), max_length)


def real_tokens(batch: Batch) -> int:
    """Tokens of real examples, padding tokens and rows not counted."""
    masks = [batch[name] for name in ("attention_mask", "second_mask") if name in batch]
    return int((batch["example_mask"] > 0) @ sum(mask.sum(axis=1) for mask in masks))


class TrainBatches:
    """The batches of an epoch: shuffled, nothing dropped.

    The `batch_size` examples of an optimizer step are drawn first and then cut into `accumulation` micro-batches, so
    that accumulation changes the memory needed and not the examples of a step.
    """

    def __init__(
        self,
        tokens: TokenTable,
        labels: np.ndarray | None,
        batch_size: int,
        accumulation: int,
        buckets: Sequence[int],
        seed: int | Sequence[int],
        label_mask: np.ndarray | None = None,
        one_length: bool = False,
        share: Share = ALL,
        weights: np.ndarray | None = None,
    ):
        """With `one_length` all micro-batches of a step are padded to the length of the longest: cutting changes no padding.
        With a `share`, a step is cut into so many parts that each process has as many, and only its own are complete."""
        self._share = share
        self._set(batch_size, accumulation, seed, one_length)
        self._members, self._examples = tokens.members, len(tokens.lengths) // tokens.members
        self._rows = RowBatches(tokens, self._of_rows(labels), buckets, self._of_rows(label_mask), self._of_rows(weights))
        self._lengths = self._rows.lengths if self._members == 1 else tokens.example_lengths
        self._more: MoreArrays | None = None
        self._masks: Masks | None = None

    def _of_rows(self, of_examples: np.ndarray | None) -> np.ndarray | None:
        """What each example has, for each of its rows; what has been given for each row is left as it is."""
        if of_examples is None or self._members == 1 or len(of_examples) == self._members * self._examples:
            return of_examples
        return np.concatenate([of_examples] * self._members)

    def _rows_of(self, examples: np.ndarray) -> np.ndarray:
        """The rows (members * batch,) of examples (batch,): all first ones, then all second ones."""
        if self._members == 1:
            return examples
        steps = range(self._members)
        return np.concatenate([np.where(examples == FILL, FILL, examples + step * len(self._lengths)) for step in steps])

    def _set(self, batch_size: int, accumulation: int, seed: int | Sequence[int], one_length: bool) -> None:
        if batch_size < 1 or accumulation < 1 or batch_size % accumulation:
            raise DataError(f"batch_size {batch_size} cannot be cut into {accumulation} equal micro-batches")
        self.parts = -(-accumulation // self._share.size) * self._share.size
        if batch_size < self.parts:
            raise DataError(f"batch_size {batch_size}: has less than one example for each of {self.parts} micro-batches")
        self._batch_size, self._accumulation, self._one_length = batch_size, accumulation, one_length
        self._seed = [seed] if isinstance(seed, int) else list(seed)

    def otherwise(
        self, batch_size: int, accumulation: int, buckets: Sequence[int], seed: int | Sequence[int], one_length: bool = False
    ) -> TrainBatches:
        """Other batches of the same rows, of which there is then one copy in memory, with the same masks."""
        found = copy.copy(self)
        found._set(batch_size, accumulation, seed, one_length)
        found._rows, found._more = self._rows.padded_to(buckets), None
        return found

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps that take each row once."""
        return -(-len(self._lengths) // self._batch_size)

    def with_arrays(self, more: MoreArrays) -> TrainBatches:
        """The same batches, each with what `more(rows, length)` gives."""
        found = copy.copy(self)
        found._more = more
        return found

    def attach_masks(self, masks: Masks) -> None:
        """Mask every batch, after all else is in it."""
        self._masks = masks

    def of_one_process(self) -> TrainBatches:
        """The same steps, cut as one process alone cuts them."""
        found = copy.copy(self)
        found._share, found.parts = ALL, self._accumulation
        return found

    def _micro_batches(self, step: np.ndarray, epoch: int) -> list[Batch]:
        least = self._lengths[step[step != FILL]].max(initial=0) if self._one_length else 0
        return [self._batch(rows, epoch, int(least), self._share.holds(part)) for part, rows in enumerate(self._cut(step))]

    def _cut(self, step: np.ndarray) -> np.ndarray:
        """The rows (parts, micro-batch) of a step's parts, of equal size: neighbours in length where the step is complete; else
        every `parts`-th row, so that no part is left without rows while another has many."""
        real = step[step != FILL]
        size = -(-self._batch_size // self.parts)
        if len(real) == size * self.parts:
            return real.reshape(self.parts, size)
        if len(real) == self._batch_size:  # a number of parts that the processes asked for, and that does not divide it
            cut = np.array_split(real, self.parts)
        else:
            cut = [real[part :: self.parts] for part in range(self.parts)]
        rows = np.full((self.parts, size), FILL, np.int64)
        for part, found in zip(rows, cut):
            part[: len(found)] = found
        return rows

    def _batch(self, rows: np.ndarray, epoch: int, least: int, own: bool) -> Batch:
        rows = self._rows_of(rows)
        batch = self._rows.batch(rows, least)
        if own and self._more is not None:
            batch |= self._more(rows, batch["input_ids"].shape[1])
        return batch if self._masks is None else self._masks(batch, rows, epoch)

    def epoch(self, number: int, start_step: int = 0) -> Iterator[list[Batch]]:
        """The micro-batches of each optimizer step of epoch `number`, from `start_step` on (to resume): those of all processes,
        of which only this one's have what was attached."""
        if not 0 <= start_step <= self.steps_per_epoch:
            raise ValueError(f"start_step {start_step} is not in 0 to {self.steps_per_epoch}")
        return (self._micro_batches(step, number) for step in self._order(number)[start_step:])

    def with_few_lengths(self, steps: int) -> TrainBatches:
        """The same, padded to lengths that suit a stage of so many steps where each shape is compiled: no more than now."""
        longest = np.append(self._lengths, 0)[self._order(0)].max(axis=1)  # (steps of an epoch,); the row that fills is -1
        found = copy.copy(self)
        found._rows = self._rows.padded_to(few_lengths(longest, steps, self._batch_size, self._rows.buckets))
        return found

    @property
    def padded_lengths(self) -> tuple[int, ...]:
        """To which lengths batches are padded, in rising order."""
        return tuple(int(length) for length in self._rows.buckets)

    def _order(self, number: int) -> np.ndarray:
        """(steps, batch size): the rows of each optimizer step of epoch `number`."""
        generator = np.random.default_rng([*self._seed, number])
        shuffled = generator.permutation(len(self._lengths))
        pool = np.arange(len(shuffled)) // (_POOL * self._batch_size)
        # The incomplete step is a pool of its own: sorted with others, it would get the longest examples each time.
        pool[len(pool) - len(pool) % self._batch_size :] += 1
        rows = np.full(self.steps_per_epoch * self._batch_size, FILL, dtype=np.int64)
        rows[: len(shuffled)] = shuffled[np.lexsort((self._lengths[shuffled], pool))]
        return generator.permutation(rows.reshape(self.steps_per_epoch, -1))


def evaluation_batches(
    tokens: TokenTable,
    labels: np.ndarray | None,
    batch_size: int,
    buckets: Sequence[int],
    masks: Masks | None = None,
    share: Share = ALL,
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Every example once, longest first (memory runs out at once or never), with the same `masks` each time; of the batches
    only those of `share`.

    Yields the indices (real rows,) of the batch's examples, which are its first rows, and the batch.
    """
    chunks, rows = share.of(evaluation_rows(tokens, batch_size)), RowBatches(tokens, labels, buckets)

    def batch(chunk: np.ndarray) -> Batch:
        made = rows.batch(chunk)
        return made if masks is None else masks(made, chunk, None)

    return ((chunk[chunk != FILL], batch(chunk)) for chunk in chunks)


def evaluation_rows(tokens: TokenTable, batch_size: int) -> np.ndarray:
    """The rows of each of the `evaluation_batches`: (batches, batch size) int64, of which -1 only fills the last."""
    if batch_size < 1:
        raise DataError(f"batch_size {batch_size}: expected 1 or more")
    order = np.argsort(-np.asarray(tokens.lengths), kind="stable")
    fill = np.full(-len(order) % batch_size, FILL, dtype=np.int64)
    return np.concatenate([order, fill]).reshape(-1, batch_size)
