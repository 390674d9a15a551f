"""Settings of single keys of a recipe: `path.to.key=value` as it is typed, put into the recipe's plain data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .errors import CrossdistilError, RecipeError
from .recipe_schema import Recipe
from .shown import plain, shown
from .yaml_files import parse_yaml


def parsed_override(override: str) -> tuple[str, Any, str]:
    """Key, value and what errors call it, of `path.to.key=value`."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise CrossdistilError(f"--set {override}: expected path.to.key=value, for example stages.0.train.epochs=1")
    try:
        value = parse_yaml(text, "")
    except RecipeError as error:
        problem = error.problems[0]
        what = "the value is not valid YAML" if problem.startswith("not valid YAML: ") else problem
        raise CrossdistilError(f"--set {plain(override)}: {what}") from error
    # Errors name the keys as `stages[0].train.epochs`.
    return re.sub(r"\[(\d+)\]", r".\1", key), value, f"--set {override}"


def set_all(tree: dict[str, Any], settings: Sequence[tuple[str, Any, str]]) -> None:
    """Apply settings of one origin. What is set takes the place of what excludes it, unless that is set beside it: `steps`
    of the `epochs` in the file, `teachers` of the `teacher`."""
    for key, value, asked in settings:
        _set(tree, key, value, asked)
        steps = re.fullmatch(r"(stages\.\d+\.train\.)(steps|epochs)", key)
        if steps:
            rival = steps[1] + ("epochs" if steps[2] == "steps" else "steps")
        else:
            rival = {"teacher": "teachers", "teachers": "teacher"}.get(key.partition(".")[0])
        if rival is not None and value and not any(f"{other}.".startswith(f"{rival}.") for other, _, _ in settings):
            _set(tree, rival, {} if rival == "teachers" else None, asked)


def left_out(before: dict[str, Any], after: dict[str, Any], settings: Sequence[tuple[str, Any, str]]) -> tuple[str, ...]:
    """What settings that are mappings leave out of those whose place they take, where the default is another value; of two whole
    recipes as plain data, without these settings and with them."""
    lines = []
    for key, value, _ in settings:
        old, new = _at(before, key), _at(after, key)
        if not (isinstance(value, dict) and isinstance(old, dict) and isinstance(new, dict)):
            continue
        gone = [name for name in old if name not in value and None not in (old[name], new.get(name)) and old[name] != new[name]]
        if gone:
            each = ", ".join(f"{name} is {shown(new[name])} and not {shown(old[name])}" for name in gone)
            alone = f"--set {key}.{gone[0]}=... sets a key alone"
            lines.append(f"{key}: takes the place of all that the recipe has there, so that {each}; {alone}")
    return tuple(lines)


def _at(tree: Any, key: str) -> Any:
    """What stands at `path.to.key`, or None."""
    for part in key.split("."):
        if isinstance(tree, list) and part.isdigit() and int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, dict):
            tree = tree.get(part)
        else:
            return None
    return tree


def _set(tree: dict[str, Any], key: str, value: Any, asked: str) -> None:
    """Set `path.to.key` in a tree; `asked` is what errors call it."""
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        index = _index(node, part, ".".join(parents[:depth]), asked)
        following = parents[depth + 1] if depth + 1 < len(parents) else last
        if isinstance(node, dict) and node.get(part) is None:
            # An unknown section is told with all that is wrong, once there is a recipe to check.
            node[part] = [] if following.isdigit() and (depth or part in Recipe.model_fields) else {}
        node = node[index]
        if not isinstance(node, dict | list):
            raise CrossdistilError(f"{asked}: {'.'.join(parents[: depth + 1])} holds {shown(node)}, not keys")
    node[_index(node, last, ".".join(parents), asked)] = value


def _index(node: Any, part: str, place: str, asked: str) -> str | int:
    if isinstance(node, dict):
        return part
    if not part.isdigit() or int(part) >= len(node):
        known = ", ".join(map(str, range(len(node)))) or "none"
        raise CrossdistilError(f"{asked}: {place} has no item '{part}', only {known} (counted from 0)")
    return int(part)
