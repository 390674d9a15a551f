"""A corpus to a folder of record files, with constant memory: shards that are whole or not there, and can be gone on with.

A shard is what a fixed number of blocks of text gave, so that its bytes depend on the corpus, the vocabulary, the settings and
its number alone: not on how many processes or machines work, nor on whether the work was interrupted. Beside each
`examples-00000.tfrecord` is a note, `examples-00000.json`, which is written last; `mlm.json`, or `mlm-2-of-8.json` of the second
of eight machines, adds all of them up, and has a checksum of the whole text, which each machine reads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...checksums import file_checksum
from ...errors import DataError
from ...files import clear_disk_errors, replace_file, write_text
from ...json_files import read_object
from ...shown import shown
from ...workplaces import TEMPORARY, is_workplace, workplace
from ..records.tfrecord import read_records
from ..shares import LOCK, Part, json_text, only_writer, sealed, told_damaged
from .blocks import COUNTS, Source
from .documents import Block, Corpus
from .settings import BLOCK_BYTES, Settings
from .vocabulary import Vocabulary
from .workers import Made, made_blocks

_FORMAT = 1  # one more whenever the same input gives other bytes
_COPIED = 1 << 20  # bytes at a time
_LIBRARIES = "libraries"
_OLDEST = ("format", "algorithm", "settings", "vocabulary", "lower_case", "input")  # of the first notes
Report = Callable[[int, int], None]
"""Told how many bytes of the files are done, of how many."""


def note_name(part: Part) -> str:
    """The note of all shards of a machine."""
    return f"{part.stem('mlm')}.json"


def shard_name(number: int) -> str:
    """The record file of a shard."""
    return f"examples-{number:05d}.tfrecord"


def described(corpus: Corpus, vocabulary: Vocabulary, settings: Settings, algorithm: str) -> dict[str, Any]:
    """What the notes say about how records were made."""
    files = json.dumps([corpus.names, corpus.formats, BLOCK_BYTES])
    libraries = ("tokenizers", "jieba") if settings.whole_words == "chinese" else ("tokenizers",)
    return {
        "format": _FORMAT,
        "algorithm": algorithm,
        "settings": settings.described(),
        "vocabulary": {"sha256": vocabulary.digest, "tokens": len(vocabulary.tokens)},
        "lower_case": vocabulary.lower_case,
        "input": {"files": len(corpus.names), "bytes": corpus.size, "sha256": hashlib.sha256(files.encode()).hexdigest()},
        _LIBRARIES: {name: importlib.metadata.version(name) for name in libraries},
    }


def summed_up(about: dict[str, Any], corpus: Corpus, counts: Counter, shards: list[str]) -> dict[str, Any]:
    """The note of all shards, once all of the corpus was read."""
    return {**about, "input": {**about["input"], "crc32c": corpus.checksum}, "counts": dict(counts), "shards": shards}


def create(
    corpus: Corpus, source: Source, vocabulary: Vocabulary, out: Path, part: Part, processes: int, resume: bool, report: Report
) -> dict[str, Any]:
    """Write this machine's shards into `out` and return the note of all of them. With `resume`, shards that are there already
    are kept. Raises DataError for shards that are in the way or were made otherwise."""
    settings = source.settings
    about = described(corpus, vocabulary, settings, "blocks")
    with only_writer(out, part), clear_disk_errors(out), workplace(out / note_name(part)) as working:
        return _create(corpus, source, about, out, part, processes, resume, report, working)


def _create(
    corpus: Corpus,
    source: Source,
    about: dict[str, Any],
    out: Path,
    part: Part,
    processes: int,
    resume: bool,
    report: Report,
    working: Path,
) -> dict[str, Any]:
    """The same in a folder that no other process writes this machine's shards to. Blocks are kept in the folder `working`."""
    settings = source.settings
    ready = _finished(out, part, about, resume)
    _remove_old_temporaries(out, part)
    totals, shards = Counter(dict.fromkeys(COUNTS, 0)), []

    def shard_of(block: Block) -> int:
        return block.number // settings.blocks_per_shard

    def place(block: Block) -> Path | None:
        number = shard_of(block)
        wanted = part.has(number) and number not in ready
        return working / f"block-{block.number}" if wanted else None

    made = made_blocks(corpus.blocks(), place, source, processes)
    try:
        for number, blocks in itertools.groupby(made, key=lambda each: shard_of(each[0])):
            if part.has(number) and number not in ready:
                path = out / shard_name(number)
                counts, written = _write_shard(path, _reported(blocks, corpus, report))
                write_text(_note_of(out, number), json_text(sealed({**about, "counts": counts, **written})))
            else:
                for _ in _reported(blocks, corpus, report):
                    pass
                counts = ready.get(number)
            if counts is not None:
                totals.update(counts)
                shards.append(shard_name(number))
    finally:
        made.close()
    if shards and not totals["examples"]:
        raise DataError(f"{corpus.where()}: gives no example: no sentence has a piece of the vocabulary")
    note = summed_up(about, corpus, totals, shards)
    write_note(out / note_name(part), note)
    return note


def _reported(blocks: Iterator[tuple[Block, Made | None]], corpus: Corpus, report: Report) -> Iterator[Made | None]:
    for block, made in blocks:
        yield made
        report(block.position, corpus.size)


def _write_shard(path: Path, blocks: Iterator[Made | None]) -> tuple[dict[str, int], dict[str, Any]]:
    """(what was counted, size and checksum of the file)."""
    counts = Counter(dict.fromkeys(COUNTS, 0))
    with replace_file(path) as temporary, temporary.open("wb") as file:
        for made in blocks:
            assert made is not None
            with made[0].open("rb") as records:
                shutil.copyfileobj(records, file, _COPIED)
            made[0].unlink()
            counts.update(made[1])
    return dict(counts), file_checksum(path)


def _finished(out: Path, part: Part, about: dict[str, Any], resume: bool) -> dict[int, dict[str, int]]:
    """The counts of this machine's shards that are there and were made in the same way."""
    if part.count == 1:
        there = [path for path in out.glob("*") if not (path.name.startswith(LOCK) or is_workplace(path.name))]
    else:
        there = [path for path in out.glob("examples-*.tfrecord") if part.has(_number(path))]
    if there and not resume:
        raise DataError(f"--out {out}: holds {min(there).name} already; give --resume to go on with it, or name a new folder")
    ready = {}
    for path in sorted(out.glob("examples-*.json")):
        number = _number(path)
        if not part.has(number) or not (out / shard_name(number)).is_file():
            continue
        note = read_shard_note(path)
        if note is None:
            told_damaged(path)
            continue
        # Notes of earlier versions do not name the libraries.
        other = next((name for name in about if name in note and note[name] != _plain(about[name])), None)
        if other is not None:
            raise DataError(f"--out {out}: {shard_name(number)} was made with another {_difference(other, note, about)}")
        if is_as_noted(out / shard_name(number), note):
            ready[number] = note["counts"]
        else:
            told_damaged(out / shard_name(number))
    return ready


def read_shard_note(path: Path) -> dict[str, Any] | None:
    """The note of a shard, or None where it is damaged."""
    try:
        note = read_object(path, DataError)
        counts = {name: int(note["counts"][name]) for name in COUNTS}
    except (DataError, OSError, ValueError, KeyError, TypeError):
        return None
    is_older = set(note) == {*_OLDEST, "counts"}  # without checksums
    return {**note, "counts": counts} if is_older or note == sealed(note) else None


def is_as_noted(path: Path, note: dict[str, Any]) -> bool:
    """Whether a shard has the bytes that its note says; of an earlier version's, which says none, all records are read."""
    if "crc32c" in note:
        return file_checksum(path) == {key: note.get(key) for key in ("bytes", "crc32c")}
    try:
        return sum(1 for _ in read_records(path)) == note["counts"]["examples"]
    except DataError:
        return False


def _remove_old_temporaries(out: Path, part: Part) -> None:
    """What killed processes of earlier versions left of this machine's shards."""
    for path in out.glob(f"examples-*.tfrecord{TEMPORARY}*"):
        if path.is_file() and part.has(_number(path.with_name(path.name.partition(".")[0]))):
            path.unlink()


def _difference(name: str, note: dict[str, Any], about: dict[str, Any]) -> str:
    """Which of the entries differ, and how."""
    old, new = note.get(name), _plain(about[name])
    if isinstance(old, dict) and isinstance(new, dict):
        name, old, new = next((f"{name}.{key}", old.get(key), new[key]) for key in new if old.get(key) != new[key])
    return f"{name}: {shown(old)}, now {shown(new)}; name a new folder"


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("examples-")
    return int(digits) if digits.isdecimal() else -1


def _note_of(out: Path, number: int) -> Path:
    return (out / shard_name(number)).with_suffix(".json")


def _plain(value: Any) -> Any:
    """As it is read back from JSON."""
    return json.loads(json.dumps(value))


def write_note(path: Path, note: dict[str, Any]) -> None:
    """Write the note of all shards."""
    write_text(path, json_text(note))
