"""Raw text to token rows, for distillation without a task: one row a piece of text, `[CLS] ... [SEP]`.

Text files have one text a line. TFRecord files have texts, or rows that are tokens already (`core.data.records.record_rows`). The
rows are cached like a task's tokens; a corpus may be larger than the memory, of which a few megabytes are used.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tokenizers

from ..errors import DataError
from .folders import folder_contents
from .records.record_rows import read_rows
from .records.tfrecord import record_starts
from .text_files import not_utf8
from .token_cache import Rows, cached_table, update_with_file
from .token_table import TokenTable
from .tokenize import Tokenizer

SHORTEST = 4
"""Tokens, [CLS] and [SEP] among them, below which the rest of a line is dropped."""

_FORMAT = 1  # of the rows that a cache entry holds: one more whenever the same files give others
_BATCH_BYTES = 1 << 21  # of text, encoded at once
_LONGEST_LINE = 1 << 16  # bytes; longer ones are cut at a space
_MARK = b"\xef\xbb\xbf"
_RECORDS = re.compile(r"\.tfrec(ord)?s?\b", re.IGNORECASE)  # also train.tfrecord-00000-of-00010
_NOT_TRAINING = re.compile(r"(dev|test)(?![a-z])", re.IGNORECASE)


def read_corpus(path: Path, tokenizer: Tokenizer, max_length: int, cache_folder: Path | None = None) -> TokenTable:
    """The rows of a text or TFRecord file, or of all that a folder holds but those whose names begin with `dev` or `test`.
    Lines longer than `max_length` tokens are cut into several rows. Raises DataError for what is missing, empty, not UTF-8
    or damaged."""
    if tokenizer.is_words:
        raise DataError(f"task.data: {path}: raw text needs a tokenizer of word pieces, this model has one of whole words")
    if max_length < SHORTEST:
        raise DataError(f"max_length {max_length} leaves no room for the text, expected {SHORTEST} or more")
    files = corpus_files(path)

    def rows() -> Iterator[Rows]:
        found = False
        for file in files:
            for part in _file_rows(file, tokenizer, max_length):
                found = found or len(part[1]) > 0
                yield part
        if not found:
            raise DataError(f"task.data: {path}: holds no text")

    described = f"corpus {_FORMAT} {SHORTEST} {tokenizers.__version__} {tokenizer.fingerprint} {max_length}"
    return cached_table(files_digest(files, described), cache_folder, rows, tokenizer.pad_id)


def is_records(path: Path) -> bool:
    """Whether a file is taken for one of TFRecords, by its name."""
    return _RECORDS.search(path.name) is not None


def corpus_files(path: Path, option: str = "task.data") -> list[Path]:
    """The file, or the files of a folder that are for training, in order. Raises DataError where there is none, which begins
    with the `option` that named it."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{option}: {path}: no such file or folder")
    found = sorted(file for file in path.iterdir() if file.is_file() and (file.suffix == ".txt" or is_records(file)))
    files = [file for file in found if not _NOT_TRAINING.match(file.name)]
    if not files:
        what = "only files that are not for training" if found else "no .txt or .tfrecord file"
        raise DataError(f"{option}: {path}: holds {what}; {folder_contents(path)}")
    return files


def files_digest(files: list[Path], described: str) -> str:
    """SHA-256 of the contents of files and of what is made of them."""
    key = hashlib.sha256(described.encode())
    for file in files:
        content = hashlib.sha256(b"records" if is_records(file) else b"text")
        try:
            update_with_file(content, file)
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from None
        key.update(content.digest())
    return key.hexdigest()


def _file_rows(path: Path, tokenizer: Tokenizer, max_length: int) -> Iterator[Rows]:
    if is_records(path):
        for part in read_rows(path, tokenizer.vocab_size, max_length):
            yield text_rows(part, tokenizer, max_length) if isinstance(part, list) else part
    else:
        for lines in read_lines(path):
            yield text_rows(lines, tokenizer, max_length)


def read_texts(path: Path, vocabulary: int, start: int = 0, stop: int | None = None) -> Iterator[list[str]]:
    """The texts of a file of a corpus, some megabytes at a time; with `start` and `stop`, bytes of the file that `text_start`
    gave, those between them. Raises DataError where its records hold tokens."""
    if not is_records(path):
        yield from read_lines(path, start, stop)
        return
    for part in read_rows(path, vocabulary, sys.maxsize, start, stop):
        if not isinstance(part, list):
            raise DataError(f"{path}: has records of tokens, expected texts")
        yield part


def text_start(path: Path, position: int) -> int:
    """Where in a file of a corpus the first line or record begins that is not before the byte `position`; the size of the file
    where none is left. Raises DataError for records that are damaged."""
    if position <= 0:
        return 0
    if is_records(path):
        return next((start for start in record_starts(path) if start >= position), path.stat().st_size)
    with path.open("rb") as file:
        file.seek(position - 1)
        while (piece := file.readline(_LONGEST_LINE)) and not piece.endswith(b"\n"):
            pass
        return file.tell()


def text_rows(texts: list[str], tokenizer: Tokenizer, max_length: int) -> Rows:
    """Texts as rows of at most `max_length` tokens."""
    ids, lengths = tokenizer.encode_pieces(texts)
    sizes, kept = cut_lengths(lengths, max_length)
    ids, sizes = ids[np.repeat(kept, sizes)], sizes[kept] + 2
    ends = np.cumsum(sizes)
    tokens = np.empty(int(sizes.sum()), np.int32)
    is_text = np.ones(len(tokens), bool)
    is_text[ends - sizes] = is_text[ends - 1] = False
    tokens[ends - sizes], tokens[ends - 1] = tokenizer.ends
    tokens[is_text] = ids
    return tokens, sizes, sizes


def cut_lengths(lengths: np.ndarray, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The pieces in each row of texts of `lengths` (texts,), without [CLS] and [SEP], and which rows are long enough."""
    room = max_length - 2
    counts = -(-lengths // room)  # rows of each text
    first_rows = np.repeat(np.cumsum(counts) - counts, counts)
    place = np.arange(len(first_rows)) - first_rows  # of each row within its text
    sizes = np.minimum(room, np.repeat(lengths, counts) - place * room)
    return sizes, sizes + 2 >= SHORTEST


def read_lines(path: Path, start: int = 0, stop: int | None = None) -> Iterator[list[str]]:
    """The lines of a text file that hold anything, some megabytes at a time; a very long line becomes several. `start` and
    `stop` are bytes at which lines begin."""
    batch: list[str] = []
    size, number, left = 0, 1, sys.maxsize if stop is None else stop - start
    with path.open("rb", buffering=1 << 20) as file:
        if start or file.read(len(_MARK)) != _MARK:
            file.seek(start)
        else:
            left -= len(_MARK)
        rest = b""
        while left > 0 and (piece := rest + file.readline(_LONGEST_LINE - len(rest))):
            rest = b""
            if len(piece) >= _LONGEST_LINE and not piece.endswith(b"\n"):
                cut = _place_to_cut(piece)
                piece, rest = piece[:cut], piece[cut:]
            left -= len(piece)
            try:
                text = piece.decode("utf-8").strip()
            except UnicodeDecodeError as error:
                raise DataError(not_utf8(path, number + _lines_before(path, start), piece, error.start)) from None
            number += piece.endswith(b"\n")
            if text:
                batch.append(text)
                size += len(piece)
            if size >= _BATCH_BYTES:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _lines_before(path: Path, position: int) -> int:
    """How many lines end before a byte of a file."""
    count = 0
    with path.open("rb") as file:
        while position > 0 and (block := file.read(min(_BATCH_BYTES, position))):
            count, position = count + block.count(b"\n"), position - len(block)
    return count


def _place_to_cut(piece: bytes) -> int:
    """Behind the last space, else between two characters."""
    space = piece.rfind(b" ") + 1
    if space:
        return space
    place = len(piece) - 1
    while place > len(piece) - 4 and piece[place] & 0xC0 == 0x80:  # not the first byte of a character
        place -= 1
    return place
