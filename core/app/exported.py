"""Folders that `crossdistil export` has written, for `evaluate` and `predict`: their own runtime stands in for an engine."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...backends.registry import known_backends
from ..checkpoint import CARD, Model, check_unchanged
from ..errors import BackendError, CheckpointError, CrossdistilError
from ..extras import install
from ..json_files import read_object
from ..processor import instructions
from ..shown import shown
from .options import hand_over

if TYPE_CHECKING:
    from .export_targets import Infer, Target

REPORT = "export.json"
"""In an exported folder: what was measured, and in which precision it is."""


def exported_target(folder: Path) -> Target | None:
    """What a folder was exported to; None where it was not."""
    if not (folder / CARD).is_file():
        return None
    from .export_targets import TARGETS  # brings what writes graphs, which no other folder needs

    return next((target for target in TARGETS.values() if (folder / target.file).is_file()), None)


def own_runtime(folder: Path, given: Mapping[str, object]) -> Target | None:
    """What an exported folder was exported to; None for any other folder. Raises CrossdistilError where an option of engines is
    `given`: what an exported model runs on is decided already."""
    target = exported_target(folder)
    for option, value in given.items():
        if target is not None and value is not None:
            raise CrossdistilError(f"{option}: {folder} is exported to {target.name}, which runs in its own runtime on the CPU")
    return target


def enter_runtime(folder: Path, given: Mapping[str, object]) -> str | None:
    """The name of the runtime of an exported folder, whose command goes on in the Python that has it; None for any other folder.
    Raises CrossdistilError for options of engines."""
    target = own_runtime(folder, given)
    if target is None:
        return None
    if target.backend is not None:
        hand_over(target.backend)
    return target.backend or target.name


@contextlib.contextmanager
def needs_framework(folder: Path, backend: str | None) -> Iterator[None]:
    """Where no Python has the `backend` of a model, or any, the error says how the model does without."""
    try:
        yield
    except BackendError as error:
        if backend is not None and backend not in known_backends():
            raise
        way = f"crossdistil export {folder} NEW --to onnx makes a folder for ONNX Runtime ({install('onnx')})"
        raise BackendError(f"{error}; or without any: {way}") from error


class Runtime:
    """What `evaluate` and `predict` need of an engine, for an exported model."""

    length_step = 1

    def __init__(self, target: Target, model: Model):
        self.name, self._package, self._folder = target.name, target.package, model.source
        check_unchanged(model.source, binary=(target.file, *target.beside))
        if target.native:
            _check_processor(model.source)
        self._infer = target.load(model.source / target.file, model.config)

    def versions(self) -> dict[str, str]:
        """Of the package that runs the model."""
        return {self._package: importlib.import_module(self._package).__version__}

    @property
    def precision(self) -> str:
        """In which the model was exported. Raises CheckpointError for a damaged report."""
        return str(read_object(self._folder / REPORT, CheckpointError).get("precision"))

    def infer(self, function, parameters) -> Infer:
        """The model's logits: its own, whatever the function is."""
        return self._infer


def _check_processor(folder: Path) -> None:
    """Raise CrossdistilError where a folder holds machine code with instructions that this processor has not: it would end the
    process."""
    report = read_object(folder / REPORT, CheckpointError)
    needed = report.get("instructions")
    if not isinstance(needed, list):
        raise CheckpointError(f"{folder / REPORT}: damaged: got instructions {shown(needed, 60)}")
    if lacking := sorted(set(map(str, needed)) - set(instructions())):
        made = shown(report.get("processor"), 60)
        raise CrossdistilError(
            f"{folder}: was compiled for {made}, whose {', '.join(lacking[:3])} this processor lacks; export it here again"
        )


def runtime_of(model: Model) -> Runtime | None:
    """The runtime of a model that was loaded from an exported folder."""
    target = None if model.has_weights or model.source is None else exported_target(model.source)
    return None if target is None else Runtime(target, model)
