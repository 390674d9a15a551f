"""What the user of a model should know of it, by the paths that were given: errors and notes about folders in the cache too."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from ...converters.configuration import find_config, find_tokenizer
from ..cache_folder import kind_folder
from ..config_file import CONFIG
from ..engine import Engine
from ..errors import CheckpointError, CrossdistilError
from ..processor import precision_notes

_BEFORE_PATH, _IN_PATH = r"(?<![^\s'\"`(\[<=:,])", r"[^\s'\"`,;:)\]>]"
"""Where a path may begin in a message, and what goes on with one."""
NOTES = "notes.json"
"""Beside a converted model: what its conversion had to tell, which is told each time that it is used."""


def tell_notes(notes: Iterable[str], tell: Callable[[str], None] | None, *pairs: tuple[Path, Path]) -> None:
    """`tell` what the user of models should know, or log it where there is no such function. `pairs` are (given, folder), as for
    `paths_as_given`."""
    for line in all_notes(notes, *pairs):
        if tell is None:
            logging.getLogger(__name__).warning("%s", line)
        else:
            tell(f"note: {line}")


def told_engine(engine: Engine, tell: Callable[[str], None] | None) -> Engine:
    """An engine whose device's notes on the precision are told, as `tell_notes` does."""
    tell_notes(precision_notes(engine.precision, engine.device), tell)
    return engine


def all_notes(notes: Iterable[str], *pairs: tuple[Path, Path]) -> list[str]:
    """These lines and those of the conversions that made the folders, by the names that were given, each once."""
    lines = [_as_given(line, pairs) for line in notes]
    for given, folder in pairs:
        if given != folder:
            lines += [f"{given}: {note}" for note in _conversion_notes(folder)]
    return list(dict.fromkeys(lines))


def _conversion_notes(folder: Path) -> list[str]:
    try:
        return json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except OSError:  # another process cleared the cache, which the next reading of the folder tells
        return []


def _as_given(text: str, pairs: Iterable[tuple[Path, Path]]) -> str:
    """A folder by the path that was given for it, and a file that a conversion took over by its place beside the checkpoint. Any
    other path, in that folder, or which only holds its name, is where it says."""
    for given, folder in pairs:
        if given != folder:
            taken: dict[str, Path] = {}
            if folder.parent == kind_folder("converted"):
                with contextlib.suppress(CheckpointError):
                    _, config = find_config(given, None)
                    taken = find_tokenizer(given) | ({} if config is None else {CONFIG: config})

            def shown_path(match: re.Match[str], given: Path = given, taken: Mapping[str, Path] = taken) -> str:
                name = match["name"]
                return str(given) if name is None else str(taken.get(name, match[0]))

            whole = rf"{_BEFORE_PATH}{re.escape(str(folder))}(?:/(?P<name>{_IN_PATH}+))?(?!\.?{_IN_PATH}|/)"
            text = re.sub(whole, shown_path, text)
    return text


@contextlib.contextmanager
def paths_as_given(*pairs: tuple[Path, Path]) -> Iterator[None]:
    """Errors about folders in the cache, which no user knows, name the paths that were given. `pairs` are (given, folder)."""
    try:
        yield
    except CrossdistilError as error:
        error.args = (_as_given(str(error), pairs),)
        raise
