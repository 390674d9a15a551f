"""A model card as a file. Its last line holds the digest of what is above it: a card that was edited no longer has it, and is
never replaced.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

README = "README.md"
_MARK = re.compile(r"\n<!-- written by crossdistil; sha256 of the lines above: ([0-9a-f]{64}) -->\n\Z")


def place_card(folder: Path, text: str, before: Path) -> str | None:
    """Write a card into `folder`, which will take the place of `before`. If a person wrote or edited the README.md there, that is
    kept, and a line that says so is returned. Raises OSError."""
    old = before / README
    if old.is_file() and not is_generated(old.read_bytes()):
        (folder / README).write_bytes(old.read_bytes())
        return f"{old}: was written or edited by hand, and is kept as it is"
    (folder / README).write_text(text, encoding="utf-8")
    return None


def is_generated(data: bytes) -> bool:
    """Whether a README.md is a card as it was written here."""
    text = data.decode("utf-8", errors="replace")
    found = _MARK.search(text)
    return found is not None and found[1] == _digest(text[: found.start() + 1])


def marked(text: str) -> str:
    """A card with its last line."""
    return f"{text}\n<!-- written by crossdistil; sha256 of the lines above: {_digest(text + chr(10))} -->\n"


def unmarked(text: str) -> str:
    """The text of a generated card without its last line."""
    return text[: text.rindex("\n<!-- written by crossdistil")]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
