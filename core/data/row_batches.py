"""Rows of a token table as one padded batch: what a batch holds."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from .token_table import TokenTable

Batch = dict[str, np.ndarray]
"""input_ids, token_type_ids (batch, length) int32; attention_mask (batch, length) float32, 1 = token; labels (batch,)
int32 or float32, or (batch, classes) float32; example_mask (batch,) float32, 0 = a row that only fills the batch up, else what
the example counts, 1 unless the recipe says otherwise;
label_mask (batch,) float32, 1 = has a label; teacher_scores (batch,) float32, where the data has what a teacher scored;
where each token may have one, labels and label_mask are (batch, length), and where some words count without a label, or not 1,
word_mask (batch, length) float32 is what the word at each token counts, 0 where none is learned; where
the answer is a part of the text, labels are (batch, 2), the places of its first and last token. Of a table
that keeps pairs apart: second_ids and second_mask, like input_ids and attention_mask, in place of token_type_ids.

Of a masked batch, whose input_ids are the masked ones: masked_rows (P,) int32, row * length + position of each masked token in
the flattened (batch * length,) tokens; masked_labels (P,) int32, the original token there; masked_weights (P,) float32,
1 = a masked token. All three are 0 behind the last masked token; P depends on batch and length only."""

FILL = -1
"""The row of a batch that has no example: it only fills the batch up."""


class RowBatches:
    """Makes a batch of any rows of a table; the row `FILL` is one that only fills."""

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
        self._pad_id, self._targets, self._counted = tokens.pad_id, tokens.targets, tokens.counted
        self._taught = None if tokens.taught is None else np.append(np.asarray(tokens.taught, np.float32), np.float32(0))

    def padded_to(self, buckets: Sequence[int]) -> RowBatches:
        """The same rows padded to other lengths."""
        found = copy.copy(self)
        found._use(buckets)
        return found

    def _use(self, buckets: Sequence[int]) -> None:
        self.buckets, longest = np.array(sorted(set(buckets))), self.lengths.max()
        if not len(buckets) or longest > self.buckets[-1]:
            raise DataError(f"a row has {longest} tokens, which no length bucket of {list(buckets)} holds")

    def batch(self, rows: np.ndarray, least: int = 0) -> Batch:
        """The batch of these `rows` (batch,) of the table, padded as one with a row of `least` tokens."""
        starts, lengths, first_lengths = self._starts[rows], self._row_lengths[rows], self._first_lengths[rows]
        common = {"labels": self._labels[rows], "example_mask": self._weights[rows], "label_mask": self._label_mask[rows]}
        if self._taught is not None:
            common["teacher_scores"] = self._taught[rows]
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
        found = {"labels": np.where(known, targets, 0), "label_mask": known.astype(np.float32)}
        if self._counted is not None:
            found["word_mask"] = np.zeros(is_token.shape, np.float32)
            found["word_mask"][is_token] = self._counted[places[is_token]]
            found["word_mask"] *= (lengths > 1)[:, None]
        return found

    def _bucket(self, length: int) -> int:
        return self.buckets[np.searchsorted(self.buckets, length)]

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
