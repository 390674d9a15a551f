"""What becomes a path: names that come from files are plain ones, or none; `~` is written out, or an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

EXPECTED = "the plain name of a file: no folder, no leading dot, at most 200 bytes"


def is_plain_name(name: Any) -> bool:
    """Whether a name leads nowhere but to something inside of a folder, on every system: no separator (also Windows' \\ and :),
    not `..` or anything else with a leading dot, which would hide it, no control character, and short enough for every disk."""
    if not isinstance(name, str) or not name or name.startswith(".") or name != name.strip() or not name.isprintable():
        return False
    return not any(letter in name for letter in "/\\:") and len(name.encode("utf-8")) <= 200


def is_plain_path(path: Any) -> bool:
    """The same of a path of plain names, with / between them."""
    return isinstance(path, str) and all(is_plain_name(part) for part in path.split("/"))


def expanded(path: Path) -> Path:
    """A path with `~` and `~user` written out. ValueError where there is no such user, or no home folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no home folder of that user; write the whole path") from None
