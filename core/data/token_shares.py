"""A token store made by many machines, each a stretch of the text, and put together to the bytes that one machine gives.

A share is the texts that begin between two bytes of all files, one after the other, so that a machine reads no more than its own.
The next share begins where it ends, by the lines or records themselves: a merge finds files that differ at such a place.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import threads
from ..errors import DataError
from ..files import clear_disk_errors, replace_file, replace_folder, write_text
from ..json_files import read_object
from ..workplaces import is_workplace, remove_dead
from .corpus import corpus_files, read_texts, text_start
from .mlm.piece_worker import encode_batches
from .shares import LOCK, Part, Share, check_file, difference, json_text, only_writer, told_damaged
from .token_cache import Arrays, GrowingArray
from .token_folder import KIND, OWN, array_path, checked_note, described, mapped_arrays, summed_up
from .token_store import PackedBits, store_dtypes, store_parts
from .tokenize import Tokenizer

_AT_ONCE = 1 << 22  # numbers that are copied
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class _Stretch:
    """Texts of a file that begin between two bytes."""

    path: Path
    start: int
    stop: int


def write_store(data: Path, tokenizer: Tokenizer, out: Path, part: Part, resume: bool, report: Report) -> dict[str, Any]:
    """Write this machine's share of the store of `data`, a text or TFRecord file or a folder of them, into the folder `out`, and
    return its note. With `resume`, a share that is there already is kept. `report` is told how many bytes of text are done, of
    how many. Raises DataError for text that is missing or damaged, and for what is in the way."""
    files = corpus_files(data, "--data")
    about = described(files, tokenizer)
    with only_writer(out, part), clear_disk_errors(out):
        ready = _finished(out, part, about, resume)
        if ready is not None:
            return ready
        total = about["input"]["bytes"]
        begins, ends = (_boundary(files, total * number // part.count) for number in (part.index, part.index + 1))

        def texts() -> Iterator[list[str]]:
            done = 0
            for piece in _stretches(files, begins, ends):
                for some in read_texts(piece.path, tokenizer.vocab_size, piece.start, piece.stop):
                    yield some
                    done += sum(len(text.encode()) + 1 for text in some)
                    report(min(done, ends - begins), ends - begins)

        threads.set_up()
        parts = store_parts(encode_batches(texts(), tokenizer.library), tokenizer)
        arrays = _write_arrays(out, part, store_dtypes(tokenizer.vocab_size), parts, data if part.count == 1 else None)
        note = summed_up(about, begins, ends, arrays, out, part)
        write_text(out / f"{part.stem(KIND)}.json", json_text(note))
    return note


def merge_stores(shares: Sequence[Share], out: Path, report: Report) -> dict[str, Any]:
    """Write the folder `out` of the whole store from all its shares, in their order, and return its note: the same as one
    machine writes. `report` is told how many shares are done. Raises DataError that names a share that is damaged or does not
    go on where the one before it ends."""
    notes = [checked_note(share) for share in shares]
    total = notes[0]["input"]["bytes"]
    for share, note, before in zip(shares, notes, [{"ends": 0}, *notes]):
        if note["begins"] != before["ends"]:
            reason = "the text files are not the same on all machines"
            raise DataError(f"{share.where}: begins at byte {note['begins']:,}, expected {before['ends']:,}: {reason}")
    if notes[-1]["ends"] != total:
        raise DataError(f"{shares[-1].where}: ends at byte {notes[-1]['ends']:,} of the text, expected {total:,}")
    for share, note in zip(shares, notes):  # before anything is written
        for name, noted in note["arrays"].items():
            check_file(array_path(share.path.parent, share.part, name), noted, share)
    about = {key: value for key, value in notes[0].items() if key not in OWN}

    def parts() -> Iterator[Arrays]:
        bits, tokens, counts = PackedBits(), 0, np.zeros(about["tokenizer"]["size"], np.int64)
        yield {"offsets": np.zeros(1, np.int64)}
        for done, share in enumerate(shares):
            arrays = mapped_arrays(share.path.parent, share.part)
            size = len(arrays["ids"])
            for first in range(0, size, _AT_ONCE):
                yield {"ids": arrays["ids"][first : first + _AT_ONCE]}
                packed = np.unpackbits(arrays["word_bits"][first // 8 : -(-min(first + _AT_ONCE, size) // 8)])
                yield {"word_bits": bits.add(packed[: size - first].astype(bool))}
            for first in range(1, len(arrays["offsets"]), _AT_ONCE):
                yield {"offsets": tokens + arrays["offsets"][first : first + _AT_ONCE]}
            tokens, counts = tokens + size, counts + arrays["counts"]
            report(done + 1, len(shares))
        yield {"word_bits": bits.rest(), "counts": counts}

    with replace_folder(out) as temporary:
        arrays = _write_arrays(temporary, Part(), store_dtypes(about["tokenizer"]["size"]), parts(), shares[0].path.parent)
        note = summed_up(about, 0, total, arrays, temporary, Part())
        (temporary / f"{KIND}.json").write_text(json_text(note), encoding="utf-8")
    return note


def _boundary(files: Sequence[Path], position: int) -> int:
    """The byte of all files, one after the other, at which the first text begins that is not before `position`."""
    before = 0
    for file in files:
        size = file.stat().st_size
        if position < before + size:
            return before + text_start(file, position - before)
        before += size
    return before


def _stretches(files: Sequence[Path], begins: int, ends: int) -> Iterator[_Stretch]:
    before = 0
    for file in files:
        size = file.stat().st_size
        start, stop = max(begins - before, 0), min(ends - before, size)
        if start < stop:
            yield _Stretch(file, start, stop)
        before += size


def _write_arrays(
    folder: Path, part: Part, dtypes: dict[str, np.dtype], parts: Iterator[Arrays], source: Path | None
) -> dict[str, int]:
    """Write the files of a share, and return how many numbers each has. A store without a text of `source` is a DataError."""
    with contextlib.ExitStack() as stack:
        arrays = {}
        for name, dtype in dtypes.items():
            temporary = stack.enter_context(replace_file(array_path(folder, part, name)))
            arrays[name] = stack.enter_context(GrowingArray(temporary, dtype))
        for piece in parts:
            for name, values in piece.items():
                arrays[name].append(values)
        if source is not None and not arrays["ids"].count:
            raise DataError(f"{source}: holds no text")
    return {name: array.count for name, array in arrays.items()}


def _finished(out: Path, part: Part, about: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """The note of the share where it is there, whole and made in the same way."""
    remove_dead(out)
    own = [out / f"{part.stem(KIND)}.json", *(array_path(out, part, name) for name in store_dtypes(0))]
    if part.count == 1:
        there = [path for path in out.iterdir() if not (path.name.startswith(LOCK) or is_workplace(path.name))]
    else:
        there = [path for path in own if path.exists()]
    if there and not resume:
        raise DataError(f"--out {out}: holds {min(there).name} already; give --resume to keep it, or name a new folder")
    if not own[0].exists():
        return None
    try:
        share = Share(KIND, part, own[0], read_object(own[0], DataError))
        note = checked_note(share)
    except DataError:
        told_damaged(own[0])
        return None
    if (other := difference(about, note, OWN)) is not None:
        raise DataError(f"--out {out}: {part} was made by another command: {other}; name a new folder")
    try:
        for name, noted in note["arrays"].items():
            check_file(array_path(out, part, name), noted, share)
    except DataError as error:
        logging.getLogger(__name__).warning("%s, and is made again", error)
        return None
    return note
