"""What all sections of a recipe have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, SerializationInfo, SerializerFunctionWrapHandler, model_serializer

from .number_keys import NumberKeys
from .plain_names import expanded

LONGEST = 1 << 16
"""Tokens of a text: attention is quadratic in them, and no encoder here has positions for more."""
FOR_DIGEST = "digest"
"""The context of `model_dump` for what a digest is made of."""


class Section(NumberKeys):
    """Part of a recipe: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    newer: ClassVar[tuple[str, ...]] = ()
    """Keys that there were not from the first. At their defaults they are no part of a recipe's digest, so that a run goes on
    which an earlier version began."""

    @model_serializer(mode="wrap")
    def _without_new_defaults(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        values = handler(self)
        if info.context == FOR_DIGEST:
            for key in self.newer:
                if getattr(self, key) == type(self).model_fields[key].default:
                    values.pop(key, None)
        return values


def absolute(path: Path) -> Path:
    """The path from anywhere."""
    # Relative paths mean the folder the command was started in; the recipe in a run folder must work from anywhere.
    return expanded(path).absolute()
