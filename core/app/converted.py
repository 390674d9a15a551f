"""Checkpoints of other formats as model folders: each is converted once, into the cache."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from pathlib import Path

from ...converters.canonical import CanonicalCheckpoint, ReadOptions
from ...converters.configuration import find_config, find_tokenizer
from ...converters.convert import ConvertOptions, convert
from ...converters.formats import is_checkpoint
from ...converters.reading import allowed
from ..cache_folder import kind_folder
from ..errors import CheckpointError, CrossdistilError, checkpoint_named
from ..locks import hold_folder, made_by_one
from ..models.head_classes import HEAD_PARTS, other_head
from ..models.known_families import family_code
from ..read_section import ReadSection
from ..remedies import convert_command
from ..workplaces import remove_dead
from .model_notes import NOTES

_OPTION = re.compile(r"--(?:ema|successor|fix-config)\b|--(?:rename|allow-extra|prefix|config) (?!PATTERN)(?:'[^']*'|[^\s',;)]+)")
"""Those of `convert`, with their values, as its errors name them; `--allow-missing` makes no model that can be used."""
_FORMAT = 3
"""Of the entries of the cache: what was made under another number is made again."""


def converted_folder(path: Path, where: str, read: ReadSection) -> Path:
    """The folder in the cache that a checkpoint at `path` is converted to, once; the path itself if nothing there is one, about
    which core has its own errors. `where` names the recipe key that asked for it. Raises CheckpointError."""
    if not is_checkpoint(path):
        return path
    with checkpoint_named(where):
        folder = kind_folder("converted") / _identity(path, read)
        remove_dead(folder.parent)  # also where nothing is left to be written
        while not hold_folder(folder):  # from now on, or another process might remove it before it is read
            try:
                with made_by_one(folder):
                    if not folder.is_dir():
                        _convert(path, folder, read)
            except CrossdistilError as error:
                if not folder.is_dir():  # else another process was faster
                    raise CheckpointError(_with_command(str(error), path, where)) from error
    return folder


def _with_command(problem: str, path: Path, where: str) -> str:
    """A problem that names options of `convert`, with the whole command, and with the key of the recipe that asked for the model:
    who reads it is not converting."""
    options = list(dict.fromkeys(_OPTION.findall(problem)))
    if not options:
        return problem
    first = options[0]
    same = [option for option in options if option.split()[0] == first.split()[0]]  # several --rename belong together
    lines = [problem, f"(the whole command: {convert_command(path, ' '.join(same))}, whose result takes the place of {path})"]
    key = first.split()[0].removeprefix("--").replace("-", "_")
    if where and key in ReadSection.model_fields:
        values = [value for option in same for value in shlex.split(option)[1:]]
        shown_value = json.dumps(values) if key in ("rename", "allow_extra") else values[0] if values else "true"
        lines.append(f"(or in the recipe: {where.rpartition('.')[0]}.read.{key}: {shown_value})")
    return "\n".join(lines)


def _convert(path: Path, folder: Path, read: ReadSection) -> None:
    config, _ = find_config(path, None)
    other = None if config is None else other_head(config)
    patterns: tuple[str, ...] = ()
    if other is not None:
        # Its encoder can be used; that the head is left out is among the notes.
        patterns = tuple(pattern for part in sorted(HEAD_PARTS) for pattern in (f"{part}.*", f"*.{part}.*"))
    options = ReadOptions(
        allow_extra=(*read.allow_extra, *patterns), prefix=read.prefix, rename=read.rename, ema=read.ema, successor=read.successor
    )

    def keep_notes(checkpoint: CanonicalCheckpoint, temporary: Path) -> None:
        notes = [note for note in checkpoint.notes if note not in checkpoint.config_notes]
        by_user = set(allowed(checkpoint.left_out, read.allow_extra))
        for name in checkpoint.left_out:
            notes.append(f"{name} is left out: " + ("read.allow_extra" if name in by_user or other is None else other.reason))
        (temporary / NOTES).write_text(json.dumps(notes), encoding="utf-8")

    convert(path, folder, ConvertOptions("pytorch", for_us=True, read=options), keep_notes)


def _identity(path: Path, read: ReadSection) -> str:
    """Changes when the checkpoint, its configuration or its tokenizer does: their names, sizes and times; or how it is read."""
    if path.is_dir():
        files = {file for file in path.rglob("*") if file.is_file()}
    else:
        stem = path.name.partition(".")[0]  # the files of one checkpoint begin alike
        files = {file for file in path.parent.iterdir() if file.is_file() and file.name.startswith(stem)}
    _, config = find_config(path, None)
    files |= {*find_tokenizer(path).values(), *([] if config is None else [config])}
    digest = hashlib.sha256(f"{_FORMAT}\0{path.resolve()}\0{read.model_dump_json()}{family_code()}".encode())
    for file in sorted(files):
        state = file.stat()
        digest.update(f"{file}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]
