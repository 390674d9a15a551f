"""Keys that are numbers, in recipes: `true` is none, though Python counts it as 1."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, model_validator


class NumberKeys(BaseModel):
    """A pydantic model whose keys of numbers take no boolean, unless their type names it."""

    @model_validator(mode="before")
    @classmethod
    def _number_is_no_boolean(cls, values: Any) -> Any:
        # Of the model, because a key that tells the models of a union apart may have no validator of its own.
        for key, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and key in cls.model_fields:
                types = _types(cls.model_fields[key].annotation)
                if types & {int, float} and bool not in types:
                    raise ValueError(f"{key}: got {str(value).lower()}, expected a number")
        return values


def _types(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    return {annotation}.union(*map(_types, get_args(annotation)))
