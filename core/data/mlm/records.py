"""Masked language model examples as bytes: tf.train.Example records with the features of Google's create_pretraining_data.py.

Of L = max_seq_length and P = max_predictions_per_seq numbers each: input_ids [L], input_mask [L], segment_ids [L],
masked_lm_positions [P], masked_lm_ids [P], masked_lm_weights [P] (floats), next_sentence_labels [1]. Written for whole arrays at
once, since `core.data.records.tfrecord.make_example` takes a number at a time: every record is a row as wide as the longest one
could be, and the bytes that are not used are left out of all rows at once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import google_crc32c
import numpy as np

from ...wire import delimited, mask_crc
from ..records.tfrecord import record_header

_FLOAT_LIST, _INT64_LIST = 2, 3
_AT_ONCE = 1024  # rows: what they take fits in a processor's cache
_CRC = 4  # bytes


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

    @classmethod
    def joined(cls, parts: list[Examples]) -> Examples:
        """All rows of `parts`, one at least, which are taken out of the list so that they need no memory of their own."""
        columns = [[getattr(part, field.name) for part in parts] for field in fields(cls)]
        parts.clear()
        return cls(*(np.concatenate(columns.pop(0)) for _ in fields(cls)))

    def __len__(self) -> int:
        return len(self.lengths)

    def _at(self, rows: np.ndarray) -> Examples:
        return Examples(*(getattr(self, field.name)[rows] for field in fields(self)))

    def encode(self, order: Sequence[int] | None = None) -> Iterator[tuple[bytes, list[int]]]:
        """The records as they lie in a file, in that order of rows, some at a time: their bytes, and the end of each in them."""
        order = np.arange(len(self)) if order is None else np.asarray(order)
        for start in range(0, len(order), _AT_ONCE):
            yield self._at(order[start : start + _AT_ONCE])._encode()

    def _encode(self) -> tuple[bytes, list[int]]:
        length, predictions = self.input_ids.shape[1], self.positions.shape[1]
        places = np.arange(length)
        content = places < self.lengths[:, None]
        weights = (np.arange(predictions) < self.masked[:, None]).astype("<f4")
        parts = [
            *_integers("input_ids", self.input_ids),
            *_bytes("input_mask", content),
            *_bytes("segment_ids", content & (places >= self.first_lengths[:, None])),
            *_integers("masked_lm_positions", self.positions),
            *_integers("masked_lm_ids", self.labels),
            (_head("masked_lm_weights", _FLOAT_LIST, 4 * predictions), None),
            (weights.view(np.uint8), None),
            *_bytes("next_sentence_labels", self.random_next[:, None]),
        ]
        sizes = sum(_widths(part, used) for part, used in parts)
        messages, inverse = np.unique(np.broadcast_to(sizes, len(self)), return_inverse=True)
        starts = [delimited(1, bytes(size))[:-size] for size in messages.tolist()]
        starts = [record_header(len(start) + size) + start for start, size in zip(starts, messages.tolist())]
        parts = [_chosen(starts, inverse), *parts, (bytes(_CRC), None)]
        data = _rows(parts, len(self))
        ends = np.cumsum(sum(_widths(part, used) for part, used in parts))
        return _with_checksums(data, ends), ends.tolist()


Part = tuple[np.ndarray | bytes, np.ndarray | None]
"""Bytes of each row (rows, width), and which of them are used (rows, width), None for all; or the same bytes for every row."""


def _widths(part: np.ndarray | bytes, used: np.ndarray | None) -> np.ndarray | int:
    """The used bytes of each row."""
    if used is not None:
        return used.sum(1)
    return len(part) if isinstance(part, bytes) else part.shape[1]


def _rows(parts: Sequence[Part], count: int) -> np.ndarray:
    """The used bytes of all parts, row after row."""
    widths = [len(part) if isinstance(part, bytes) else part.shape[1] for part, _ in parts]
    data, kept = np.empty((count, sum(widths)), np.uint8), np.ones((count, sum(widths)), bool)
    start = 0
    for (part, used), width in zip(parts, widths):
        data[:, start : start + width] = np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part
        if used is not None:
            kept[:, start : start + width] = used
        start += width
    return data[kept]


def _with_checksums(data: np.ndarray, ends: np.ndarray) -> bytes:
    """Records one after the other, whose last bytes become the checksums of what they hold."""
    header, content = len(record_header(0)), data.tobytes()
    firsts, lasts = np.concatenate([[0], ends[:-1]]) + header, ends - _CRC
    value = google_crc32c.value
    sums = [mask_crc(value(content[first:last])) for first, last in zip(firsts.tolist(), lasts.tolist())]
    data[lasts[:, None] + np.arange(_CRC)] = np.array(sums, "<u4").view(np.uint8).reshape(-1, _CRC)
    return data.tobytes()


def _chosen(texts: Sequence[bytes], rows: np.ndarray) -> Part:
    """For each row one of the texts."""
    width = max(map(len, texts))
    data = np.frombuffer(b"".join(text.ljust(width, b"\0") for text in texts), np.uint8).reshape(-1, width)
    used = np.arange(width) < np.array([[len(text)] for text in texts])
    return data[rows], used[rows]


def _integers(name: str, values: np.ndarray) -> tuple[Part, Part]:
    """The feature of numbers (rows, n) of at least 0, as varints."""
    width = max(1, -(-int(values.max(initial=0)).bit_length() // 7))
    data, used = np.empty((*values.shape, width), np.uint8), np.ones((*values.shape, width), bool)
    rest = values
    for place in range(width - 1):
        more = used[..., place + 1]
        following = rest >> 7
        np.greater(following, 0, out=more)
        data[..., place] = rest & 0x7F | (more.view(np.uint8) << 7)
        rest = following
    data[..., -1] = rest
    data, used = data.reshape(len(values), -1), used.reshape(len(values), -1)
    sizes, inverse = np.unique(used.sum(1), return_inverse=True)
    return _chosen([_head(name, _INT64_LIST, size) for size in sizes.tolist()], inverse), (data, used)


def _bytes(name: str, values: np.ndarray) -> tuple[Part, Part]:
    """The feature of numbers (rows, n), each 0 or 1."""
    return (_head(name, _INT64_LIST, values.shape[1]), None), (values.astype(np.uint8), None)


@functools.lru_cache(maxsize=4096)
def _head(name: str, kind: int, size: int) -> bytes:
    """What stands before `size` bytes of a feature's numbers: the map's entry, its key, the lists."""
    return delimited(1, delimited(1, name.encode()) + delimited(2, delimited(kind, delimited(1, bytes(size)))))[:-size]
