"""The proof of a conversion, in numbers: equal weights, and equal outputs of NumPy and of every framework at hand."""

from __future__ import annotations

import json
import math
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...backends.registry import python_with
from ...converters.canonical import CanonicalCheckpoint, ReadOptions, read_canonical
from ...converters.frameworks import MODULES
from ...converters.verify import (
    Difference,
    compare_configurations,
    compare_tensors,
    differences,
    limits,
    not_computed,
    reference_outputs,
    sample_batch,
)
from ..errors import MESSAGE_PREFIX, CheckpointError
from ..plugin_files import loaded_plugins
from ..processes import python_command


@dataclass
class Verification:
    """What was compared with the source's outputs in NumPy float64."""

    weights: str
    """How the tensors compare."""
    limits: dict[str, float]
    """Output -> how far it may be off; infinite where float32 itself has no number for it."""
    columns: dict[str, list[Difference]] = field(default_factory=dict)
    """Who computed -> difference of each output."""
    not_run: list[str] = field(default_factory=list)
    """What could not be computed, and which frameworks said nothing: they are not installed, or cannot read the file."""

    @property
    def worst_place(self) -> tuple[str, Difference] | None:
        """(who computed, the difference) that is nearest to its limit, or furthest above it; None where nothing could be
        computed."""
        rows = [(column, row) for column, found in self.columns.items() for row in found if self.limits[row.output] < math.inf]
        return max(rows, key=lambda pair: pair[1].relative / self.limits[pair[1].output], default=None)

    @property
    def worst(self) -> float:
        """The relative difference there."""
        return 0.0 if self.worst_place is None else self.worst_place[1].relative

    @property
    def limit(self) -> float:
        """The limit there."""
        return min(self.limits.values(), default=0.0) if self.worst_place is None else self.limits[self.worst_place[1].output]


def verify(
    source: CanonicalCheckpoint,
    source_options: ReadOptions,
    result: Path,
    framework: str,
) -> Verification:
    """Compare the result in folder `result` with its source. Raises CheckpointError where they are not the same model."""
    converted = read_canonical(result, ReadOptions(allow_missing=source.missing))
    compare_configurations(source, converted)
    weights = compare_tensors(source, converted)
    expected = reference_outputs(source)
    batch = sample_batch(source)
    found = Verification(weights, limits(source, converted, expected), not_run=not_computed(source))
    found.not_run += [
        f"{name}: not compared, float32 has no number for it" for name, limit in found.limits.items() if limit == math.inf
    ]
    found.columns["NumPy, result"] = differences(expected, reference_outputs(converted), batch)
    sides = [
        (framework, result, ReadOptions(allow_missing=source.missing), "result", converted),
        (source.source.framework, source.source.path, source_options, "source", source),
    ]
    for name, path, options, side, checkpoint in sides:
        python = python_with(MODULES[name])
        if source.resized and checkpoint is source:
            found.not_run.append(f"{name}: source not run there: the result has another vocabulary")
        elif python is None:
            found.not_run.append(f"{name} is not installed: {side} not run there")
        elif not _readable(checkpoint):
            found.not_run.append(f"{name} cannot read this layout itself: {side} not run there")
        elif expected:
            try:
                outputs = _framework_outputs(python, name, path, options)
            except CheckpointError as error:
                if checkpoint is not source:
                    raise
                # The file is not ours: that the framework cannot read what we can is no fault of the result.
                found.not_run.append(f"{name}: source not run there: {str(error).splitlines()[0]}")
            else:
                found.columns[f"{name}, {side}"] = differences(expected, outputs, batch)
    if found.worst > found.limit:
        column, row = found.worst_place
        raise CheckpointError(
            f"verification failed: {row.output} of {column} differs from the source by {row.relative:.1e} "
            f"(relative to its largest value), the limit is {found.limit:.1e}"
        )
    return found


def _readable(checkpoint: CanonicalCheckpoint) -> bool:
    """Whether the framework of the format has a reader of its own: OneFlow has none for variables without shapes."""
    flat = [tensor.info for tensor in checkpoint.source.tensors.values() if "embeddings" in tensor.info.name]
    return checkpoint.dialect != "oneflow-legacy" or any(len(info.shape) > 1 for info in flat)


def _framework_outputs(python: Path, framework: str, path: Path, options: ReadOptions) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "outputs.npz"
        request = {
            "framework": framework,
            "path": str(path.absolute()),
            "out": str(out),
            "options": options.as_json(),
            "plugins": loaded_plugins(),
        }
        done = subprocess.run(
            python_command(python, "crossdistil.core.app.framework_forward"),
            input=json.dumps(request),
            text=True,
            capture_output=True,
        )
        if done.returncode:
            lines = [line.removeprefix(MESSAGE_PREFIX) for line in done.stderr.splitlines() if line.startswith(MESSAGE_PREFIX)]
            raise CheckpointError("\n".join(lines) or f"{framework} failed on {path}: {_last_line(done.stderr)}")
        with np.load(out) as arrays:
            return {name.replace("|", "/"): arrays[name] for name in arrays.files}


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
