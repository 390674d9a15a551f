"""A token store in a folder of the user's: what it holds, whose tokens they are, and how a recipe opens it.

A folder, and not an entry of the cache under the key of the text: that key is a digest of all text, so that the machine that
trains would need the text and read it at each start, and `crossdistil cache --clear` would remove what many machines worked for.
A recipe names the folder in the place of the text (`task.data`, also `files.dev`), and learns from it as from the text, bit for
bit. Texts are whole in it: they are cut to `task.max_length` when it is read, so that one store serves any length.

`tokens.json` is the note, `tokens-ids.npy`, `tokens-offsets.npy`, `tokens-word_bits.npy` and `tokens-counts.npy` the arrays of
`token_store`; a share's names begin with `tokens-2-of-8`. The note says
  tokenizer    its vocabulary, how it cleans texts, and a digest of all that decides which pieces a text gives
  input        number, bytes and a digest (names, sizes, beginnings and ends) of the text files
  begins, ends    which bytes of all files, one after the other, these are the texts of: those that begin there
  counts, arrays  texts and tokens; bytes and checksum of each array
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tokenizers

from ..checksums import file_checksum
from ..errors import DataError
from ..json_files import read_object
from .corpus import corpus_files
from .records.record_note import VocabularyNote
from .shares import Part, Share, check_file, missing_shares, notes_in, sealed
from .token_store import STORE_FORMAT, TokenStore, store_dtypes
from .tokenize import Tokenizer

KIND = "tokens"
OWN = ("begins", "ends", "counts", "arrays", "note_crc32c")
"""Entries of a share's note that are its own."""

_PIECES = ("normalizer", "pre_tokenizer", "model", "added_tokens")  # of a tokenizer's definition: what decides its pieces
_SAMPLE = 1 << 16  # bytes at the beginning and at the end of a text file


def is_store(path: Path) -> bool:
    """Whether a recipe's data is a folder with a token store, or with shares of one. Raises DataError where it cannot be read."""
    try:
        return path.is_dir() and bool(notes_in(path, KIND))
    except OSError as error:
        raise DataError(f"task.data: {path}: cannot be read: {error.strerror}") from None


def open_store(path: Path, tokenizer: Tokenizer) -> TokenStore:
    """The store of a folder, memory-mapped, after its arrays were compared with their checksums. Raises DataError for one that is
    damaged, not merged, or of a tokenizer that would give other pieces."""
    parts = notes_in(path, KIND)
    if Part() not in parts:
        missing = missing_shares(list(parts))
        what = "holds shares of a token store" if missing is None else missing
        raise DataError(f"task.data: {path}: {what}; crossdistil data merge puts all together")
    share = Share(KIND, Part(), parts[Part()], read_object(parts[Part()], DataError))
    note = checked_note(share)
    if (text := _training_text(path)) is not None:
        raise DataError(f"task.data: {path}: holds a token store and {text.name}; move one of both to a folder of its own")
    problems = _fit_problems(note["tokenizer"], tokenizer)
    if problems:
        raise DataError(f"task.data: {path}: its tokens are of another tokenizer than this model's: {'; '.join(problems)}")
    made, here = note["libraries"].get("tokenizers"), tokenizers.__version__
    if made != here:
        logging.getLogger(__name__).warning("%s: was made with tokenizers %s, here is %s", path, made, here)
    for name, noted in note["arrays"].items():
        check_file(array_path(path, Part(), name), noted, share)
    return TokenStore(**mapped_arrays(path, Part()))


def described(files: Sequence[Path], tokenizer: Tokenizer) -> dict[str, Any]:
    """What all shares of a store say alike."""
    sizes = [file.stat().st_size for file in files]
    listed = json.dumps([[file.name, size, _sample(file, size)] for file, size in zip(files, sizes)])
    return {
        "format": STORE_FORMAT,
        "tokenizer": {**VocabularyNote.of(tokenizer.library).model_dump(), "pieces_sha256": _pieces_digest(tokenizer)},
        "libraries": {"tokenizers": importlib.metadata.version("tokenizers")},
        "input": {"files": len(files), "bytes": sum(sizes), "sha256": hashlib.sha256(listed.encode()).hexdigest()},
    }


def summed_up(about: dict, begins: int, ends: int, arrays: dict[str, int], folder: Path, part: Part) -> dict[str, Any]:
    """The note of a share whose arrays of so many numbers are written."""
    checksums = {name: file_checksum(array_path(folder, part, name)) for name in arrays}
    counts = {"texts": arrays["offsets"] - 1, "tokens": arrays["ids"]}
    return sealed({**about, "begins": begins, "ends": ends, "counts": counts, "arrays": checksums})


def checked_note(share: Share) -> dict[str, Any]:
    """The note of a share, as it was written."""
    note = share.note
    if note.get("note_crc32c") is None or note != sealed(note):
        raise DataError(f"{share.where}: {share.path.name} is damaged: it has another checksum than it says")
    if note.get("format") != STORE_FORMAT:
        raise DataError(f"{share.where}: {share.path.name} is of format {note.get('format')!r:.20}, expected {STORE_FORMAT}")
    if not {"tokenizer", "libraries", "input", *OWN} <= set(note) or set(note["arrays"]) != set(store_dtypes(0)):
        raise DataError(f"{share.where}: {share.path.name} is no note of crossdistil data tokens")
    return note


def array_path(folder: Path, part: Part, name: str) -> Path:
    """The file of an array of a share."""
    return folder / f"{part.stem(KIND)}-{name}.npy"


def mapped_arrays(folder: Path, part: Part) -> dict[str, np.ndarray]:
    """The arrays of a share, memory-mapped."""
    return {name: np.load(array_path(folder, part, name), mmap_mode="r") for name in store_dtypes(0)}


def _sample(path: Path, size: int) -> str:
    """A checksum of the beginning and the end of a file: more would have each machine read all text."""
    with path.open("rb") as file:
        value = google_crc32c.value(file.read(_SAMPLE))
        file.seek(max(0, size - _SAMPLE))
        return f"{google_crc32c.extend(value, file.read(_SAMPLE)):08x}"


def _pieces_digest(tokenizer: Tokenizer) -> str:
    definition = json.loads(tokenizer.library.to_str())
    kept = json.dumps([definition[name] for name in _PIECES], sort_keys=True)
    return hashlib.sha256(kept.encode()).hexdigest()


def _fit_problems(noted: dict[str, Any], tokenizer: Tokenizer) -> list[str]:
    """Why a tokenizer would give other pieces than a store has, in words."""
    made = VocabularyNote(**{name: value for name, value in noted.items() if name != "pieces_sha256"})
    problems = made.fit_problems(tokenizer.library)
    if not problems and noted["pieces_sha256"] != _pieces_digest(tokenizer):
        problems = [f"the vocabulary is the same, but not how texts are split into it ({', '.join(_PIECES)} of tokenizer.json)"]
    return problems


def _training_text(folder: Path) -> Path | None:
    """A text in the folder that would be trained on if no store was there."""
    try:
        return corpus_files(folder)[0]
    except DataError:
        return None
