"""The types and defaults of pydantic's fields, as people read them."""

from __future__ import annotations

import json
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

PLAIN = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Path: "path", Any: "anything"}
BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def type_shown(field: FieldInfo) -> str:
    """The type of a field with its bounds."""
    shown = _type(field.annotation)
    limits = [(word, getattr(each, name, None)) for each in field.metadata for name, word in BOUNDS.items()]
    bounds = [f"{word} {limit:,}" for word, limit in limits if limit is not None]
    return f"{shown}, {' and '.join(bounds)}" if bounds else shown


def _type(annotation: Any) -> str:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(inside[0])
    if origin is typing.Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if origin in (typing.Union, types.UnionType):
        parts = [each for each in inside if each is not type(None)]
        if len(parts) > 6:  # the union of all losses
            return "loss term"
        return " or ".join(dict.fromkeys(_type(each) for each in parts))
    if origin is tuple:
        kinds = [each for each in inside if each is not Ellipsis]
        return f"list: {_type(kinds[0])}" if len(set(kinds)) == 1 else f"[{', '.join(_type(each) for each in kinds)}]"
    if origin is dict:
        return f"names: {_type(inside[1])}" if inside[1] is not Any else "keys with values"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(f"`{each.value}`" for each in annotation)
    return PLAIN.get(annotation, getattr(annotation, "__name__", str(annotation)))


def default_shown(field: FieldInfo) -> str:
    """The default of a field; what has none must be given."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "must be given"
    if value is None:
        return "–"
    if isinstance(value, BaseModel) or value in ((), {}, ""):
        return "" if isinstance(value, BaseModel) else "empty"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value if isinstance(value, str) else json.dumps(value, default=str)}`"
