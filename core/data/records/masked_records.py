"""TFRecord files of masked language model examples, as Google's `create_pretraining_data.py` and `crossdistil data mlm` write
them: the same masks in every epoch. `record_rows` has their features.

On disk, memory-mapped, an .npy file each (`token_cache` keeps and checks them): the arrays of a `TokenTable`, whose tokens are
the masked ones, and
  masked_offsets     (rows + 1,) int64: the masked tokens of row i are those from masked_offsets[i] to masked_offsets[i + 1]
  masked_positions   (masked tokens,) int32: where in its row each is
  masked_labels      (masked tokens,) int32: the token that was there
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ValidationError

from ...errors import DataError
from ..corpus import corpus_files, files_digest, is_records, read_corpus
from ..masking import masked_arrays, padded_size
from ..row_batches import Batch
from ..shares import Part, missing_shares, notes_in
from ..token_cache import TABLE_ARRAYS, Arrays, cached_arrays
from ..token_table import TokenTable
from ..tokenize import Tokenizer
from .record_note import VocabularyNote
from .record_rows import example, masked_row
from .tfrecord import read_records

_FORMAT = 1  # one more whenever the same files give other arrays
_AT_ONCE = 4096  # records
_DTYPES = {
    **TABLE_ARRAYS,
    "masked_offsets": np.dtype("<i8"),
    "masked_positions": np.dtype("<i4"),
    "masked_labels": np.dtype("<i4"),
}
_NOTES = re.compile(r"mlm(-\d+-of-\d+)?\.json|examples-\d+\.json")


class _Vocabulary(BaseModel):
    sha256: str
    tokens: int


class _Settings(BaseModel):
    max_seq_length: int


class _Note(BaseModel):
    """What is read here of the notes that `crossdistil data mlm` writes; that of one file does not name it."""

    vocabulary: _Vocabulary
    settings: _Settings
    shards: list[str] | None = None


@dataclass(frozen=True)
class MaskedRecords:
    """Rows whose masks are in the records."""

    table: TokenTable
    """Of the masked tokens."""
    masked_offsets: np.ndarray
    masked_positions: np.ndarray
    masked_labels: np.ndarray
    most: int
    """The largest number of masked tokens of a row."""

    def size(self, rows: int) -> int:
        """P, the masked tokens that a batch of `rows` has room for."""
        return padded_size(rows * self.most)

    def masks(self, batch: Batch, rows: np.ndarray, epoch: int | None) -> Batch:
        """The masked batch of the table's `rows` (batch,): its tokens are masked already, in every `epoch` alike."""
        starts, ends = self.masked_offsets[rows], self.masked_offsets[rows + 1]
        counts = np.where(rows < 0, 0, ends - starts)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found = np.repeat(starts, counts) + place
        first = np.repeat(np.arange(len(rows)) * batch["input_ids"].shape[1], counts)
        return batch | masked_arrays(first + self.masked_positions[found], self.masked_labels[found], self.size(len(rows)))


def read_masked_records(path: Path, tokenizer: Tokenizer, max_length: int, cache_folder: Path | None = None) -> MaskedRecords:
    """The records of a TFRecord file, or of all that a folder holds but those whose names begin with `dev` or `test`. Raises
    DataError for what is missing, damaged, longer than `max_length` or of another vocabulary, and for a record that does not
    tell its masked tokens."""
    files = _checked_files(path, tokenizer, max_length)
    for file in files:
        if not is_records(file):
            raise DataError(f"task.data: {file}: is no TFRecord file, as the others of its folder are")
    key = files_digest(files, f"masked records {_FORMAT} {tokenizer.vocab_size} {max_length}")

    def parts() -> Iterator[Arrays]:
        yield {"offsets": np.zeros(1, np.int64), "masked_offsets": np.zeros(1, np.int64)}
        tokens = masked = 0
        rows = (row for file in files for row in _file_rows(file, tokenizer.vocab_size, max_length))
        while some := list(itertools.islice(rows, _AT_ONCE)):
            ids, firsts, positions, labels = zip(*some)
            part = {
                "ids": np.concatenate(ids),
                "offsets": tokens + np.cumsum([len(each) for each in ids]),
                "first_lengths": np.array(firsts),
                "masked_offsets": masked + np.cumsum([len(each) for each in positions]),
                "masked_positions": np.concatenate(positions),
                "masked_labels": np.concatenate(labels),
            }
            yield part
            tokens, masked = part["offsets"][-1], part["masked_offsets"][-1]
        if not masked:
            raise DataError(f"task.data: {path}: holds no record with a masked token")

    # Plain arrays: indexing a np.memmap costs several times as much.
    arrays = {name: np.asarray(found) for name, found in cached_arrays("masked", key, cache_folder, _DTYPES, parts).items()}
    table = TokenTable(**{name: arrays.pop(name) for name in TABLE_ARRAYS}, pad_id=tokenizer.pad_id)
    most = int(np.diff(arrays["masked_offsets"]).max())
    return MaskedRecords(table, **arrays, most=most)


def read_original(path: Path, tokenizer: Tokenizer, max_length: int, cache_folder: Path | None = None) -> TokenTable:
    """The rows of such records with the original tokens put back; records without masks are rows too."""
    _checked_files(path, tokenizer, max_length)
    return read_corpus(path, tokenizer, max_length, cache_folder)


def holds_tokens(path: Path) -> bool:
    """Whether a file, or one that a folder has for training, has records of tokens: its first record has."""
    for file in filter(is_records, corpus_files(path)):
        try:
            _, data = next(read_records(file), (0, b""))
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        if "input_ids" in example(f"{file}: record 1", data):
            return True
    return False


def _file_rows(path: Path, vocabulary: int, max_length: int) -> Iterator[tuple[np.ndarray, int, np.ndarray, np.ndarray]]:
    for number, (_, data) in enumerate(read_records(path), 1):
        place = f"{path}: record {number}"
        yield masked_row(place, example(place, data), vocabulary, max_length)


def _checked_files(path: Path, tokenizer: Tokenizer, max_length: int) -> list[Path]:
    """The files of `corpus_files`. Raises DataError where a note of `crossdistil data mlm` says that they do not fit."""
    if tokenizer.is_words:
        raise DataError(f"task.data: {path}: its records are of word pieces, but this tokenizer has whole words")
    files = corpus_files(path)
    if path.is_dir() and (parts := notes_in(path, "mlm")) and Part() not in parts and (missing := missing_shares(list(parts))):
        alone = f"to train on these alone, remove {', '.join(sorted(note.name for note in parts.values()))}"
        raise DataError(f"task.data: {path}: {missing}; crossdistil data merge puts all together; {alone}")
    names, sha256 = {file.name for file in files}, VocabularyNote.of(tokenizer.library).sha256
    for place in sorted(files[0].parent.glob("*.json")):
        if not _NOTES.fullmatch(place.name):
            continue
        note = _read_note(place)
        shards = {place.with_suffix(".tfrecord").name} if note.shards is None else set(note.shards)
        if path.is_dir() and (missing := sorted(shards - names)):
            raise DataError(f"task.data: {path}: {place.name} names {missing[0]}, which is missing")
        if not shards & names:
            continue
        if note.vocabulary.sha256 != sha256:
            raise DataError(
                f"task.data: {path}: {place.name} says that its records are of a vocabulary of {note.vocabulary.tokens:,} "
                f"tokens with the SHA-256 {note.vocabulary.sha256}, the tokenizer's has {tokenizer.vocab_size:,} and {sha256}"
            )
        if note.settings.max_seq_length > max_length:
            raise DataError(
                f"task.data: {path}: {place.name} says that its records have up to {note.settings.max_seq_length} tokens, "
                f"but task.max_length is {max_length}"
            )
    return files


def _read_note(path: Path) -> _Note:
    try:
        return _Note.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join([*map(str, first["loc"]), first["msg"]])
        raise DataError(f"{path}: is no note of crossdistil data mlm, or damaged: {problem}") from None
