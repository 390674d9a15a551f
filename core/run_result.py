"""A finished run's result.json as others read it: what does not have the type that a run writes is an error, and no surprise for
whoever shows or compares it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import RunFolderError
from .json_files import is_number
from .run_files import RESULT, read_remade
from .shown import shown

REMEDY = "remove it, and --resume makes it again"
_Check = Callable[[Any], bool]


def read_result(folder: Path) -> dict[str, Any]:
    """The content of a run's result.json. Raises RunFolderError."""
    path = folder / RESULT
    found = read_remade(path, REMEDY, any_number=True)
    if found is None:
        raise RunFolderError(f"{path}: no such file, expected the result of a run")
    if not isinstance(found.get("student"), dict):
        raise RunFolderError(f"{path}: expected the result of a run, got {shown(found, 60)}; {REMEDY}")
    check_result(found, path)
    return found


def check_result(found: Mapping[str, Any], path: Path) -> None:
    """Raise RunFolderError for the first value that is of another type than what a run writes there. Runs of earlier versions
    lack some, and a null stands for nothing, but not of a stage."""
    for key, value, (what, holds) in _values(found):
        if not holds(value) and (value is not None or key.startswith("stages[")):
            raise RunFolderError(f"{path}: {key}: expected {what}, got {'null' if value is None else shown(value, 60)}; {REMEDY}")


def _of_type(kind: type) -> _Check:
    return lambda value: isinstance(value, kind)


_NUMBER = "a number", is_number
_COUNT = "a whole number", lambda value: is_number(value) and value == value // 1
_TEXT, _OBJECT, _LIST = ("a text", _of_type(str)), ("an object", _of_type(dict)), ("a list", _of_type(list))
_KEYS: dict[str, tuple[str, _Check]] = {
    **dict.fromkeys(("backend", "device", "precision", "method", "task", "recipe_digest"), _TEXT),
    **dict.fromkeys(("wall_seconds", "training_seconds", "tokens_per_second", "communication_share"), _NUMBER),
    **dict.fromkeys(("peak_memory_mb", "epochs"), _NUMBER),
    **dict.fromkeys(("threads", "seed", "steps", "processes"), _COUNT),
    **dict.fromkeys(("versions", "kernels", "start", "dev", "student", "teacher", "teachers"), _OBJECT),
    "stages": _LIST,
}
_OF_MODELS = {"metrics": _OBJECT, "parameters": _COUNT, "kept_step": _COUNT}
_OF_STAGES = {"name": _TEXT, "epochs": _NUMBER}


def _values(found: Mapping[str, Any]) -> Iterator[tuple[str, Any, tuple[str, _Check]]]:
    """Each value with the place where it stands and what it has to be; what holds others comes before them."""
    for key, expected in _KEYS.items():
        yield key, found.get(key), expected
    models = {key: found.get(key) for key in ("student", "teacher")}
    for name, teacher in (found.get("teachers") or {}).items():
        yield f"teachers.{name}", teacher, _OBJECT
        models[f"teachers.{name}"] = teacher
    for name, model in models.items():
        for key, expected in _OF_MODELS.items():
            yield f"{name}.{key}", (model or {}).get(key), expected
        for metric, value in ((model or {}).get("metrics") or {}).items():
            yield f"{name}.metrics.{metric}", value, _NUMBER
    for index, stage in enumerate(found.get("stages") or ()):
        yield f"stages[{index}]", stage, _OBJECT
        for key, expected in _OF_STAGES.items():
            yield f"stages[{index}].{key}", stage.get(key), expected
