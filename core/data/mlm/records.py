"""Masked language model examples as bytes: tf.train.Example records with the features of Google's create_pretraining_data.py.

Of L = max_seq_length and P = max_predictions_per_seq numbers each: input_ids [L], input_mask [L], segment_ids [L],
masked_lm_positions [P], masked_lm_ids [P], masked_lm_weights [P] (floats), next_sentence_labels [1]. Written for whole arrays at
once, since `core.data.tfrecord.make_example` takes a number at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...wire import delimited

_FLOAT_LIST, _INT64_LIST = 2, 3


@dataclass(frozen=True)
class Examples:
    """Rows of examples. All but the padding of `input_ids` (examples, L) is described by `lengths` (examples,), tokens, and
    `first_lengths`, those of the first segment; of `positions` and `labels` (examples, P) the first `masked` are used.
    `random_next` (examples,) is the label of the next sentence, 1 for a random one."""

    input_ids: np.ndarray
    lengths: np.ndarray
    first_lengths: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    masked: np.ndarray
    random_next: np.ndarray

    @classmethod
    def from_rows(cls, rows: Sequence[tuple], length: int, predictions: int, pad_id: int) -> Examples:
        """Of rows (ids, length of the first segment, masked positions, their labels, label of the next sentence)."""
        input_ids = np.full((len(rows), length), pad_id, np.int32)
        positions, labels = np.zeros((2, len(rows), predictions), np.int32)
        for place, (ids, _, where, originals, _) in enumerate(rows):
            input_ids[place, : len(ids)] = ids
            positions[place, : len(where)] = where
            labels[place, : len(where)] = originals
        described = [(len(ids), first, len(where), following) for ids, first, where, _, following in rows]
        lengths, firsts, masked, following = np.array(described, np.int64).reshape(-1, 4).T
        return cls(input_ids, lengths, firsts, positions, labels, masked, following)

    def encode(self) -> list[bytes]:
        """The records, in order."""
        length, predictions = self.input_ids.shape[1], self.positions.shape[1]
        columns = [_varint_rows(values) for values in (self.input_ids, self.positions, self.labels)]
        places = [[0] * 3, *zip(*(np.cumsum(sizes).tolist() for _, sizes in columns))]
        described = zip(*(each.tolist() for each in (self.lengths, self.first_lengths, self.masked, self.random_next)))
        ids, positions, labels = (data for data, _ in columns)
        records = []
        for start, end, (tokens, first, masked, following) in zip(places, places[1:], described):
            content = b"".join(
                (
                    _feature("input_ids", ids[start[0] : end[0]]),
                    _constant("input_mask", 0, tokens, length),
                    _constant("segment_ids", first, tokens, length),
                    _feature("masked_lm_positions", positions[start[1] : end[1]]),
                    _feature("masked_lm_ids", labels[start[2] : end[2]]),
                    _weights(masked, predictions),
                    _constant("next_sentence_labels", 0, following, 1),
                )
            )
            records.append(_head(1, len(content)) + content)
        return records


def _varint_rows(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Numbers (rows, n) of at least 0 as varints, and the bytes of each row (rows,)."""
    width = max(1, -(-int(values.max(initial=0)).bit_length() // 7))
    shifted = values[..., None].astype(np.uint32) >> (7 * np.arange(width, dtype=np.uint32))
    used = shifted > 0
    used[..., 0] = True
    more = np.zeros_like(used)
    more[..., :-1] = used[..., 1:]
    data = (shifted & 0x7F | more * np.uint32(0x80)).astype(np.uint8)
    return data[used].tobytes(), used.sum((1, 2))


@functools.lru_cache(maxsize=4096)
def _head(field: int, size: int) -> bytes:
    """What stands before `size` bytes of a field."""
    return delimited(field, bytes(size))[:-size]


@functools.lru_cache(maxsize=4096)
def _feature_head(name: str, size: int) -> bytes:
    """What stands before `size` bytes of the numbers of an integer feature: the map's entry, its key, the lists."""
    return delimited(1, delimited(1, name.encode()) + delimited(2, delimited(_INT64_LIST, delimited(1, bytes(size)))))[:-size]


def _feature(name: str, packed: bytes) -> bytes:
    return _feature_head(name, len(packed)) + packed


@functools.lru_cache(maxsize=1 << 14)
def _constant(name: str, first: int, last: int, size: int) -> bytes:
    """A feature of `size` numbers, 1 from place `first` to `last` and 0 elsewhere."""
    return _feature(name, bytes(first) + b"\x01" * (last - first) + bytes(size - last))


@functools.lru_cache(maxsize=4096)
def _weights(count: int, size: int) -> bytes:
    values = (np.arange(size) < count).astype("<f4").tobytes()
    return delimited(1, delimited(1, b"masked_lm_weights") + delimited(2, delimited(_FLOAT_LIST, delimited(1, values))))
