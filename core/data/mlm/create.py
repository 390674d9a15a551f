"""A corpus to a folder of record files, with constant memory: shards that are whole or not there, and can be gone on with.

A shard is what a fixed number of blocks of text gave, so that its bytes depend on the corpus, the vocabulary, the settings and
its number alone: not on how many processes or machines work, nor on whether the work was interrupted. Beside each
`examples-00000.tfrecord` is a note, `examples-00000.json`, which is written last; `mlm.json` adds all of them up.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import TEMPORARY, clear_disk_errors, replace_file, write_text
from .blocks import COUNTS, Source
from .documents import BLOCK_BYTES, Block, Corpus
from .settings import Settings
from .vocabulary import Vocabulary
from .workers import Made, made_blocks

_FORMAT = 1  # one more whenever the same input gives other bytes
_COPIED = 1 << 20  # bytes at a time
Report = Callable[[int, int], None]
"""Told how many bytes of the files are done, of how many."""


@dataclass(frozen=True)
class Part:
    """Machine `index` of `count`: it makes the shards whose number has the remainder `index`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """From "i/n", i from 1 to n; raises DataError."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise DataError(f"--shard {text}: expected I/N with I from 1 to N, for example 2/8")
        return cls(int(index) - 1, int(count))

    def has(self, shard: int) -> bool:
        """Whether this machine makes it."""
        return shard % self.count == self.index

    @property
    def note(self) -> str:
        """The name of the note of all its shards."""
        return "mlm.json" if self.count == 1 else f"mlm-{self.index + 1}-of-{self.count}.json"


def shard_name(number: int) -> str:
    """The record file of a shard."""
    return f"examples-{number:05d}.tfrecord"


def described(corpus: Corpus, vocabulary: Vocabulary, settings: Settings, algorithm: str) -> dict[str, Any]:
    """What the notes say about how records were made."""
    files = json.dumps([corpus.names, corpus.formats, BLOCK_BYTES])
    return {
        "format": _FORMAT,
        "algorithm": algorithm,
        "settings": settings.described(),
        "vocabulary": {"sha256": vocabulary.digest, "tokens": len(vocabulary.tokens)},
        "lower_case": vocabulary.lower_case,
        "input": {"files": len(corpus.names), "bytes": corpus.size, "sha256": hashlib.sha256(files.encode()).hexdigest()},
    }


def create(
    corpus: Corpus, source: Source, vocabulary: Vocabulary, out: Path, part: Part, processes: int, resume: bool, report: Report
) -> dict[str, Any]:
    """Write this machine's shards into `out` and return the note of all of them. With `resume`, shards that are there already
    are kept. Raises DataError for shards that are in the way or were made otherwise."""
    settings = source.settings
    about = described(corpus, vocabulary, settings, "blocks")
    ready = _finished(out, part, about, resume)
    totals, shards = Counter(dict.fromkeys(COUNTS, 0)), []
    _remove_leftovers(out, part)

    def shard_of(block: Block) -> int:
        return block.number // settings.blocks_per_shard

    def place(block: Block) -> Path | None:
        number = shard_of(block)
        wanted = part.has(number) and number not in ready
        return out / f"{shard_name(number)}{TEMPORARY}block-{block.number}" if wanted else None

    with clear_disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    made = made_blocks(corpus.blocks(), place, source, processes)
    try:
        for number, blocks in itertools.groupby(made, key=lambda each: shard_of(each[0])):
            if part.has(number) and number not in ready:
                counts = _write_shard(out / shard_name(number), _reported(blocks, corpus, report))
                write_text(_note_of(out, number), _json({**about, "counts": counts}))
            else:
                for _ in _reported(blocks, corpus, report):
                    pass
                counts = ready.get(number)
            if counts is not None:
                totals.update(counts)
                shards.append(shard_name(number))
    finally:
        made.close()
        _remove_leftovers(out, part)
    if shards and not totals["examples"]:
        raise DataError(f"{corpus.where()}: gives no example: no sentence has a piece of the vocabulary")
    note = {**about, "counts": dict(totals), "shards": shards}
    write_text(out / part.note, _json(note))
    return note


def _reported(blocks: Iterator[tuple[Block, Made | None]], corpus: Corpus, report: Report) -> Iterator[Made | None]:
    for block, made in blocks:
        yield made
        report(block.position, corpus.size)


def _write_shard(path: Path, blocks: Iterator[Made | None]) -> dict[str, int]:
    counts = Counter(dict.fromkeys(COUNTS, 0))
    with replace_file(path) as temporary, temporary.open("wb") as file:
        for made in blocks:
            assert made is not None
            with made[0].open("rb") as records:
                shutil.copyfileobj(records, file, _COPIED)
            made[0].unlink()
            counts.update(made[1])
    return dict(counts)


def _remove_leftovers(out: Path, part: Part) -> None:
    """What a process that was killed, or an error, left of this machine's shards."""
    for path in out.glob(f"examples-*.tfrecord{TEMPORARY}*"):
        if part.has(_number(path.with_name(path.name.partition(".")[0]))):
            path.unlink()


def _finished(out: Path, part: Part, about: dict[str, Any], resume: bool) -> dict[int, dict[str, int]]:
    """The counts of this machine's shards that are there and were made in the same way."""
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: is a file, expected a folder")
    there = sorted(out.glob("*")) if part.count == 1 else [
        path for path in sorted(out.glob("examples-*.tfrecord")) if part.has(_number(path))
    ]  # fmt: skip
    if there and not resume:
        raise DataError(f"--out {out}: holds {there[0].name} already; give --resume to go on with it, or name a new folder")
    ready = {}
    for path in sorted(out.glob("examples-*.json")):
        number = _number(path)
        if not part.has(number) or not (out / shard_name(number)).is_file():
            continue
        try:
            note = json.loads(path.read_text(encoding="utf-8"))
            counts = {name: int(note["counts"][name]) for name in COUNTS}
        except (ValueError, KeyError, TypeError):
            continue  # it is made again
        other = next((name for name in about if note.get(name) != _plain(about[name])), None)
        if other is not None:
            raise DataError(f"--out {out}: {shard_name(number)} was made with another {_difference(other, note, about)}")
        ready[number] = counts
    return ready


def _difference(name: str, note: dict[str, Any], about: dict[str, Any]) -> str:
    """Which of the entries differ, and how."""
    old, new = note.get(name), _plain(about[name])
    if isinstance(old, dict) and isinstance(new, dict):
        name, old, new = next((f"{name}.{key}", old.get(key), new[key]) for key in new if old.get(key) != new[key])
    return f"{name}: {old}, now {new}; name a new folder"


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("examples-")
    return int(digits) if digits.isdecimal() else -1


def _note_of(out: Path, number: int) -> Path:
    return (out / shard_name(number)).with_suffix(".json")


def _plain(value: Any) -> Any:
    """As it is read back from JSON."""
    return json.loads(json.dumps(value))


def _json(note: Sequence | dict) -> str:
    return json.dumps(note, indent=2, ensure_ascii=False) + "\n"


def write_note(out: Path, note: dict[str, Any]) -> None:
    """The note of an algorithm that has its own way to write records."""
    write_text(out / "mlm.json", _json(note))
