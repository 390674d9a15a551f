"""What all sections of a recipe have in common."""

from __future__ import annotations

from pathlib import Path

from pydantic import ConfigDict

from .hub_names import is_hub_name
from .number_keys import GrowingKeys
from .plain_names import expanded


class Section(GrowingKeys):
    """Part of a recipe: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, defer_build=True)


def absolute(path: Path) -> Path:
    """The path from anywhere; a name of the hub is one."""
    # Relative paths mean the folder the command was started in; the recipe in a run folder must work from anywhere.
    return path if is_hub_name(path) else expanded(path).absolute()
