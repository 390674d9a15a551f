"""What tells that a folder is a teacher's cache (`core.teacher_cache`), which may be given in place of the teacher."""

from __future__ import annotations

from pathlib import Path

IDENTITY = "identity.json"
"""Says of which teacher and tokens a cache is."""
MODEL = "model"
"""The folder in it that says what its teacher is."""


def card_of(path: Path) -> Path:
    """The folder in a teacher cache that says which teacher it is of, where that is given in place of the teacher; any other path
    as it is."""
    return path / MODEL if (path / IDENTITY).is_file() and (path / MODEL).is_dir() else path
