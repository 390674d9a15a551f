"""Turns pydantic's validation errors into lines such as `stages[0].train.epohcs: unknown key; did you mean 'epochs'?`."""

from __future__ import annotations

import copy
import re
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from .errors import did_you_mean
from .losses.presets import PRESETS
from .recipe_keys import similar_key, whole_key
from .shown import plain, shown


def describe(error: ValidationError, model: type[BaseModel], parent: str = "", tree: Any = None) -> list[str]:
    """One line per problem, each with the path of its key, which starts with that of its `parent`. Of a whole recipe, `tree` is
    its plain data, in which a key that was shortened is looked for."""
    return [_line(problem, model, parent, tree) for problem in _problems(error)]


def _problems(error: ValidationError) -> list[Any]:
    """Pydantic's, but a list whose items are wrong is also reported as too short, because no valid item is left."""
    problems = error.errors(include_url=False)
    places = [problem["loc"] for problem in problems]
    return [
        problem
        for problem in problems
        if problem["type"] != "too_short"
        or not any(len(place) > len(problem["loc"]) and place[: len(problem["loc"])] == problem["loc"] for place in places)
    ]


def without_problems(error: ValidationError, model: type[BaseModel], tree: dict[str, Any]) -> dict[str, Any] | None:
    """A recipe's plain data without the keys that are wrong in themselves, or else the items of a list that they make wrong, to
    see what else is wrong with it; None where nothing would be left."""
    tree, wrong = copy.deepcopy(tree), set()
    for problem in _problems(error):
        location = _resolve(problem["loc"], model)[0] if problem["loc"] else ()
        found = next((place for place in _enclosing(location) if _can_go(tree, place)), None)
        if found is None:
            return None
        wrong.add(found)
    # What is inside goes before what holds it, and later items of a list before earlier ones.
    for place in sorted(wrong, key=lambda place: [str(part).zfill(9) for part in place], reverse=True):
        _at(tree, place[:-1]).pop(place[-1])
    return tree


def _enclosing(location: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """A place and those that hold it, from the inside out."""
    return [location[:end] for end in range(len(location), 0, -1)]


def _can_go(tree: Any, place: tuple[Any, ...]) -> bool:
    """Whether what is at a place can be left out: a key that is there, or one of several items."""
    node = _at(tree, place[:-1])
    if isinstance(node, dict):
        return place[-1] in node
    return isinstance(node, list) and place[-1] in range(len(node)) and len(node) > 1


def _at(tree: Any, place: tuple[Any, ...]) -> Any:
    for part in place:
        there = part in tree if isinstance(tree, dict) else isinstance(tree, list) and part in range(len(tree))
        if not there:
            return None
        tree = tree[part]
    return tree


def _line(problem: Any, model: type[BaseModel], parent: str, tree: Any) -> str:
    location, owner = _resolve(problem["loc"], model)
    if parent:
        location = (parent, *location)
    kind, context, got = problem["type"], problem.get("ctx", {}), problem["input"]
    if kind == "extra_forbidden":
        key, inner = ".".join(map(str, location)), got
        while isinstance(inner, dict) and len(inner) == 1:  # `train.epochs` was set: all of it is the key
            part, inner = next(iter(inner.items()))
            key, location = f"{key}.{part}", (*location, part)
        near = whole_key(key, model, tree) if tree is not None else ""
        near = near or did_you_mean(key.rpartition(".")[2], _keys(owner))
        return f"{_path(location)}: unknown key{near or (similar_key(key, model, tree) if tree is not None else '')}"
    if kind == "union_tag_invalid":
        choices = [choice.strip(" '") for choice in context["expected_tags"].split(",")]
        near = did_you_mean(context["tag"], [*choices, *PRESETS]) or f"; known: {', '.join(choices)}"
        return f"{_path((*location, 'loss'))}: unknown loss {shown(context['tag'])}{near}"
    if kind == "union_tag_not_found":
        return f"{_path((*location, 'loss'))}: missing"
    if kind == "missing":
        return f"{_path(location)}: missing"
    if kind == "literal_error":
        choices = [choice.strip(" '") for choice in context["expected"].replace(" or ", ", ").split(",")]
        near = did_you_mean(str(got), choices) or f"; known: {', '.join(choices)}"
        return f"{_path(location)}: unknown value {'null' if got is None else shown(got)}{near}"
    if kind == "value_error":
        prefix = f"{_path(location)}: " if location else ""
        return prefix + str(context["error"])
    # Of a section, pydantic adds the name of its class; and it calls things as Python does.
    message = re.sub(r" or instance of \w+", "", problem["msg"].replace("Input should", "should"))
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")
    return f"{_path(location)}: {message[0].lower()}{message[1:]}, got {'null' if got is None else shown(got)}"


def _path(location: tuple) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' * bool(text)}{plain(str(part), 100) or repr('')}"
    return text or "recipe"


def _resolve(location: tuple, model: type[BaseModel]) -> tuple[tuple, type[BaseModel] | None]:
    """The location without the union tags that pydantic puts into it, and the model that owns its last key."""
    current: list[type[BaseModel]] = [model]
    owner: type[BaseModel] | None = model
    cleaned: list[Any] = []
    for part in location:
        tagged = [m for m in current if len(current) > 1 and part in _tags(m)]
        if tagged:
            current = tagged
            continue
        cleaned.append(part)
        if isinstance(part, int):
            continue
        owner = current[0] if current else None
        field = next((f for m in current for n, f in m.model_fields.items() if part in (n, f.alias)), None)
        current = [] if field is None else _models(field.annotation)
    return tuple(cleaned), owner


def _tags(model: type[BaseModel]) -> tuple:
    field = model.model_fields.get("loss")
    return typing.get_args(field.annotation) if field else ()


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in typing.get_args(annotation) for found in _models(inner)]


def _keys(owner: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in owner.model_fields.items()] if owner else []
