"""Which files are a TensorFlow checkpoint: it is named by a prefix that is no file, by one of its files, or by its folder.

A file `checkpoint`, text of CheckpointState in checkpoint_state.proto, says in `model_checkpoint_path` which of a folder's
checkpoints is the newest, by a path from the folder or by the full path on the machine where it was saved.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..core.errors import CheckpointError
from ..core.plain_names import is_plain_name
from ..core.shown import shown
from .leveldb_table import is_table

STATE = "checkpoint"

_PART = re.compile(r"(.+)\.(?:index|data-\d{5,}-of-\d{5,})")
_NEWEST = re.compile(rb'^\s*model_checkpoint_path\s*:\s*"((?:[^"\\\n]|\\.)*)"', re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_READ = 1 << 20


def index_path(folder: Path, prefix: str) -> Path:
    """The file with the names."""
    return folder / f"{prefix}.index"


def shard_path(folder: Path, prefix: str, shard: int, shards: int) -> Path:
    """One of the files with the numbers."""
    return folder / f"{prefix}.data-{shard:05d}-of-{shards:05d}"


def is_checkpoint(path: Path) -> bool:
    """Whether there is a TensorFlow checkpoint: a prefix, one of its files, or a folder with one. Never raises."""
    try:
        return any(map(is_table, [*_named(path), *_inside(path)]))
    except (OSError, ValueError):
        return False


def find_index(path: Path) -> Path:
    """The `.index` of the one checkpoint that `path` names. Raises CheckpointError."""
    if named := _named(path):
        return named[0]
    part = _PART.fullmatch(path.name)
    if not path.is_dir():
        if is_table(path) and not part:
            raise CheckpointError(f"{path}: is a TensorFlow checkpoint of the old format V1, expected V2 (write_version=V2)")
        raise CheckpointError(f"{path}: is no TensorFlow checkpoint: there is no file {part[1] if part else path.name}.index")
    there = _inside(path)
    names = ", ".join(index.name for index in there) or "none"
    newest = _newest(path / STATE)
    if newest is not None:
        # Often the full path on another machine: what is meant lies beside the file, and a file leads nowhere else.
        name = re.split(r"[/\\]", newest)[-1]
        if is_plain_name(name) and (index := index_path(path, name)).is_file():
            return index
        raise CheckpointError(
            f"{path / STATE}: names {shown(newest)}, whose .index is missing in the folder; it holds: {names}"
        )
    if len(there) != 1:
        raise CheckpointError(f"{path}: expected one TensorFlow checkpoint, or a file '{STATE}' that names one; found {names}")
    return there[0]


def write_state(folder: Path, prefix: str) -> None:
    """The file that names the only checkpoint of the folder."""
    text = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "\"'\\" else f"\\{byte:03o}" for byte in prefix.encode()
    )
    (folder / STATE).write_text(f'model_checkpoint_path: "{text}"\nall_model_checkpoint_paths: "{text}"\n', encoding="ascii")


def _named(path: Path) -> list[Path]:
    """The index, if `path` is a prefix or a file of a checkpoint."""
    part = _PART.fullmatch(path.name)
    prefixes = [part[1]] if part else []
    return [index for prefix in (*prefixes, path.name) if prefix and (index := index_path(path.parent, prefix)).is_file()]


def _inside(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".index" and path.is_file()) if folder.is_dir() else []


def _newest(path: Path) -> str | None:
    """What a file `checkpoint` names; None where there is none, or it is something else."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        found = _NEWEST.search(file.read(_READ))
    if not found:
        return None
    name = _ESCAPE.sub(_unescaped, found[1]).decode(errors="replace")
    return name if Path(name).name and "\0" not in name else None


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes([int(match[1], 8) & 0xFF]) if match[1].isdigit() else match[1]
