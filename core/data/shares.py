"""Work on a corpus that is shared out over machines: how shares are called, that one process writes each, that all are there.

A share writes its files into a folder, of its own or in common with others, and last of all a note: `mlm-2-of-8.json` or
`tokens-2-of-8.json`; whoever does everything alone writes `mlm.json` or `tokens.json`. So a note says that its share is finished.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c

from ..checksums import file_checksum
from ..errors import DataError
from ..files import clear_disk_errors, make_folder
from ..json_files import read_object
from ..locks import lock_file
from ..shown import shown
from .folders import folder_contents

KINDS = ("mlm", "tokens")
"""Commands of `crossdistil data` whose work can be shared out."""

LOCK = ".lock"
"""What lock files in a folder of shares begin with."""

_NOTE = re.compile(rf"({'|'.join(KINDS)})(?:-([1-9]\d{{0,8}})-of-([1-9]\d{{0,8}}))?\.json")
_NAMED = 5  # numbers of missing shares that a message has
_MEANINGS = {
    "input.sha256": "the text files are other ones",
    "input.crc32c": "the text differs",
    "vocabulary.sha256": "the vocabulary differs",
}


@dataclass(frozen=True)
class Part:
    """Machine `index`, from 0, of `count`."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """From "i/n", i from 1 to n; raises DataError."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and len(count) < 10 and 1 <= int(index) <= int(count)):
            raise DataError(f"--shard {text}: expected I/N with I from 1 to N, for example 2/8")
        return cls(int(index) - 1, int(count))

    def has(self, number: int) -> bool:
        """Whether this machine makes the one of many pieces that has this number: those with the remainder `index`."""
        return number % self.count == self.index

    def stem(self, kind: str) -> str:
        """What the name of its note begins with."""
        return kind if self.count == 1 else f"{kind}-{self.index + 1}-of-{self.count}"

    def __str__(self) -> str:
        return f"share {self.index + 1} of {self.count}"


@dataclass(frozen=True, eq=False)
class Share:
    """A share that is finished, as its note at `path` says it."""

    kind: str
    part: Part
    path: Path
    note: dict[str, Any]

    @property
    def where(self) -> str:
        """What to call it in a message."""
        return str(self.path.parent) if self.part.count == 1 else f"{self.path.parent}: {self.part}"


def complete_shares(folders: Sequence[Path], own: Sequence[str]) -> list[Share]:
    """All shares of one command, in order, that lie in some folders. `own` are the entries of a note that each share has its
    own of; all others must be alike. Raises DataError that names the share that is missing, there twice or of another command."""
    shares = [share for folder in folders for share in _in_folder(folder)]
    first = shares[0]
    for share in shares[1:]:
        if share.kind != first.kind:
            raise DataError(f"{share.path}: is of crossdistil data {share.kind}, but {first.path} of data {first.kind}")
        if share.part.count != first.part.count:
            raise DataError(f"{share.path}: is one of {share.part.count} shares, but {first.path} is one of {first.part.count}")
        if (name := difference(first.note, share.note, own)) is not None:
            meaning = _MEANINGS.get(name.partition(":")[0], "the commands differ")
            raise DataError(f"{share.path}: {name}, as {first.path} has it: {meaning}")
    found: dict[int, Share] = {}
    for share in shares:
        other = found.setdefault(share.part.index, share)
        if other is not share:
            raise DataError(f"{share.part}: is in {other.path.parent} and in {share.path.parent}; give one of them")
    missing = missing_shares([share.part for share in shares])
    if missing:
        raise DataError(f"{missing}: looked for {first.kind}-I-of-{first.part.count}.json in {', '.join(map(str, folders))}")
    return [found[index] for index in sorted(found)]


def missing_shares(parts: Sequence[Part]) -> str | None:
    """Which of the shares that belong to these are not among them, in words, or None where all are there."""
    there, count = {part.index for part in parts}, max(part.count for part in parts)
    missing = [index + 1 for index in range(count) if index not in there]
    if not missing:
        return None
    named = ", ".join(map(str, missing[:_NAMED])) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
    one = len(missing) == 1
    return f"{'share' if one else 'shares'} {named} of {count} {'is' if one else 'are'} missing"


def difference(one: dict[str, Any], other: dict[str, Any], left_out: Sequence[str] = ()) -> str | None:
    """The first entry in which two notes differ, as `name: the other's value, expected the one's`, or None."""
    for name in [*one, *(name for name in other if name not in one)]:
        old, new = one.get(name), other.get(name)
        if name in left_out or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return f"{name}.{difference(old, new)}"
        return f"{name}: got {shown(new)}, expected {shown(old)}"
    return None


def notes_in(folder: Path, kind: str) -> dict[Part, Path]:
    """The notes of finished shares of a kind. Raises OSError."""
    found = {}
    for path in sorted(folder.iterdir()):
        match = _NOTE.fullmatch(path.name)
        if match is not None and match[1] == kind:
            part = Part() if match[2] is None else Part(int(match[2]) - 1, int(match[3]))
            if part.index < part.count:
                found[part] = path
    return found


def check_file(path: Path, noted: dict[str, Any], share: Share) -> None:
    """Raises DataError unless a file of a share has the size and the checksum that were noted."""
    try:
        expected, size = noted["bytes"], path.stat().st_size
        if size != expected:
            raise DataError(f"{share.where}: {path.name} has {size:,} bytes, expected {expected:,}")
        if file_checksum(path) != {"bytes": expected, "crc32c": noted["crc32c"]}:
            raise DataError(f"{share.where}: {path.name} is damaged: it has another checksum than its note says")
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{share.where}: the note of {path.name} is damaged") from None
    except FileNotFoundError:
        raise DataError(f"{share.where}: {path.name} is missing") from None
    except OSError as error:
        raise DataError(f"{share.where}: {path.name} cannot be read: {error.strerror}") from None


def json_text(note: dict[str, Any]) -> str:
    """A note as it is written."""
    return json.dumps(note, indent=2, ensure_ascii=False) + "\n"


def sealed(note: dict[str, Any]) -> dict[str, Any]:
    """A note with a checksum of its own content."""
    content = {key: value for key, value in note.items() if key != "note_crc32c"}
    data = json.dumps(content, sort_keys=True).encode()
    return {**content, "note_crc32c": f"{google_crc32c.value(data):08x}"}


def told_damaged(path: Path) -> None:
    """Say that a file of an earlier run cannot be kept."""
    logging.getLogger(__name__).warning("%s: is not as it was written, and is made again", path)


@contextlib.contextmanager
def only_writer(out: Path, part: Part) -> Iterator[None]:
    """No other process writes the same share; machines that share the work write to one folder side by side. The folder is made,
    and removed again where nothing was written. Raises DataError, RunFolderError."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    if out.exists() and not out.is_dir():
        raise DataError(f"--out {out}: is a file, expected a folder")
    with clear_disk_errors(out):
        make_folder(out)
        locks = []
        try:
            locks.append(lock_file(out / LOCK, shared=part.count > 1))
            if part.count > 1:
                locks.append(lock_file(out / f"{LOCK}-{part.index + 1}-of-{part.count}"))
        except BlockingIOError:
            for lock in locks:
                lock.release()
            raise DataError(f"--out {out}: another process is writing to it") from None
    try:
        yield
    finally:
        for lock in reversed(locks):
            lock.release()
        with contextlib.suppress(OSError):  # not empty, as it should be
            for folder in missing:
                folder.rmdir()


def _in_folder(folder: Path) -> list[Share]:
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is a file, expected a folder' if folder.exists() else 'no such folder'}")
    try:
        paths = [(kind, part, path) for kind in KINDS for part, path in notes_in(folder, kind).items()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    if not paths:
        expected = " or ".join(f"{kind}-I-of-N.json" for kind in KINDS)
        raise DataError(
            f"{folder}: has no finished share, expected {expected}, which is written last; {folder_contents(folder)}"
        )
    return [Share(kind, part, path, read_object(path, DataError)) for kind, part, path in paths]
