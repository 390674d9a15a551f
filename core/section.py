"""What all sections of a recipe have in common."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict

from .number_keys import GrowingKeys
from .plain_names import expanded

LONGEST = 1 << 16
"""Tokens of a text: attention is quadratic in them, and no encoder here has positions for more."""


class Section(GrowingKeys):
    """Part of a recipe: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def absolute(path: Path) -> Path:
    """The path from anywhere."""
    # Relative paths mean the folder the command was started in; the recipe in a run folder must work from anywhere.
    return expanded(path).absolute()
