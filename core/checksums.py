"""Checksums of the files in a folder that this project wrote: a flipped bit, a cut file or one of another folder is an error
before anything is used, and not another model.

`checksums.json` holds the size and the CRC-32C of every file beside it. Folders of earlier versions have none.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import google_crc32c

from .errors import CrossdistilError
from .json_files import MAX_BYTES, parse_json
from .plain_names import is_plain_path
from .shown import shown

CHECKSUMS = "checksums.json"
_FOR_PEOPLE = frozenset({"README.md"})
"""What people edit, and nothing is computed from."""
_TEXT = frozenset({".json", ".jsonl", ".txt", ".md", ".py", ".yaml"})
"""How files end that people may edit by hand."""
_FORMAT = 1
_CHUNK = 1 << 18  # as fast as a processor's cache


class Damaged(CrossdistilError):
    """A file that is not as it was written; the message names it, without its folder."""


def file_checksum(path: Path) -> dict[str, Any]:
    """Size in bytes and CRC-32C of a file. Raises OSError."""
    size, value = 0, 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            size, value = size + len(chunk), google_crc32c.extend(value, chunk)
    return {"bytes": size, "crc32c": f"{value:08x}"}


def write_checksums(folder: Path) -> None:
    """Note all files that a folder holds, which is not yet in its place. Raises OSError."""
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    names = sorted(name for name in found if name not in _FOR_PEOPLE)
    content = {"format": _FORMAT, "files": {name: file_checksum(folder / name) for name in names}}
    (folder / CHECKSUMS).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def noted_checksums(folder: Path) -> dict[str, Any] | None:
    """What `checksums.json` says of each file, or None where there is none. Raises Damaged."""
    try:
        data = (folder / CHECKSUMS).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(f"{CHECKSUMS}: {error.strerror}") from error
    content = parse_json(data, CHECKSUMS, Damaged, MAX_BYTES)
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("files"), dict):
        raise Damaged(f"{CHECKSUMS}: damaged: got {shown(content, 60)}")
    return content["files"]


def changed_files(folder: Path, noted: dict[str, Any], names: Iterable[str] | None = None) -> list[str]:
    """What is wrong with those of the noted files (all, unless `names` are given), each as `NAME: what`."""
    problems = []
    for name in noted if names is None else names:
        if not is_plain_path(name):
            problems.append(f"{shown(name)}: is no name of a file in the folder")
            continue
        try:
            found = file_checksum(folder / name)
        except FileNotFoundError:
            problems.append(f"{name}: missing")
        except OSError as error:
            problems.append(f"{name}: {error.strerror}")
        else:
            if found != noted.get(name):
                problems.append(f"{name}: is not as it was written")
    return problems


def check_model_folder(folder: Path, binary: Iterable[str] | None = None) -> None:
    """Whether the files of a model folder are as they were written, where that was noted. Those named in `binary` (None: all but
    texts), which nobody edits by hand, must be: Damaged is raised. A change of the others is told in a line, and so is a file
    that is not there, which may have another name now: who needs it will miss it."""
    noted = noted_checksums(folder)
    for problem in [] if noted is None else changed_files(folder, noted):
        name = problem.partition(":")[0]
        given = name in binary if binary is not None else Path(name).suffix not in _TEXT
        if given and os.path.lexists(folder / name):
            raise Damaged(f"{problem}; if it was changed on purpose, remove {CHECKSUMS}")
        logging.getLogger(__name__).warning("%s/%s; if it was changed on purpose, remove %s", folder, problem, CHECKSUMS)
