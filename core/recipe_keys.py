"""The keys that a recipe has room for, as `--set` names them: to find the whole name of one that was shortened."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from .models.families.bert import BertConfig

FAMILY = "model_type"
"""The key of an architecture that says of which family it is."""


def whole_keys(model: type[BaseModel], tree: Any) -> list[str]:
    """Every `path.to.key` that a recipe of this plain data can have: a list has the items of the data, or one."""
    return [".".join(parts) for parts in _keys(model, tree)]


def whole_key(key: str, model: type[BaseModel], tree: Any) -> str:
    """`"; did you mean 'stages.0.train.epochs'?"` for `train.epochs` or `epochs`; empty where no key ends so."""
    section, _, last = key.rpartition(".")
    known = whole_keys(model, tree)
    inside = [each for each in known if section and each.startswith(f"{section}.") and each.endswith(f".{last}")]
    return _asked(inside or [each for each in known if each.endswith(f".{key}")])


def similar_key(key: str, model: type[BaseModel], tree: Any) -> str:
    """The same for one that is misspelt as well: those whose last part is nearest."""
    known = whole_keys(model, tree)
    last = FAMILY if _last(key) == "family" else _last(key)  # as it is called here, and not in a config.json
    near = difflib.get_close_matches(last, sorted({_last(each) for each in known}), n=1, cutoff=0.75)
    return _asked([each for each in known if near and _last(each) == near[0]])


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _asked(found: list[str]) -> str:
    if not found:
        return ""
    *more, final = [f"'{each}'" for each in sorted(found, key=lambda each: each.count("."))[:3]]
    return f"; did you mean {', '.join(more)}{' or ' if more else ''}{final}?"


def _keys(annotation: Any, tree: Any) -> Iterator[tuple[str, ...]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        given = tree if isinstance(tree, dict) else {}
        for name, field in annotation.model_fields.items():
            own = field.alias or name
            yield (own,)
            yield from ((own, *rest) for rest in _keys(field.annotation, given.get(own)))
            if own == "architecture":
                yield from ((own, key) for key in (FAMILY, *BertConfig.model_fields))
        return
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _keys(inner[0], tree)
    elif origin in (typing.Union, types.UnionType):
        for choice in _fitting(inner, tree):
            yield from _keys(choice, tree)
    elif origin is tuple and len(inner) == 2 and inner[1] is Ellipsis:
        for index, item in enumerate(tree if isinstance(tree, list) and tree else [None]):
            yield from ((str(index), *rest) for rest in _keys(inner[0], item))
    elif origin is dict:
        for name, item in (tree if isinstance(tree, dict) else {}).items():
            yield from ((str(name), *rest) for rest in _keys(inner[1], item))


def _fitting(choices: tuple[Any, ...], tree: Any) -> list[Any]:
    """Of the kinds of loss, the one that the data names; of other unions, all."""
    loss = tree.get("loss") if isinstance(tree, dict) else None
    kinds = {choice: getattr(choice, "model_fields", {}).get("loss") for choice in choices}
    if not any(kinds.values()):
        return list(choices)
    return [choice for choice, field in kinds.items() if field is not None and loss in typing.get_args(field.annotation)]
