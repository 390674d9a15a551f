"""The paths that a recipe's file names: from the current folder on, or from the recipe's own.

A relative path is what exists: from the current folder on, or beside the recipe. Where both exist and are two things, the recipe
is refused, since either may be meant. Where neither does, it is told as missing from the current folder on, a plugin as missing
beside the recipe.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .hub_names import is_hub_name
from .plain_names import expanded
from .plugin_files import names_file
from .shown import plain

_KEYS = (
    "task.data",
    "aux_data.*.data",
    "teacher.model",
    "teacher.file",
    "teacher.file.path",
    "teachers.*.model",
    "teachers.*.file",
    "teachers.*.file.path",
    "student.init.from",
    "student.tokenizer",
    "student.words.vectors",
    "plugins.*",
    "plugins.*.plugin",
)
_NO_PATHS = {"student.init.from": ("teacher", "random")}


def placed_paths(tree: dict[str, Any], folder: Path, overridden: Iterable[str]) -> tuple[dict[str, Any], list[str], list[str]]:
    """A recipe's plain data with its paths made absolute, what to tell of paths that were found beside the recipe (plugins:
    in the current folder), a line each, and what is wrong. `folder` is the recipe's; keys that are `overridden` are never
    wrong."""
    notes: list[str] = []
    problems: list[str] = []
    given = tuple(overridden)

    def place(value: Any, key: str, pattern: str) -> Any:
        is_plugin = pattern.startswith("plugins")
        if not isinstance(value, str) or not value or "\0" in value or value in _NO_PATHS.get(pattern, ()):
            return value
        if is_hub_name(value) or (is_plugin and not names_file(value)):
            return value
        try:
            path = expanded(Path(value))
        except ValueError:
            return value  # there is no such user, which is told with all else that is wrong
        if path.is_absolute():
            return value
        here, beside = path.absolute(), (folder / path).absolute()
        found = [place for place in (here, beside) if _exists(place, is_plugin)]
        if len(found) == 2 and not os.path.samefile(*found):
            if not any(key == name or key.startswith(f"{name}.") for name in given):
                both = f"is {plain(str(here), 300)} from the current folder on, and {plain(str(beside), 300)} beside the recipe"
                problems.append(f"{_shown_key(key)}: {plain(value)} {both}; name one of the two by its whole path")
            return value
        chosen = found[0] if len(found) == 1 else beside if is_plugin else here
        if chosen != (beside if is_plugin else here):
            where = "in the current folder" if is_plugin else "beside the recipe"
            notes.append(f"{_shown_key(key)}: {plain(value)} is {plain(str(chosen), 300)}, {where}")
        return str(chosen)

    for pattern in _KEYS:
        tree = _mapped(tree, pattern.split("."), "", lambda value, key, pattern=pattern: place(value, key, pattern))
    return tree, notes, problems


def _exists(path: Path, is_plugin: bool) -> bool:
    try:
        return path.is_file() if is_plugin else path.exists()
    except OSError:  # a name too long for a file system
        return False


def _shown_key(key: str) -> str:
    """`plugins.0` as errors have it: `plugins[0]`."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in key.split(".")).removeprefix(".")


def _mapped(node: Any, parts: list[str], key: str, function: Callable[[Any, str], Any]) -> Any:
    """A copy of a tree in which what is at the keys has become `function(value, key)`."""
    if not parts:
        return function(node, key)
    if isinstance(node, dict):
        names = list(node) if parts[0] == "*" else [parts[0]] if parts[0] in node else []
        return {**node, **{name: _mapped(node[name], parts[1:], f"{key}.{name}".lstrip("."), function) for name in names}}
    if isinstance(node, list) and parts[0] == "*":
        return [_mapped(item, parts[1:], f"{key}.{index}", function) for index, item in enumerate(node)]
    return node
