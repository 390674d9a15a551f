"""What the models of a recipe's parts have in common: `true` is no number, though Python counts it as 1, and keys that came later
leave the digests of older recipes as they are."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

from pydantic import BaseModel, SerializationInfo, SerializerFunctionWrapHandler, model_serializer, model_validator

FOR_DIGEST = "digest"
"""The context of `model_dump` for what a digest is made of."""


class NumberKeys(BaseModel):
    """A pydantic model whose keys of numbers take no boolean, unless their type names it."""

    @model_validator(mode="before")
    @classmethod
    def _number_is_no_boolean(cls, values: Any) -> Any:
        # Of the model, because a key that tells the models of a union apart may have no validator of its own.
        for key, value in values.items() if isinstance(values, dict) else ():
            if key not in cls.model_fields:
                continue
            if found := _boolean(value, key):
                types = _types(cls.model_fields[key].annotation)
                if types & {int, float} and bool not in types:
                    raise ValueError(f"{found}, expected a number")
        return values


class GrowingKeys(NumberKeys):
    """A part of a recipe that has got keys since the first version."""

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


def _boolean(value: Any, key: str) -> str:
    """`key[1]: got true` for a boolean that is the key's value or stands in a list there; else an empty string."""
    if isinstance(value, bool):
        return f"{key}: got {str(value).lower()}"
    items = enumerate(value) if isinstance(value, list | tuple) else ()
    return next(filter(None, (_boolean(inner, f"{key}[{index}]") for index, inner in items)), "")


def _types(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    return {annotation}.union(*map(_types, get_args(annotation)))
