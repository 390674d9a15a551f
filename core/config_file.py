"""The `config.json` of a model folder: read, and made an architecture, names of classes and what was told about a training.

`where` names the file in messages, behind the recipe's key of the model where a recipe asked for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .errors import CheckpointError
from .json_files import read_object
from .kinds.known_kinds import ONE_CLASS, ONE_NUMBER, SEVERAL_LABELS
from .models.architectures import CONFIGURATIONS, Config, config_from
from .models.config_keys import config_problems
from .models.head_classes import label_names
from .models.known_families import plugin_hint
from .recipe_errors import describe
from .shown import shown

CONFIG = "config.json"

PROBLEM_TYPES = tuple(kind.problem_type for kind in (ONE_NUMBER, ONE_CLASS, SEVERAL_LABELS))


def load_config(folder: Path, where: str = "") -> Config:
    """The architecture of the model in a folder, as `load_model`, without its weights."""
    prefix = f"{where}: " if where else ""
    return model_config(read_config(folder, prefix), f"{prefix}{folder / CONFIG}")


def model_config(raw: dict[str, Any], where: str) -> Config:
    """The architecture in a `config.json`; anything that our models do not compute is an error."""
    kind = raw.get("model_type", "bert")
    if not isinstance(kind, str) or kind not in CONFIGURATIONS:
        *others, last = (f"'{name}'" for name in CONFIGURATIONS)
        expected = f"expected {', '.join(others)} or {last}{plugin_hint(kind, raw)}"
        raise CheckpointError(f"{where}: model_type is {shown(kind)}, {expected}")
    problems = config_problems(raw, CONFIGURATIONS[kind]) if CONFIGURATIONS[kind].family.others_write else []
    try:
        if not problems:  # else what its missing keys lead to is no news
            return config_from(raw)
    except ValidationError as error:
        problems = describe(error, CONFIGURATIONS[kind])
    raise CheckpointError("\n".join(f"{where}: {line}" for line in problems))


def read_config(folder: Path, prefix: str) -> dict[str, Any]:
    """The JSON object in the configuration of a model folder; `prefix` stands before the messages."""
    return read_config_file(folder / CONFIG, f"a model folder with {CONFIG}", prefix)


def read_config_file(path: Path, expected: str, prefix: str = "") -> dict[str, Any]:
    """The JSON object in a configuration; `expected` says what should have been given where there is no such file."""
    try:
        return read_object(path, CheckpointError)
    except FileNotFoundError:
        raise CheckpointError(f"{prefix}{path}: no such file; expected {expected}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{prefix}{error}") from error


def class_names(raw: dict[str, Any], where: str) -> tuple[str, ...] | None:
    """The names of the classes in order; None where nothing names them. Raises CheckpointError."""
    try:
        names = label_names(raw)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if names is None:
        return None
    if not isinstance(names, dict) or set(names) != {str(index) for index in range(len(names))}:
        raise CheckpointError(f'{where}: id2label: expected {{"0": name, "1": name, ...}}, got {shown(names)}')
    labels = tuple(str(names[str(index)]) for index in range(len(names)))
    if len(set(labels)) < len(labels):
        raise CheckpointError(f"{where}: id2label: expected different names, got {', '.join(labels)}")
    return labels


def problem_type(raw: dict[str, Any], outputs: int | None, head: str, where: str) -> str | None:
    """What the configuration says that the head predicts. Raises CheckpointError where that is unknown, or no such head."""
    kind = raw.get("problem_type")
    if kind not in (None, *PROBLEM_TYPES):
        known = ", ".join(PROBLEM_TYPES)
        raise CheckpointError(f"{where}: problem_type is {shown(kind)}, expected one of {known}")
    if kind == ONE_NUMBER.problem_type and outputs is not None and outputs > 1:
        raise CheckpointError(
            f"{where}: problem_type is regression, but {head} has {outputs} rows; only one number is computed here"
        )
    return kind


def about_training(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """What was written about the model's training; who uses the task reads it as a recipe's."""
    about = raw.get("crossdistil", {})
    for key, value in (("crossdistil", about), ("crossdistil.task", about.get("task", {}) if isinstance(about, dict) else {})):
        if not isinstance(value, dict):
            raise CheckpointError(f"{where}: {key}: got {shown(value)}, expected an object")
        length = value.get("max_length", 128)
        if type(length) is not int or length < 1:
            raise CheckpointError(f"{where}: {key}.max_length: got {shown(length)}, expected a number from 1")
    return about
