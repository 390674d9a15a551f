"""What TFRecord files for pre-training mean: texts, or rows of tokens as Google's `create_pretraining_data.py` writes them.

Of a record that has `input_ids`, these features are read:
  input_ids     the tokens, `[CLS] a [SEP] b [SEP]`, padded
  input_mask    1 at tokens, 0 at padding
  segment_ids   optional: 0 at the first text, 1 at the second
  masked_lm_positions, masked_lm_ids, masked_lm_weights   optional: the original tokens of the places where input_ids has
                [MASK] or another token. `token_row` puts them back, so that teacher and student see the real text;
                `masked_row` keeps them apart. next_sentence_labels are ignored.
Any other record has a `text` or a `sentence`, in UTF-8.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...shown import plain
from ..token_cache import Rows
from .tfrecord import Feature, parse_example, read_records, record_starts

_MASKED = ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
_TEXTS = ("text", "sentence")
_WANTED = ("input_ids", "input_mask", "segment_ids", *_MASKED, *_TEXTS)
_AT_ONCE = 4096  # records
_TEXT_BYTES = 1 << 21


def read_rows(
    path: Path, vocabulary: int, max_length: int, start: int = 0, stop: int | None = None
) -> Iterator[Rows | list[str]]:
    """What the records of a file hold, in its order: some rows of tokens, or some texts. `start` and `stop` are bytes at which
    records begin. Raises DataError that names the file and the record, counted from 1 at the beginning of the file."""
    rows: list[tuple[np.ndarray, int]] = []
    texts: list[str] = []
    size = 0
    before = sum(1 for _ in itertools.takewhile(lambda place: place < start, record_starts(path))) if start else 0
    for number, (offset, data) in enumerate(read_records(path, start, stop), before + 1):
        place = f"{path}: record {number}"
        features = example(f"{place} at byte {offset}", data)
        if "input_ids" in features:
            if texts:
                yield texts
                texts, size = [], 0
            rows.append(token_row(place, features, vocabulary, max_length))
        else:
            if rows:
                yield _gathered(rows)
                rows = []
            found = _texts(place, features)
            texts += found
            size += sum(map(len, found))
        if len(rows) >= _AT_ONCE:
            yield _gathered(rows)
            rows = []
        if size >= _TEXT_BYTES or len(texts) >= _AT_ONCE:
            yield texts
            texts, size = [], 0
    if rows:
        yield _gathered(rows)
    if texts:
        yield texts


def example(place: str, data: bytes) -> dict[str, Feature | None]:
    """The features of a record that are read here; of others the name alone. Raises DataError, which begins with `place`."""
    try:
        return parse_example(data, _WANTED)
    except ValueError as error:
        raise DataError(f"{place}: is no tf.train.Example: {error}") from None


def _gathered(rows: list[tuple[np.ndarray, int]]) -> Rows:
    lengths, firsts = (np.array(numbers, np.int64) for numbers in ([len(ids) for ids, _ in rows], [first for _, first in rows]))
    return np.concatenate([ids for ids, _ in rows]), lengths, firsts


def token_row(place: str, features: dict[str, Feature | None], vocabulary: int, max_length: int) -> tuple[np.ndarray, int]:
    """The tokens of a record and how many of them are the first text's. Raises DataError, which begins with `place`."""
    ids = _unmasked(place, features, _tokens(place, features, max_length))
    _check_tokens(place, ids, vocabulary)
    return ids, _first_length(place, features, len(ids))


def masked_row(
    place: str, features: dict[str, Feature | None], vocabulary: int, max_length: int
) -> tuple[np.ndarray, int, np.ndarray, np.ndarray]:
    """The masked tokens of a record, how many of them are the first text's, and the positions and original tokens of the
    masked ones. Raises DataError, which begins with `place`, also for a record that does not tell them."""
    ids = _tokens(place, features, max_length)
    _check_tokens(place, ids, vocabulary)
    if "masked_lm_positions" not in features:
        raise DataError(f"{place}: has no masked_lm_positions, which tell the masked tokens; task.masking draws them anew")
    positions, labels = (integer_feature(place, features, name) for name in _MASKED[:2])
    if len(positions) != len(labels):
        raise DataError(f"{place}: masked_lm_positions has {len(positions)} numbers, masked_lm_ids {len(labels)}")
    used = positions > 0  # without weights, as in `_unmasked`
    if "masked_lm_weights" in features:
        weights = features["masked_lm_weights"]
        if not isinstance(weights, np.ndarray) or len(weights) != len(positions) or not np.isin(weights, (0, 1)).all():
            raise DataError(f"{place}: masked_lm_weights is not a 0 or 1 for each of the {len(positions)} masked_lm_positions")
        used = weights == 1
    positions, labels = positions[used], labels[used]
    outside = positions[(positions < 0) | (positions >= len(ids))]
    if len(outside):
        raise DataError(f"{place}: masked_lm_positions has {outside[0]}, but there are {len(ids)} tokens")
    if len(np.unique(positions)) < len(positions):
        raise DataError(f"{place}: masked_lm_positions has a position twice")
    _check_tokens(place, labels, vocabulary, "masked_lm_ids ")
    return ids, _first_length(place, features, len(ids)), positions, labels


def _tokens(place: str, features: dict[str, Feature | None], max_length: int) -> np.ndarray:
    """input_ids without the padding."""
    ids, mask = integer_feature(place, features, "input_ids"), integer_feature(place, features, "input_mask")
    if len(mask) != len(ids):
        raise DataError(f"{place}: input_mask has {len(mask)} numbers, input_ids {len(ids)}")
    length = _prefix(place, "input_mask", mask == 1, mask == 0)
    if not length:
        raise DataError(f"{place}: input_mask has no token")
    if length > max_length:
        raise DataError(f"{place}: has {length} tokens, but task.max_length is {max_length}; set it to {length} or more")
    return ids[:length]


def _check_tokens(place: str, ids: np.ndarray, vocabulary: int, what: str = "") -> None:
    wrong = ids[(ids < 0) | (ids >= vocabulary)]
    if len(wrong):
        raise DataError(f"{place}: {what}has the token {wrong[0]}, but the tokenizer's are 0 to {vocabulary - 1}")


def _first_length(place: str, features: dict[str, Feature | None], length: int) -> int:
    if "segment_ids" not in features:
        return length
    segments = integer_feature(place, features, "segment_ids")
    if len(segments) < length:
        raise DataError(f"{place}: segment_ids has {len(segments)} numbers, but there are {length} tokens")
    return _prefix(place, "segment_ids", segments[:length] == 0, segments[:length] == 1)


def _prefix(place: str, name: str, before: np.ndarray, after: np.ndarray) -> int:
    """How many numbers come before the others."""
    count = int(before.sum())
    if not (before[:count].all() and after[count:].all()):
        order = "ones and then zeros" if name == "input_mask" else "zeros and then ones"
        raise DataError(f"{place}: {name} is not {order}")
    return count


def _unmasked(place: str, features: dict[str, Feature | None], ids: np.ndarray) -> np.ndarray:
    if "masked_lm_positions" not in features:
        return ids
    positions, originals = (integer_feature(place, features, name) for name in _MASKED[:2])
    if len(positions) != len(originals):
        raise DataError(f"{place}: masked_lm_positions has {len(positions)} numbers, masked_lm_ids {len(originals)}")
    used = positions > 0  # without weights: the padding is 0, where [CLS] is, which is never masked
    if isinstance(weights := features.get("masked_lm_weights"), np.ndarray) and len(weights) == len(positions):
        used = weights > 0
    positions, originals = positions[used], originals[used]
    if len(positions) and not (0 <= positions.min() and positions.max() < len(ids)):
        raise DataError(f"{place}: masked_lm_positions has {positions.max()}, but there are {len(ids)} tokens")
    ids = ids.copy()
    ids[positions] = originals
    return ids


def integer_feature(place: str, features: dict[str, Feature | None], name: str) -> np.ndarray:
    """The feature of that name, which must be a list of integers."""
    if name not in features:
        raise DataError(f"{place}: has no {name}; its features are {plain(', '.join(sorted(features)))}")
    values = features[name]
    if not isinstance(values, np.ndarray) or values.dtype != np.int64:
        raise DataError(f"{place}: {name} is not a list of integers")
    return values


def _texts(place: str, features: dict[str, Feature | None]) -> list[str]:
    name = next((name for name in _TEXTS if name in features), None)
    if name is None:
        there = plain(", ".join(sorted(features))) or "none"
        raise DataError(f"{place}: has neither input_ids nor text nor sentence; its features are {there}")
    values = features[name]
    if not isinstance(values, list):
        raise DataError(f"{place}: {name} is no text")
    try:
        return [value.decode("utf-8") for value in values]
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: {name} is not UTF-8 (byte 0x{error.object[error.start]:02x})") from None
