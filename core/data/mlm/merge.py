"""Shares of `crossdistil data mlm` to the folder that one machine would have written, byte for byte.

Record files that are on the same disk become names of the same files (hard links), and take no room of their own; others are
copied. What then lies in the new folder is read once and must be as the notes say.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...files import replace_folder
from ..shares import Part, Share, check_file, difference
from .blocks import COUNTS
from .create import is_as_noted, note_name, read_shard_note, shard_name, write_note

OWN = ("counts", "shards")
"""Entries of a share's note that are its own."""


def merge_records(shares: Sequence[Share], out: Path, report: Callable[[int, int], None]) -> dict[str, Any]:
    """Write the folder `out` from all shares and return its note. `report` is told how many record files are done, of how
    many. Raises DataError that names the share where something is missing, damaged or does not belong to the others."""
    places = {name: share for share in shares for name in _names(share)}
    names = [shard_name(number) for number in range(len(places))]
    for number, name in enumerate(names):
        owner = shares[number % len(shares)]
        if places.get(name) is not owner:
            raise DataError(f"{owner.where}: {owner.path.name} does not name {name}, which belongs to it")
    about = {key: value for key, value in shares[0].note.items() if key not in OWN}
    if not isinstance(about.get("input"), dict) or about.get("algorithm") != "blocks":
        raise DataError(f"{shares[0].path}: is no note of crossdistil data mlm --algorithm blocks, or damaged")
    totals = {share: Counter(dict.fromkeys(COUNTS, 0)) for share in shares}
    notes = [_checked_note(share, name, about) for name, share in places.items()]  # before anything large is read
    for share, note in zip(places.values(), notes):
        totals[share].update(note["counts"])
    for share in shares:
        if (wrong := difference(dict(totals[share]), share.note.get("counts"))) is not None:
            raise DataError(f"{share.where}: {share.path.name} does not fit the notes of its record files: {wrong}")
    with replace_folder(out) as temporary:
        for done, ((name, share), note) in enumerate(zip(places.items(), notes)):
            source = share.path.with_name(name)
            for path in (source, source.with_suffix(".json")):
                _put(path, temporary / path.name, share)
            if "crc32c" in note:
                check_file(temporary / name, note, share)
            elif not is_as_noted(temporary / name, note):  # of an earlier version
                raise DataError(f"{share.where}: {name} is damaged")
            report(done + 1, len(places))
        counts = sum(totals.values(), Counter())
        merged = {**about, "counts": {name: counts[name] for name in COUNTS}, "shards": names}
        write_note(temporary / note_name(Part()), merged)
    return merged


def _names(share: Share) -> list[str]:
    """The record files of a share. All of the share's numbers from its first on: a note of other names is damaged."""
    names = share.note.get("shards")
    if not isinstance(names, list):
        raise DataError(f"{share.where}: {share.path.name} is damaged: shards: got {names!r:.60}, expected names of files")
    expected = [shard_name(share.part.index + place * share.part.count) for place in range(len(names))]
    if names != expected:
        wrong = next((name for name, other in zip(expected, names) if name != other))
        raise DataError(f"{share.where}: {share.path.name} does not name {wrong}, which belongs to it")
    return expected


def _checked_note(share: Share, name: str, about: dict[str, Any]) -> dict[str, Any]:
    """The note of a record file of that share, which must be there with the size that is noted."""
    path = share.path.with_name(name)
    place = path.with_suffix(".json")
    for each in (path, place):
        if not each.is_file():
            raise DataError(f"{share.where}: {each.name} is missing; run its command again with --resume")
    note = read_shard_note(place)
    if note is None:
        raise DataError(f"{share.where}: {place.name} is damaged; run its command again with --resume")
    shared = {key: value for key, value in about.items() if key in note}
    shared["input"] = {key: value for key, value in about["input"].items() if key != "crc32c"}
    if (other := difference(shared, {key: note[key] for key in shared})) is not None:
        raise DataError(f"{share.where}: {name} was made by another command than {share.path.name} says: {other}")
    if "bytes" in note and path.stat().st_size != note["bytes"]:
        raise DataError(f"{share.where}: {name} has {path.stat().st_size:,} bytes, expected {note['bytes']:,}")
    return note


def _put(path: Path, place: Path, share: Share) -> None:
    """The same file under another name, or a copy of it where the disk is another one."""
    with contextlib.suppress(OSError):
        os.link(path, place)
        return
    try:
        shutil.copyfile(path, place)
    except FileNotFoundError:
        raise DataError(f"{share.where}: {path.name} is missing") from None
