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
from .token_table import TokenTable

Batch = dict[str, np.ndarray]
"""input_ids, token_type_ids (batch, length) int32; attention_mask (batch, length) float32, 1 = token; labels (batch,)
int32 or float32, or (batch, classes) float32; example_mask (batch,) float32, 0 = a row that only fills the batch up, else what
the example counts, 1 unless the recipe says otherwise;
label_mask (batch,) float32, 1 = has a label; where each token may have one, labels and label_mask are (batch, length), and where
the answer is a part of the text, labels are (batch, 2), the places of its first and last token. Of a table
that keeps pairs apart: second_ids and second_mask, like input_ids and attention_mask, in place of token_type_ids.

Of a masked batch, whose input_ids are the masked ones: masked_rows (P,) int32, row * length + position of each masked token in
the flattened (batch * length,) tokens; masked_labels (P,) int32, the original token there; masked_weights (P,) float32,
1 = a masked token. All three are 0 behind the last masked token; P depends on batch and length only."""

MoreArrays = Callable[[np.ndarray, int], Batch]
"""`f(rows, length)`: arrays of the rows (batch,) of a table, padded to `length`; the row -1 only fills."""

Masks = Callable[[Batch, np.ndarray, int | None], Batch]
"""`f(batch, rows, epoch)`: the masked batch of the rows (batch,) of a table. Epoch None is an evaluation: always the same."""

DEFAULT_BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_POOL = 50  # batches sorted by length together: most of the saving of a full sort, and still a random order
_FILL = -1


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
        self._members = tokens.members
        self._rows = RowBatches(tokens, self._of_rows(labels), buckets, self._of_rows(label_mask), self._of_rows(weights))
        self._lengths = self._rows.lengths if self._members == 1 else tokens.example_lengths
        self._more: MoreArrays | None = None
        self._masks: Masks | None = None

    def _of_rows(self, of_examples: np.ndarray | None) -> np.ndarray | None:
        """What each example has, for each of its rows."""
        return of_examples if of_examples is None or self._members == 1 else np.concatenate([of_examples] * self._members)

    def _rows_of(self, examples: np.ndarray) -> np.ndarray:
        """The rows (members * batch,) of examples (batch,): all first ones, then all second ones."""
        if self._members == 1:
            return examples
        steps = range(self._members)
        return np.concatenate([np.where(examples == _FILL, _FILL, examples + step * len(self._lengths)) for step in steps])

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
        least = self._lengths[step[step != _FILL]].max(initial=0) if self._one_length else 0
        return [self._batch(rows, epoch, int(least), self._share.holds(part)) for part, rows in enumerate(self._cut(step))]

    def _cut(self, step: np.ndarray) -> np.ndarray:
        """The rows (parts, micro-batch) of a step's parts, of equal size: neighbours in length where the step is complete; else
        every `parts`-th row, so that no part is left without rows while another has many."""
        real = step[step != _FILL]
        size = -(-self._batch_size // self.parts)
        if len(real) == size * self.parts:
            return real.reshape(self.parts, size)
        if len(real) == self._batch_size:  # a number of parts that the processes asked for, and that does not divide it
            cut = np.array_split(real, self.parts)
        else:
            cut = [real[part :: self.parts] for part in range(self.parts)]
        rows = np.full((self.parts, size), _FILL, np.int64)
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
        generator = np.random.default_rng([*self._seed, number])
        shuffled = generator.permutation(len(self._lengths))
        pool = np.arange(len(shuffled)) // (_POOL * self._batch_size)
        # The incomplete step is a pool of its own: sorted with others, it would get the longest examples each time.
        pool[len(pool) - len(pool) % self._batch_size :] += 1
        rows = np.full(self.steps_per_epoch * self._batch_size, _FILL, dtype=np.int64)
        rows[: len(shuffled)] = shuffled[np.lexsort((self._lengths[shuffled], pool))]
        steps = generator.permutation(rows.reshape(self.steps_per_epoch, -1))
        return (self._micro_batches(step, number) for step in steps[start_step:])


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

    return ((chunk[chunk != _FILL], batch(chunk)) for chunk in chunks)


def evaluation_rows(tokens: TokenTable, batch_size: int) -> np.ndarray:
    """The rows of each of the `evaluation_batches`: (batches, batch size) int64, of which -1 only fills the last."""
    if batch_size < 1:
        raise DataError(f"batch_size {batch_size}: expected 1 or more")
    order = np.argsort(-np.asarray(tokens.lengths), kind="stable")
    fill = np.full(-len(order) % batch_size, _FILL, dtype=np.int64)
    return np.concatenate([order, fill]).reshape(-1, batch_size)


class RowBatches:
    """Makes a batch of any rows of a table; the row `_FILL` is one that only fills."""

    def __init__(
        self,
        tokens: TokenTable,
        labels: np.ndarray | None,
        buckets: Sequence[int],
        label_mask: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ):
        self.lengths = lengths = np.asarray(tokens.lengths)
        """Places that each row needs: (rows,) integers."""
        if not len(lengths):
            raise DataError("no examples to make batches of")
        self._use(buckets)
        if labels is not None and len(labels) != len(lengths):
            raise ValueError(f"{len(lengths)} rows and {len(labels)} labels")
        # Plain arrays: indexing a np.memmap costs several times as much. The appended row, whose index is -1, is the
        # padding row: the table's first token, such as [CLS], so that attention over it is not a softmax over nothing.
        self._ids = np.asarray(tokens.ids)
        fill = min(1, len(self._ids))  # a table of words may have none at all
        self._starts = np.append(np.asarray(tokens.offsets[:-1]), 0)
        self._row_lengths = np.append(np.diff(tokens.offsets) if tokens.ends is None else lengths, fill)
        if not tokens.apart:
            self.lengths = self._row_lengths[:-1]
        self._first_lengths = np.append(np.asarray(tokens.first_lengths), fill)
        self._apart, self._ends, self._types = tokens.apart, tokens.ends, tokens.types
        labels = tokens.spans if labels is None else labels
        labels = np.zeros(len(lengths), dtype=np.int32) if labels is None else np.asarray(labels)
        fill_label = np.zeros((1, *labels.shape[1:]), labels.dtype)
        self._labels = np.concatenate([labels, fill_label])
        self._label_mask, self._weights = (
            np.append(np.ones(len(lengths), np.float32) if given is None else np.asarray(given, np.float32), np.float32(0))
            for given in (label_mask, weights)
        )
        self._pad_id, self._targets = tokens.pad_id, tokens.targets

    def padded_to(self, buckets: Sequence[int]) -> RowBatches:
        """The same rows padded to other lengths."""
        found = copy.copy(self)
        found._use(buckets)
        return found

    def _use(self, buckets: Sequence[int]) -> None:
        self._buckets, longest = np.array(sorted(set(buckets))), self.lengths.max()
        if not len(buckets) or longest > self._buckets[-1]:
            raise DataError(f"a row has {longest} tokens, which no length bucket of {list(buckets)} holds")

    def batch(self, rows: np.ndarray, least: int = 0) -> Batch:
        """The batch of these `rows` (batch,) of the table, padded as one with a row of `least` tokens."""
        starts, lengths, first_lengths = self._starts[rows], self._row_lengths[rows], self._first_lengths[rows]
        common = {"labels": self._labels[rows], "example_mask": self._weights[rows], "label_mask": self._label_mask[rows]}
        if self._apart:
            second_lengths = lengths - first_lengths
            length = self._bucket(max(least, first_lengths.max(), second_lengths.max()))
            input_ids, is_first = self._padded(starts, first_lengths, length)
            second_ids, is_second = self._padded(starts + first_lengths, second_lengths, length)
            return {
                "input_ids": input_ids,
                "attention_mask": is_first.astype(np.float32),
                "second_ids": second_ids,
                "second_mask": is_second.astype(np.float32),
                **common,
            }
        place = self._padded if self._ends is None else self._between_ends
        input_ids, is_token = place(starts, lengths, self._bucket(max(least, lengths.max())))
        is_second = is_token & (np.arange(is_token.shape[1]) >= first_lengths[:, None])
        if self._targets is not None:
            common |= self._labelled_tokens(starts, lengths, is_token)
        return {
            "input_ids": input_ids,
            "token_type_ids": (is_second & self._types).astype(np.int32),
            "attention_mask": is_token.astype(np.float32),
            **common,
        }

    def _labelled_tokens(self, starts: np.ndarray, lengths: np.ndarray, is_token: np.ndarray) -> Batch:
        """`labels` and `label_mask` (batch, length) of rows whose tokens have labels; the padding row has none."""
        targets, places = np.full(is_token.shape, -1, np.int32), starts[:, None] + np.arange(is_token.shape[1])
        targets[is_token] = self._targets[places[is_token]]
        known = (targets >= 0) & (lengths > 1)[:, None]
        return {"labels": np.where(known, targets, 0), "label_mask": known.astype(np.float32)}

    def _bucket(self, length: int) -> int:
        return self._buckets[np.searchsorted(self._buckets, length)]

    def _padded(self, starts: np.ndarray, lengths: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Token ids (batch, length) of sequences, padded, and which of them are tokens."""
        positions = np.arange(length)  # (length,)
        is_token = positions < lengths[:, None]  # (batch, length)
        ids = np.full(is_token.shape, self._pad_id, dtype=np.int32)
        ids[is_token] = self._ids[(starts[:, None] + positions)[is_token]]
        return ids, is_token

    def _between_ends(self, starts: np.ndarray, lengths: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The same of texts that lack [CLS] and [SEP], which `lengths` counts; a padding row is [CLS] alone."""
        ids, _ = self._padded(starts - 1, lengths - 1, length)
        ids[:, 0] = self._ends[0]
        real = np.flatnonzero(lengths > 1)
        ids[real, lengths[real] - 1] = self._ends[1]
        return ids, np.arange(length) < lengths[:, None]
