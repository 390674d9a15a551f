"""What a cross-check reads from the folder of one run; a missing or unreadable file is an error that names it.

A run is called, and its folder too, `BACKEND` with one process and `BACKEND-N` with N.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..checkpoint import WEIGHTS
from ..errors import CrossdistilError
from ..json_files import json_lines, read_object
from ..kinds.kind import Kind
from ..kinds.known_kinds import KINDS, kind_of_model
from ..run_files import RESULT, STUDENT
from ..run_result import check_result
from ..shown import shown
from ..yaml_files import parse_yaml

DISPLAY_NAMES = {"torch": "PyTorch", "oneflow": "OneFlow", "mindspore": "MindSpore", "tensorflow": "TensorFlow"}


_RUN = re.compile(r"(.+)-([1-9]\d*)")


def run_name(backend: str, processes: int) -> str:
    """What the run of a backend with so many processes is called."""
    return backend if processes == 1 else f"{backend}-{processes}"


def parts_of_name(name: str) -> tuple[str, int]:
    """The (backend, number of processes) of a run's name."""
    found = _RUN.fullmatch(name)
    return (name, 1) if found is None else (found[1], int(found[2]))


def display_name(name: str) -> str:
    """A run's name for readers: `PyTorch` with one process, `PyTorch × 2` with two."""
    backend, processes = parts_of_name(name)
    shown = DISPLAY_NAMES.get(backend, backend)
    return shown if processes == 1 else f"{shown} × {processes}"


def processes_text(count: int) -> str:
    """`1 process`, `2 processes`."""
    return f"{count} process{'' if count == 1 else 'es'}"


class Arrays:
    """The tensors of one safetensors file, read one at a time: gradients of a whole model need not fit in memory."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = safe_open(str(_existing(path)), framework="numpy")
            self.names = frozenset(self._file.keys())
        except (SafetensorError, OSError) as error:
            raise CrossdistilError(f"{path}: not a readable safetensors file: {error}") from error

    def get(self, name: str) -> np.ndarray:
        """One tensor as float64."""
        if name not in self.names:
            raise CrossdistilError(f"{self.path}: has no array '{name}', expected it in every cross-check")
        return self._file.get_tensor(name).astype(np.float64)

    def below(self, prefix: str) -> list[str]:
        """What follows `prefix` in the names that start with it; numbers in numerical order."""
        found = [name[len(prefix) :] for name in self.names if name.startswith(prefix)]
        return sorted(found, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))


@dataclass(frozen=True)
class BackendRun:
    """One run of a cross-check. `losses`: logged step -> loss, NaN where it was not a number."""

    name: str
    folder: Path
    result: dict[str, Any]
    losses: dict[int, float]
    probe: Arrays
    predictions: np.ndarray | None
    """Logits on dev (examples, outputs); None where the student has no task."""
    recipe_text: str | None
    recipe: dict[str, Any] | None

    @property
    def backend(self) -> str:
        """What it ran on."""
        return parts_of_name(self.name)[0]

    @property
    def processes(self) -> int:
        """How many processes it was to have."""
        return parts_of_name(self.name)[1]

    @property
    def start(self) -> dict[str, str]:
        """Digests of what it started from, which all its processes had alike: recipe, texts, first weights."""
        return self.result.get("start") or {}

    def weights(self) -> Arrays:
        """The weights of the trained student."""
        return Arrays(self.folder / STUDENT / WEIGHTS)

    @property
    def recipe_digest(self) -> str | None:
        """As the run wrote it, else `Recipe.digest` of the resolved recipe in the run folder."""
        if self.result.get("recipe_digest") or self.recipe is None:
            return self.result.get("recipe_digest")
        return hashlib.sha256(json.dumps(self.recipe, sort_keys=True, default=str).encode()).hexdigest()


def read_run(folder: Path, name: str) -> BackendRun:
    """Read `folder`/`name`. Raises CrossdistilError for what is missing or unreadable."""
    folder = folder / name
    if not folder.is_dir():
        backend, processes = parts_of_name(name)
        several = "" if processes == 1 else f" with {processes} processes"
        raise CrossdistilError(f"{folder}: no such folder, expected the run of backend '{backend}'{several}")
    recipe_file = folder / "recipe.yaml"
    recipe_text = recipe_file.read_text(encoding="utf-8") if recipe_file.is_file() else None
    recipe = _parse_recipe(recipe_file, recipe_text)
    predictions = None
    if not is_raw_text(recipe):
        predictions = Arrays(folder / "predictions.safetensors").get("logits")
    if predictions is not None and (predictions.ndim != 2 or not len(predictions)):
        raise CrossdistilError(
            f"{folder / 'predictions.safetensors'}: logits have shape {predictions.shape}, expected (examples, classes)"
        )
    return BackendRun(
        name=name,
        folder=folder,
        result=_read_result(folder / RESULT),
        losses=_read_losses(folder / "metrics.jsonl"),
        probe=Arrays(folder / "probe.safetensors"),
        predictions=predictions,
        recipe_text=recipe_text,
        recipe=recipe,
    )


def is_raw_text(recipe: dict[str, Any] | None) -> bool:
    """Whether a resolved recipe learns from raw text, so that its student has nothing to predict."""
    return not kind_of_recipe(recipe).has_targets


def kind_of_recipe(recipe: dict[str, Any] | None, outputs: int = 2) -> Kind:
    """What the task of a resolved recipe asks for; where it does not say so, as GLUE's do not, by a model's number of logits."""
    kind = ((recipe or {}).get("task") or {}).get("kind")
    return KINDS.get(str(kind)) or kind_of_model(outputs)


def has_layers(recipe: dict[str, Any] | None) -> bool:
    """Whether the student of a resolved recipe has hidden states to compare."""
    return (((recipe or {}).get("student") or {}).get("architecture") or {}).get("model_type") != "bilstm"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object."""
    return read_object(_existing(path))


def _read_result(path: Path) -> dict[str, Any]:
    found = read_object(_existing(path), any_number=True)
    check_result(found, path)
    return found


def _read_losses(path: Path) -> dict[int, float]:
    losses: dict[int, float] = {}
    for number, entry in json_lines(_existing(path), any_number=True):
        try:
            if "loss" in entry:
                # A run that was resumed may have logged a step twice; the later one is the one that counts.
                losses[int(entry["step"])] = math.nan if entry["loss"] is None else float(entry["loss"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CrossdistilError(f"{path}: line {number}: not a metrics line: {shown(entry, 80)}") from error
    if not losses:
        raise CrossdistilError(f"{path}: holds no training step, expected a line with step and loss for each step")
    return dict(sorted(losses.items()))


def _parse_recipe(path: Path, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    recipe = parse_yaml(text, str(path))
    return recipe if isinstance(recipe, dict) else None


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CrossdistilError(f"{path}: no such file, expected it in the run folder of every backend")
    return path
